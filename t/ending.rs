//! Plugin contexts of a worker that ends: they are told, and what they still ask for is done.

use super::ops::of;
use super::support::{Nginx, Running, poll};

const SERVICE: &str = r#"
    server {
        listen unix:service.sock;
        location / { content_by_lua_block { ngx.log(ngx.NOTICE, "it came") ngx.print("answer") } }
        location /slow { content_by_lua_block { ngx.log(ngx.NOTICE, "it came") ngx.sleep(1) } }
        location /never {
            lua_check_client_abort on;
            content_by_lua_block {
                ngx.on_abort(function() ngx.exit(499) end)
                ngx.log(ngx.NOTICE, "it came")
                ngx.sleep(60)
            }
        }
    }
"#;

/// Of another nginx, which does not end when the filter's does.
fn service() -> Nginx {
    Nginx::new().http(SERVICE)
}

fn worker(script: &str) -> Running {
    Nginx::new()
        .guest("probe")
        .http(&format!(
            r#"
            init_by_lua_block {{
                wasm = require("resty.proxy-wasm")
                local plugin = assert(wasm.load("probe", "probe.wasm", {{ calls = {{ allow = {{ "unix:*" }} }} }}))
                ctx = assert(wasm.on_configure(plugin, [==[{script}]==]))
            }}
            init_worker_by_lua_block {{ assert(wasm.init_worker()) }}
            "#
        ))
        .server(
            r#"
            location / { content_by_lua_block { assert(wasm.on_http_request_headers(ctx)) ngx.print("ok") } }
            location /slow {
                content_by_lua_block {
                    assert(wasm.on_http_request_headers(ctx))
                    ngx.sleep(1)
                    ngx.print("ok")
                }
            }
            "#,
        )
        .start()
}

/// Replaces the worker and waits for the old one to end; the new one is left out of what was said.
fn after_reload(nginx: &Running) -> Vec<String> {
    let old = nginx.worker_pids()[0];
    nginx.reload();
    nginx.wait_for_old_workers();
    let log = nginx.error_log();
    let marker = format!(" {old}#");
    let lines = log.lines().filter(|line| line.contains(&marker));
    lines
        .filter_map(|line| {
            Some(line.split_once("wasm log probe: ")?.1.split(", client: ").next()?.to_owned())
        })
        .collect()
}

fn ended(lines: &[String]) -> Vec<&str> {
    let end = lines.iter().position(|line| line.starts_with("root_done"));
    lines[end.unwrap_or(lines.len())..].iter().map(String::as_str).collect()
}

#[test]
fn contexts_end_with_their_worker() {
    let script = "root_done: ids; root_log: ids; root_delete: ids; delete: ids";
    // One that no request has used, too.
    for used in [false, true] {
        let nginx = worker(script);
        if used {
            assert_eq!(nginx.get("/").text(), "ok");
        }
        let lines = after_reload(&nginx);
        assert_eq!(
            ended(&lines),
            ["root_done ids -> id=1 root=1", "root_delete ids -> id=1 root=1"]
        );
        nginx.stop();
        assert_eq!(of(&nginx, "root_delete").len(), 2, "the second worker quits");
    }
}

#[test]
fn what_is_sent_at_the_end_arrives_and_is_answered() {
    let service = service().start();
    let call = format!("http_call unix:{} ':path=/slow' '' '' 4000", service.path("service.sock"));
    let nginx = worker(&format!("root_done: {call}; http_call_response: args; root_delete: ids"));
    let lines = after_reload(&nginx);
    let lines = ended(&lines);
    assert!(lines[0].ends_with("-> 0 1"), "{lines:?}");
    assert!(lines[1].starts_with("http_call_response args -> token=1 headers="), "{lines:?}");
    assert_eq!(lines[2..], ["root_delete ids -> id=1 root=1"]);
    assert!(service.logged("it came"));
}

#[test]
fn a_context_that_asks_for_time_has_it() {
    let service = service().start();
    let call = format!("http_call unix:{} '' '' '' 4000", service.path("service.sock"));
    let nginx = worker(&format!(
        "root_done: {call}
         root_done: return 0
         http_call_response@first: {call}
         http_call_response@again: done
         root_delete: ids"
    ));
    let lines = after_reload(&nginx);
    let lines = ended(&lines);
    assert_eq!(lines[lines.len() - 1], "root_delete ids -> id=1 root=1", "{lines:?}");
    assert_eq!(lines.len(), 5, "{lines:?}");
}

#[test]
fn a_context_that_never_ends_is_deleted_when_its_time_is_over() {
    let service = service().start();
    let call =
        format!("http_call unix:{} ':path=/never' '' '' 60000", service.path("service.sock"));
    let chain = format!("http_call unix:{} '' '' '' 60000", service.path("service.sock"));
    for script in [
        "root_done: return 0; root_delete: ids".to_owned(),
        format!("root_done: {call}; root_delete: ids"),
        format!("configure: {call}; root_done: ids; root_delete: ids"),
        format!(
            "root_done: {chain}; root_done: return 0; http_call_response: {chain}; root_delete: ids"
        ),
    ] {
        let nginx = worker(&script);
        let lines = after_reload(&nginx);
        let last = lines.last().map(String::as_str);
        assert_eq!(last, Some("root_delete ids -> id=1 root=1"), "{script}");
    }
}

#[test]
fn contexts_end_after_the_requests_of_their_worker() {
    let nginx = worker("request_headers: ids; log: ids; root_done: ids; root_delete: ids");
    let mut connection = nginx.connect();
    connection.write(b"GET /slow HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    poll(|| (!of(&nginx, "request_headers").is_empty()).then_some(())).expect("a request");
    let lines = after_reload(&nginx);
    assert_eq!(connection.response().text(), "ok");
    assert_eq!(
        lines[1..],
        [
            "log ids -> id=2 root=1",
            "root_done ids -> id=1 root=1",
            "root_delete ids -> id=1 root=1"
        ]
    );
}

#[test]
fn a_context_that_traps_at_the_end_holds_nothing_up() {
    let nginx = worker("root_done: trap; root_delete: ids");
    nginx.expect_log("proxy_on_done failed: wasm trap: ");
    nginx.reload();
    nginx.wait_for_old_workers();
}

/// With `lua_code_cache off` each request has a Lua VM of its own, which takes its contexts with it.
#[test]
fn contexts_end_after_their_lua_vm() {
    let service = service().start();
    let call = format!("http_call unix:{} '' '' '' 4000", service.path("service.sock"));
    let nginx = Nginx::new()
        .guest("probe")
        .http("lua_code_cache off;")
        .server(&format!(
            r#"location / {{
                content_by_lua_block {{
                    local wasm = require("resty.proxy-wasm")
                    local plugin = assert(wasm.load("probe", "probe.wasm", {{ calls = {{ allow = {{ "unix:*" }} }} }}))
                    local ctx = assert(wasm.on_configure(plugin,
                        "root_done: {call}; root_delete: ids; http_call_response: args"))
                    assert(wasm.on_http_request_headers(ctx))
                    ngx.print("ok")
                }}
            }}"#
        ))
        .start();
    nginx.expect_log("lua_code_cache is off");
    let deleted = poll(|| {
        assert_eq!(nginx.get("/").text(), "ok");
        (!of(&nginx, "root_delete").is_empty()).then_some(())
    });
    assert!(deleted.is_some());
    assert!(!of(&nginx, "http_call_response").is_empty());
    assert!(service.logged("it came"));
}
