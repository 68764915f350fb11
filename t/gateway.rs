//! A gateway that was written for the six documented calls, unchanged: `gateway/gateway.lua`.

use super::support::{Nginx, Running, poll, root};
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// A filter that changes headers only; `VERSION` stands for that of its configuration.
const HEADERS: &str = "
    request_headers: replace_header_map_value 0 x-version VERSION
    response_headers: add_header_map_value 2 x-version VERSION
    root_delete: ids";

/// One that asks for both bodies.
const BODIES: &str = "
    request_headers: set_property wasm_process_req_body on
    request_body: set_buffer_bytes 0 max 0 -VERSION
    response_headers: remove_header_map_value 2 content-length
    response_headers: set_property wasm_process_resp_body on
    response_body@eos: set_buffer_bytes 1 max 0 =VERSION
    root_delete: ids";

/// The gateway in front of an upstream that answers with the header x-version and the body that it got. `/configure`
/// gives route `r` the filters that its query names, in their next version.
fn gateway(phase: &str, log_level: &str) -> Running {
    let file = |name: &str| fs::read(root().join("t/gateway").join(name)).expect("a file");
    Nginx::new()
        .guest("probe")
        .file("lua/gateway.lua", file("gateway.lua"))
        .log_level(log_level)
        .http(&format!(
            r#"
            init_by_lua_block {{
                package.path = ngx.config.prefix() .. "lua/?.lua;" .. package.path
                gateway = require("gateway")
                gateway.load("headers", "probe.wasm")
                gateway.load("bodies", "probe.wasm")
                version = 0
                local scripts = {{ headers = [[{HEADERS}]], bodies = [[{BODIES}]], bad = "configure: trap" }}
                function configure(names)
                    version = version + 1
                    local filters = {{}}
                    for name in names:gmatch("%a+") do
                        local conf = scripts[name]:gsub("VERSION", version)
                        filters[#filters + 1] = {{ name = name == "bad" and "headers" or name, conf = conf }}
                    end
                    gateway.set_route("r", filters)
                end
                configure("headers,bodies")
            }}
            server {{
                listen unix:upstream.sock;
                location / {{
                    content_by_lua_block {{
                        ngx.req.read_body()
                        local body = ngx.req.get_body_data() or ""
                        local version = ngx.req.get_headers()["x-version"] or "none"
                        ngx.header["Content-Length"] = #version + 1 + #body
                        ngx.print(version, ":", body)
                    }}
                }}
            }}"#
        ))
        .server(&format!(
            r#"
            keepalive_requests 1000000;
            location / {{
                set $wasm_process_req_body '';
                set $wasm_process_resp_body '';
                {phase}_by_lua_block {{ gateway.access("r") }}
                header_filter_by_lua_block {{ gateway.header_filter() }}
                body_filter_by_lua_block {{ gateway.body_filter() }}
                proxy_pass http://unix:upstream.sock;
            }}
            location /configure {{ content_by_lua_block {{ configure(ngx.var.arg_filters) ngx.print(version) }} }}
            location /count {{ content_by_lua_block {{ ngx.print(table.concat({{ gateway.count() }}, " ")) }} }}"#
        ))
        .start()
}

/// A request with a body: what the client got, and of which version.
fn post(nginx: &Running) -> (u16, Option<String>, String) {
    let response = nginx.request("POST", "/").body("hello").send();
    (response.status, response.header("x-version").map(Into::into), response.text())
}

#[test]
fn headers_and_bodies_as_the_filters_ask_for_them() {
    for phase in ["access", "rewrite"] {
        let nginx = gateway(phase, "info");
        let got = |version: &str, body: &str| (200, Some(version.to_string()), body.to_string());
        assert_eq!(post(&nginx), got("1", "1:hello-1=1"), "{phase}");
        // Only the filter that asks is given bodies, and a request without one continues without.
        let calls = nginx.guest_log("headers").join("\n");
        assert!(!calls.contains("_body"), "{calls}");
        assert_eq!(nginx.get("/").text(), "1:-1=1", "{phase}");
        nginx.get("/configure?filters=headers");
        assert_eq!(post(&nginx), got("2", "2:hello"), "{phase}");
        nginx.get("/configure?filters=bodies,headers");
        assert_eq!(post(&nginx), got("3", "3:hello-3=3"), "{phase}");
        nginx.get("/configure?filters=");
        assert_eq!(post(&nginx), (200, None, "none:hello".into()), "{phase}");
    }
}

#[test]
fn a_configuration_that_fails_is_503_until_it_is_changed() {
    let nginx = gateway("access", "info");
    nginx.expect_log("failed to run wasm plugin: failed to run proxy_on_configure: ");
    nginx.get("/configure?filters=bad");
    for _ in 0..3 {
        assert_eq!(post(&nginx).0, 503);
    }
    nginx.get("/configure?filters=headers,bodies");
    assert_eq!(post(&nginx).2, "3:hello-3=3");
}

/// Requests, and how many for each change of the configuration.
const REQUESTS: usize = 12_000;
const CHANGE_EVERY: usize = 20;

/// Sends requests over four connections; each answer must be of one version throughout.
fn load(nginx: &Running, requests: usize) {
    let sent = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut connection = nginx.connect();
                let next = || {
                    let number = sent.fetch_add(1, Ordering::Relaxed);
                    (number < requests).then_some(number)
                };
                while let Some(number) = next() {
                    if number % CHANGE_EVERY == 0 {
                        let change = nginx.request("GET", "/configure?filters=headers,bodies");
                        assert_eq!(connection.request(&change).status, 200);
                    }
                    let answer = connection.request(&nginx.request("POST", "/").body("hello"));
                    let version = answer.header("x-version").expect("a version").to_string();
                    assert_eq!(answer.text(), format!("{version}:hello-{version}={version}"));
                }
            });
        }
    });
}

