//! Handles, finalizers and lent memory, with Lua's collector as busy as it can be.

use super::support::{Nginx, Running};
use std::collections::BTreeMap;

/// Requests of a test: enough for each address and string to be used again many times.
const REQUESTS: usize = 1500;

/// Makes the collector run a whole cycle over and over.
const BUSY: &str = r#"collectgarbage("setpause", 1) collectgarbage("setstepmul", 10000)"#;

fn nginx(init: &str, server: &str) -> Running {
    Nginx::new()
        .guest("probe")
        .wat("bare")
        .http("keepalive_requests 1000000;\n")
        .http(&format!(
            r#"init_by_lua_block {{
                {BUSY}
                wasm = require("resty.proxy-wasm")
                {init}
            }}"#
        ))
        .server(server)
        .start()
}

/// Sends requests on one connection and gives each answer to `check`, with its number.
fn send(nginx: &Running, requests: usize, check: impl Fn(usize, &super::support::Response)) {
    let mut connection = nginx.connect();
    for number in 0..requests {
        let request =
            nginx.request("GET", &format!("/t?{number}")).header("X-Number", &number.to_string());
        check(number, &connection.request(&request));
    }
}

/// The callbacks that each root saw, by the id that `ids` logs: `configure`, `create` and `delete` of its streams,
/// `root_done`, `root_delete`.
fn lives(nginx: &Running) -> BTreeMap<u32, Vec<String>> {
    let mut lives: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for line in nginx.guest_log("it") {
        let (callback, ids) = line.split_once(" ids -> ").expect("a line of ids");
        let (_, root) = ids.split_once("root=").expect("a root");
        lives.entry(root.parse().expect("an id")).or_default().push(callback.into());
    }
    lives
}

const LIFE: &str = "configure,create,delete,root_done,root_delete: ids";

/// What a root sees whose one stream lasts as long as its request.
const WHOLE_LIFE: [&str; 5] = ["configure", "create", "delete", "root_done", "root_delete"];

