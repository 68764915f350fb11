//! The status page and its numbers: by plain HTTP, and in Chromium.

use super::support::{Nginx, Running, poll, python, root};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest as _, Sha256};
use std::io::Write as _;
use std::process::{Command, Stdio};

const NAME: &str = "<script>alert(1)</script>";

/// Puts a message into a queue of its own when it is configured.
const QUEUE: &str = r#"(module
    (import "env" "proxy_register_shared_queue" (func $register (param i32 i32 i32) (result i32)))
    (import "env" "proxy_enqueue_shared_queue" (func $enqueue (param i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 8) "<b>jobs</b>")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 0))
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (drop (call $register (i32.const 8) (i32.const 11) (i32.const 0)))
        (drop (call $enqueue (i32.load (i32.const 0)) (i32.const 8) (i32.const 4)))
        (i32.const 1)))"#;

fn nginx(workers: usize) -> Nginx {
    Nginx::new()
        .http(&format!(
            r#"
            init_by_lua_block {{
                wasm = require("resty.proxy-wasm")
                plugin = assert(wasm.load("{NAME}", "bare.wasm", {{ memory_limit = 131072 }}))
                ctx = assert(wasm.on_configure(plugin))
                other = assert(wasm.load("other \"\\ \226\130\172\n&", "queue.wasm", {{ vm_id = "<i>&" }}))
                other_ctx = assert(wasm.on_configure(other))
            }}
            init_worker_by_lua_block {{ assert(wasm.init_worker()) }}
            "#
        ))
        .server(
            r#"
            location /status { content_by_lua_block { assert(wasm.status_page()) } }
            location /plugins {
                content_by_lua_block {
                    for _, found in ipairs(assert(wasm.plugins())) do
                        ngx.say(found.name)
                        for _, worker in ipairs(found.workers) do
                            ngx.say(worker.state, " ", worker.version, " ", #worker.digest, " ", worker.contexts, " ",
                                worker.streams, " ", worker.memory, " ", worker.memory_limit, " ", worker.traps, " ",
                                worker.last_error or "no error")
                        end
                    end
                }
            }
            location /t {
                access_by_lua_block { assert(wasm.on_http_request_headers(ctx)) }
                header_filter_by_lua_block { assert(wasm.on_http_response_headers(ctx)) }
                content_by_lua_block { ngx.print(table.concat({ "answer" })) }
            }
            "#,
        )
        .wat("bare")
        .wat_text("queue", QUEUE)
        .workers(workers)
}

/// An expression of Python over the numbers, as `answer`.
fn evaluate(nginx: &Running, expression: &str) -> String {
    let answer = nginx.get("/status?format=json");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let mut command = python();
    let script =
        format!("import json, sys\nanswer = json.load(sys.stdin.buffer)\nprint({expression})");
    command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("python");
    child.stdin.take().expect("a pipe").write_all(&answer.body).expect("a pipe");
    let output = child.wait_with_output().expect("python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&answer.body));
    String::from_utf8(output.stdout).expect("text").trim().into()
}

#[test]
fn the_document_holds_nothing_of_filters_and_allows_nothing_else() {
    let nginx = nginx(1).start();
    let page = nginx.get("/status");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    let text = page.text();
    assert!(!text.contains("alert") && !text.contains("http://www.w3.org/1999"), "{text}");
    let inline = |tag: &str| {
        let (_, rest) = text.split_once(&format!("<{tag}>")).expect("a part");
        let (part, rest) = rest.split_once(&format!("</{tag}>")).expect("its end");
        assert!(!rest.contains(&format!("<{tag}")), "two of {tag}");
        format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(part)))
    };
    let policy = format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
        inline("script"),
        inline("style")
    );
    assert_eq!(page.header("content-security-policy"), Some(policy.as_str()));
    for attribute in [" style=", " onclick=", " src=", " href=", "innerHTML", "eval("] {
        assert!(!text.contains(attribute), "{attribute}");
    }
}