#[test]
fn nothing_grows_while_the_configuration_changes() {
    let nginx = gateway("access", "notice");
    let worker = nginx.worker_pids()[0];
    load(&nginx, REQUESTS / 3);
    nginx.get("/count");
    let before = nginx.rss_kib(worker);
    load(&nginx, REQUESTS);
    // Contexts end with their last request, which may be a moment after its answer.
    let counted = poll(|| {
        let counted = nginx.get("/count").text();
        counted.ends_with(" 2").then_some(counted)
    });
    let counted = counted.unwrap_or_else(|| nginx.get("/count").text());
    let (made, live) = counted.split_once(' ').expect("two numbers");
    assert_eq!(live, "2", "made: {made}");
    let changes = (REQUESTS + REQUESTS / 3) / CHANGE_EVERY;
    assert!(made.parse::<usize>().expect("a number") > changes, "{made}");
    let grown = nginx.rss_kib(worker).saturating_sub(before);
    assert!(grown < 4 * 1024, "{grown} KiB on top of {before}");
}

#[test]
fn contexts_of_old_configurations_end_in_the_guest() {
    let nginx = gateway("access", "info");
    for _ in 0..5 {
        assert_eq!(post(&nginx).0, 200);
        nginx.get("/configure?filters=headers,bodies");
    }
    assert_eq!(post(&nginx).0, 200);
    let deleted = |plugin: &str| {
        let lines = nginx.guest_log(plugin);
        lines.iter().filter(|line| line.starts_with("root_delete ")).count()
    };
    let ended = poll(|| {
        nginx.get("/count");
        // Endings wait for the next call into the library.
        post(&nginx);
        (deleted("headers") == 5 && deleted("bodies") == 5).then_some(())
    });
    assert!(ended.is_some(), "{} and {} of 5", deleted("headers"), deleted("bodies"));
}

/// The block of docs/gateways.md that preloads modules in the master.
fn hook() -> String {
    let page = fs::read_to_string(root().join("docs/gateways.md")).expect("a page");
    let (_, rest) = page.split_once("<!-- the hook").expect("a mark");
    let (_, rest) = rest.split_once("```lua\n").expect("a block");
    rest.split_once("```").expect("its end").0.into()
}

#[test]
fn modules_that_a_hook_preloads_are_compiled_in_the_master_alone() {
    for cache in [false, true] {
        let dir = tempfile::tempdir().expect("a folder");
        let place = "/var/cache/apisix-wasm";
        let mut hook = hook();
        assert!(hook.contains(place));
        hook = if cache {
            hook.replace(place, &dir.path().join("cache").display().to_string())
        } else {
            let setup = hook.lines().find(|line| line.contains(place)).expect("a line").to_string();
            hook.replace(&setup, "")
        };
        let nginx = Nginx::new()
            .workers(2)
            .wat("bare")
            .file("lua/preload.lua", hook)
            .file(
                "lua/apisix/core/config_local.lua",
                "return { local_conf = function()
                    return { wasm = { plugins = {
                        { name = 'bare', file = 'bare.wasm' }, { name = 'missing', file = 'missing.wasm' },
                    } } }
                end }",
            )
            .http(
                r#"
                init_by_lua_block {
                    package.path = ngx.config.prefix() .. "lua/?.lua;" .. package.path
                    require("preload")
                    collectgarbage()
                    collectgarbage()
                }
                init_worker_by_lua_block {
                    local wasm = require("resty.proxy-wasm")
                    local plugin = assert(wasm.load("bare", "bare.wasm"))
                    ctx = assert(wasm.on_configure(plugin, "x"))
                    filter = wasm.on_http_response_headers
                }
                "#,
            )
            .server("location /t { return 200; header_filter_by_lua_block { assert(filter(ctx)) } }")
            .start();
        nginx.expect_log(
            "failed to load wasm plugin missing: missing.wasm: No such file or directory",
        );
        assert_eq!(nginx.get("/t").header_all("hello"), ["world!"]);
        // nginx writes the master's `info` lines from a reload on.
        assert!(!nginx.logged("compiled in "));
        nginx.reload();
        assert_eq!(nginx.get("/t").header_all("hello"), ["world!"]);
        nginx.wait_for_old_workers();
        assert!(!nginx.logged("compiled in "));
    }
}
