//! The demo, the documented calls when something is wrong, and one request through all callbacks. Also what
//! `./build.sh valgrind` runs.

use super::support::{Nginx, Probe, lua_paths, preamble, root};
use std::fs;

/// `conf/nginx.conf` as it is, but for port and paths.
fn demo() -> String {
    let root = root().display().to_string();
    let [(_, lua_path), (_, lua_cpath)] = lua_paths();
    let mut conf = fs::read_to_string("conf/nginx.conf").expect("the demo");
    for (from, to) in [
        ("include ../target/demo/*.conf;", preamble().as_str()),
        ("pid target/demo/nginx.pid", "pid logs/nginx.pid"),
        ("error_log stderr warn", "error_log logs/error.log info"),
        (" target/demo/", " tmp/"),
        ("$prefix/lib/?.lua;;", lua_path.as_str()),
        ("$prefix/target/release/?.so;;", lua_cpath.as_str()),
        ("ngx.config.prefix() .. \"", &format!("\"{root}/")),
        ("127.0.0.1:8080", "127.0.0.1:PORT"),
    ] {
        assert!(conf.contains(from), "the demo has no {from:?} any more");
        conf = conf.replace(from, to);
    }
    conf
}

#[test]
fn demo_adds_its_header() {
    let nginx = Nginx::new().whole(&demo()).start();
    for path in ["/t", "/d"] {
        let response = nginx.get(path);
        assert_eq!(response.status, 200, "{path}");
        assert_eq!(response.header_all("hello"), ["add_header"], "{path}");
    }
}

#[test]
fn load_failures_are_told() {
    let nginx = Nginx::new()
        .file("text.wasm", "no module")
        .server(
            r#"
            location /t {
                content_by_lua_block {
                    local wasm = require("resty.proxy-wasm")
                    for _, path in ipairs({ "missing.wasm", "text.wasm" }) do
                        local plugin, err = wasm.load("x", path)
                        ngx.say(tostring(plugin), " ", err)
                    end
                }
            }
            "#,
        )
        .start();
    let text = nginx.get("/t").text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "nil missing.wasm: No such file or directory");
    assert!(lines[1].starts_with("nil failed to load wasm plugin: "), "{text}");
}

#[test]
fn wrong_arguments_are_told() {
    let nginx = Nginx::new()
        .wat("bare")
        .http(
            r#"
            init_by_lua_block {
                wasm = require("resty.proxy-wasm")
                plugin = assert(wasm.load("bare", "bare.wasm"))
            }
            "#,
        )
        .server(
            r#"
            location /t {
                content_by_lua_block {
                    local function tell(what, result, err)
                        ngx.say(what, ": ", tostring(result), " ", tostring(err))
                    end

                    tell("no plugin", wasm.on_configure(nil, "x"))
                    tell("a table as plugin", wasm.on_configure({}, "x"))
                    tell("foreign cdata as plugin", wasm.on_configure(require("ffi").new("int[1]"), "x"))
                    tell("a table as conf", wasm.on_configure(plugin, {}))
                    tell("an empty conf", wasm.on_configure(plugin, ""))
                    for _, name in ipairs({ "request_headers", "request_body", "response_headers", "response_body" }) do
                        local call = wasm["on_http_" .. name]
                        tell(name .. " without ctx", call(nil))
                        tell(name .. " with a plugin as ctx", call(plugin))
                    end
                }
            }
            "#,
        )
        .start();
    let expected = "\
        no plugin: nil bad plugin\n\
        a table as plugin: nil bad plugin\n\
        foreign cdata as plugin: nil bad plugin\n\
        a table as conf: nil bad conf\n\
        an empty conf: nil bad conf\n\
        request_headers without ctx: nil bad plugin ctx\n\
        request_headers with a plugin as ctx: nil bad plugin ctx\n\
        request_body without ctx: nil bad plugin ctx\n\
        request_body with a plugin as ctx: nil bad plugin ctx\n\
        response_headers without ctx: nil bad plugin ctx\n\
        response_headers with a plugin as ctx: nil bad plugin ctx\n\
        response_body without ctx: nil bad plugin ctx\n\
        response_body with a plugin as ctx: nil bad plugin ctx\n";
    assert_eq!(nginx.get("/t").text(), expected);
    // The text of the error is what callers compare; how to do without a configuration is in the log.
    assert!(nginx.logged("for no configuration leave it out or give nil"));
}

#[test]
fn a_timer_has_no_request() {
    let nginx = Nginx::new()
        .wat("bare")
        .http(
            r#"
            init_by_lua_block {
                wasm = require("resty.proxy-wasm")
                plugin = assert(wasm.load("bare", "bare.wasm"))
            }
            init_worker_by_lua_block {
                ngx.timer.at(0, function()
                    local ctx = assert(wasm.on_configure(plugin, "x"))
                    for _, name in ipairs({ "request_headers", "request_body", "response_headers", "response_body" }) do
                        local result, err = wasm["on_http_" .. name](ctx)
                        ngx.log(ngx.NOTICE, "in a timer, ", name, ": ", tostring(result), " ", err)
                    end
                    ngx.log(ngx.NOTICE, "the timer ends")
                end)
            }
            "#,
        )
        .start();
    nginx.wait_for_log("the timer ends");
    let expected = [
        "request_headers: nil bad request",
        "request_body: nil bad request",
        "response_headers: nil bad request",
        "response_body: nil bad request",
    ];
    assert_eq!(nginx.log_texts("in a timer, "), expected);
}

#[test]
fn a_request_through_all_callbacks() {
    let run = Probe::new(
        "request_headers: get_header_map_value 0 :path
         request_headers: add_header_map_value 0 x-from-guest yes
         request_body: get_buffer_bytes 0 0 max
         response_headers: replace_header_map_value 2 x-answer 42
         response_headers: remove_header_map_value 2 content-length
         response_body@eos: set_buffer_bytes 1 0 0 seen:
         done: log 2 over",
    )
    .request("POST", |request| request.body("hello"));

    assert_eq!(run.response.status, 200);
    assert_eq!(run.response.header("x-answer"), Some("42"));
    let text = run.response.text();
    assert!(text.contains("x-from-guest: yes\r\n"), "{text}");
    assert!(text.starts_with("seen:") || text.ends_with("seen:"), "{text}");
    assert_eq!(run.of("request_headers")[0], "get_header_map_value 0 :path -> 0 /");
    assert_eq!(run.of("request_body"), ["get_buffer_bytes 0 0 max -> 0 hello"]);
    assert_eq!(run.of("done"), ["log 2 over -> 0"]);
    assert_eq!(run.failures(), [""; 0]);
}