#[test]
fn contexts_made_in_every_request_end_once() {
    let nginx = nginx(
        &format!(r#"plugin = assert(wasm.load("it", "probe.wasm")) conf = "{LIFE}""#),
        r#"
        location /t {
            return 200 "x";
            header_filter_by_lua_block {
                local ctx = assert(wasm.on_configure(plugin, conf))
                collectgarbage()
                assert(wasm.on_http_response_headers(ctx))
            }
            log_by_lua_block { collectgarbage() }
        }
        location /end {
            content_by_lua_block {
                collectgarbage()
                collectgarbage()
                assert(wasm.on_configure(plugin, '# what waits ends first'))
            }
        }
        "#,
    );
    send(&nginx, REQUESTS, |_, response| assert_eq!(response.text(), "x"));
    nginx.get("/end");
    let lives = lives(&nginx);
    assert_eq!(lives.len(), REQUESTS);
    for (root, life) in lives {
        assert_eq!(life, WHOLE_LIFE, "root {root}");
    }
}

#[test]
fn contexts_dropped_while_their_stream_lives() {
    let nginx = nginx(
        &format!(r#"plugin = assert(wasm.load("it", "probe.wasm")) conf = "{LIFE}""#),
        r#"
        location /t {
            access_by_lua_block {
                local ctx = assert(wasm.on_configure(plugin, conf))
                assert(wasm.on_http_request_headers(ctx))
                ctx = nil
                collectgarbage()
                collectgarbage()
                -- What waits is done now: not yet what has a stream.
                local other = assert(wasm.on_configure(plugin, '# another'))
                assert(wasm.on_http_request_headers(other))
            }
            content_by_lua_block { ngx.print("x") }
        }
        location /end { return 200; }
        "#,
    );
    send(&nginx, REQUESTS, |_, response| assert_eq!(response.text(), "x"));
    // The last request is freed before the worker turns to another.
    nginx.get("/end");
    let lives = lives(&nginx);
    assert_eq!(lives.len(), REQUESTS);
    for (root, life) in lives {
        assert_eq!(life, WHOLE_LIFE, "root {root}");
    }
}

#[test]
fn plugins_loaded_and_dropped_in_every_request() {
    let nginx = nginx(
        "",
        r#"
        location /t {
            access_by_lua_block {
                local plugin = assert(wasm.load("it", "bare.wasm"))
                ngx.ctx.filter = assert(wasm.on_configure(plugin, "x"))
                plugin = nil
                collectgarbage()
                assert(wasm.on_http_request_headers(ngx.ctx.filter))
                collectgarbage()
            }
            content_by_lua_block { ngx.print("x") }
            header_filter_by_lua_block {
                local ctx = ngx.ctx.filter
                ngx.ctx.filter = nil
                assert(wasm.on_http_response_headers(ctx))
                ctx = nil
                collectgarbage()
            }
        }
        "#,
    );
    send(&nginx, 200, |_, response| {
        assert_eq!(response.header_all("hello"), ["world!"]);
        assert_eq!(response.text(), "x");
    });
}

#[test]
fn what_is_lent_to_the_guest_lives_long_enough() {
    // The configuration, request headers, response headers and bodies are all strings that nothing else holds.
    let script = "request_headers: get_header_map_value 0 x-number; request_headers: get_property request.query
                  response_headers: get_header_map_value 2 x-made; response_headers: get_header_map_value 2 x-two
                  response_body: get_buffer_bytes 1 0 max; configure: get_buffer_bytes 7 0 8"
        .replace('\n', ";");
    let nginx = nginx(
        &format!(r#"plugin = assert(wasm.load("it", "probe.wasm")) conf = "{script}""#),
        r##"
        location /t {
            access_by_lua_block {
                ngx.ctx.filter = assert(wasm.on_configure(plugin, conf .. ";#" .. ngx.var.args))
                assert(wasm.on_http_request_headers(ngx.ctx.filter))
            }
            content_by_lua_block {
                ngx.header["X-Made"] = "made " .. ngx.var.args
                ngx.header["X-Two"] = { "two " .. ngx.var.args, "more " .. ngx.var.args }
                ngx.print("body ", ngx.var.args)
            }
            header_filter_by_lua_block { assert(wasm.on_http_response_headers(ngx.ctx.filter)) }
            body_filter_by_lua_block { assert(wasm.on_http_response_body(ngx.ctx.filter)) }
        }
        "##,
    );
    let requests = 500;
    send(&nginx, requests, |number, response| {
        assert_eq!(response.text(), format!("body {number}"))
    });
    let lines: Vec<String> =
        nginx.guest_log("it").into_iter().filter(|line| !line.ends_with("-> 0 ''")).collect();
    let expected = |number: usize| {
        [
            "configure get_buffer_bytes 7 0 8 -> 0 request_".to_string(),
            format!("request_headers get_header_map_value 0 x-number -> 0 {number}"),
            format!("request_headers get_property request.query -> 0 {number}"),
            format!("response_headers get_header_map_value 2 x-made -> 0 made {number}"),
            format!("response_headers get_header_map_value 2 x-two -> 0 two {number}"),
            format!("response_body get_buffer_bytes 1 0 max -> 0 body {number}"),
        ]
    };
    let expected: Vec<String> = (0..requests).flat_map(expected).collect();
    for (line, expected) in lines.iter().zip(&expected) {
        assert_eq!(line, expected);
    }
    assert_eq!(lines.len(), expected.len());
}

#[test]
fn errors_under_collection_keep_their_text() {
    let nginx = nginx(
        r#"plugin = assert(wasm.load("it", "probe.wasm"))"#,
        r#"
        location /t {
            content_by_lua_block {
                local _, err = wasm.on_configure(plugin, "configure: trap")
                ngx.print((err:gsub(" %(in .*", "")))
                collectgarbage()
            }
        }
        "#,
    );
    let expected = "failed to run proxy_on_configure: proxy_on_configure failed: wasm trap: wasm `unreachable` \
                    instruction executed";
    send(&nginx, 300, |_, response| assert_eq!(response.text(), expected));
}

#[test]
fn memory_of_the_worker_stays_flat() {
    let nginx = nginx(
        r#"
        plugin = assert(wasm.load("it", "bare.wasm"))
        ctx = assert(wasm.on_configure(plugin))
        collectgarbage("setpause", 200) collectgarbage("setstepmul", 200)
        "#,
        r#"
        location /t {
            return 200;
            header_filter_by_lua_block {
                assert(wasm.on_http_response_headers(ctx))
                assert(wasm.on_http_response_headers(assert(wasm.on_configure(plugin, "x"))))
            }
        }
        "#,
    );
    let check = |_: usize, response: &super::support::Response| {
        assert_eq!(response.header_all("hello"), ["world!", "world!"]);
    };
    send(&nginx, 3000, check);
    let worker = nginx.worker_pids()[0];
    let before = nginx.rss_kib(worker);
    send(&nginx, 9000, check);
    let grown = nginx.rss_kib(worker).saturating_sub(before);
    // A leak of one stream or one plugin context a request would be megabytes.
    assert!(grown < 1024, "{grown} KiB more than {before}");
}