#[test]
fn the_numbers_are_json_whatever_a_filter_is_called() {
    let nginx = nginx(1).start();
    assert_eq!(nginx.get("/t").header("hello"), Some("world!"));
    let raw = nginx.get("/status?format=json").text();
    assert!(!raw.contains(['<', '>', '&']), "{raw}");
    assert_eq!(evaluate(&nginx, "[p['name'] for p in answer['plugins']][0]"), NAME);
    assert_eq!(
        evaluate(&nginx, "ascii([p['name'] for p in answer['plugins']][1])"),
        r#"'other "\\ \u20ac\n&'"#
    );
    assert_eq!(evaluate(&nginx, "answer['version']"), env!("CARGO_PKG_VERSION"));
    assert_eq!(
        evaluate(
            &nginx,
            "[m['value'] for m in answer['metrics'] if m['name'] == 'proxy_wasm_callbacks_total' \
             and m['labels'] == {'plugin': '<script>alert(1)</script>', 'callback': 'proxy_on_response_headers'}]"
        ),
        "[1]"
    );
    assert_eq!(
        evaluate(
            &nginx,
            "[m['buckets'][-1]['le'] for m in answer['metrics'] if m['name'] == 'proxy_wasm_callback_seconds'][0]"
        ),
        "inf"
    );
}

#[test]
fn queues_are_listed() {
    let nginx = nginx(1).start();
    assert_eq!(
        evaluate(
            &nginx,
            "[(m['labels']['queue'], m['labels']['vm_id'], m['value'] > 0) for m in answer['metrics'] \
             if m['name'].startswith('proxy_wasm_queue_messages')]"
        ),
        "[('<b>jobs</b>', '<i>&', True), ('<b>jobs</b>', '<i>&', True)]"
    );
}

#[test]
fn nothing_can_be_changed() {
    let nginx = nginx(1).start();
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        let answer = nginx.request(method, "/status").send();
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")));
    }
    assert_eq!(nginx.request("HEAD", "/status").send().status, 200);
}

#[test]
fn plugins_are_listed_for_all_workers() {
    let nginx = nginx(2).start();
    let expected = format!(
        "{NAME}\n{0}{0}other \"\\ €\n&\n{1}{1}",
        "running 0 64 1 0 65536 131072 0 no error\n",
        "running 0 64 1 0 65536 268435456 0 no error\n"
    );
    let listed = || nginx.get("/plugins").text();
    let found = poll(|| (listed() == expected).then_some(()));
    assert!(found.is_some(), "{}", listed());
}

#[test]
fn what_went_wrong_last_is_listed() {
    let nginx = Nginx::new()
        .http(
            r#"init_by_lua_block {
                wasm = require("resty.proxy-wasm")
                ctx = assert(wasm.on_configure(assert(wasm.load("it", "rust_filter.wasm", { time_limit = 10 })), "hello: it"))
                bad = assert(wasm.load("bad", "trap.wasm"))
                bad_ctx = assert(wasm.on_configure(bad))
            }"#,
        )
        .server(
            r#"
            location /status { content_by_lua_block { assert(wasm.status_page()) } }
            location /t {
                access_by_lua_block { ngx.header["why"] = select(2, wasm.on_http_request_headers(bad_ctx)) }
                content_by_lua_block { ngx.print("answer") }
            }
            "#,
        )
        .guest("rust_filter")
        .wat_text(
            "trap",
            r#"(module
                (memory (export "memory") 1)
                (func (export "proxy_abi_version_0_2_1"))
                (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 0))
                (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) unreachable))"#,
        )
        .start();
    assert!(nginx.get("/t").header("why").is_some());
    let of = "[(w['state'], w['traps'], w['last_error'][:36]) for p in answer['plugins'] if p['name'] == 'bad' for w in p['workers']]";
    assert_eq!(evaluate(&nginx, of), "[('failing', 1, 'proxy_on_request_headers failed: was')]");
}

#[test]
fn a_browser_shows_it() {
    let driver = Command::new("chromedriver").arg("--version").output();
    driver.expect("chromedriver runs: ./build.sh test installs it");
    let nginx = nginx(2).start();
    let mut command = python();
    let script = root().join("t/browser/status_page.py");
    let output = command.arg(script).arg(nginx.url("/status")).output().expect("python");
    let said = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
    assert_eq!(said, "ok\n");
}
