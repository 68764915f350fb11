//! Filters of each language and SDK do their job through the documented calls.

use super::support::{Nginx, Running, root};
use std::fs;

/// A request to `/` runs through all callbacks and on to a server that puts the body that it got into the header
/// `x-got`, the header `x-rust-filter` into `x-seen`, and answers `hello from upstream`, in two chunks. `/d` is the form
/// that configures in every request.
fn filter(wasm: &[u8], options: &str, configuration: &str) -> Running {
    Nginx::new()
        .file("filter.wasm", wasm)
        .http(&format!(
            r#"
            init_by_lua_block {{
                wasm = require("resty.proxy-wasm")
                conf = {configuration}
                plugin = assert(wasm.load("filter", "filter.wasm", {options}))
                ctx = assert(wasm.on_configure(plugin, conf))
            }}
            server {{
                listen unix:upstream.sock;
                location / {{
                    content_by_lua_block {{
                        ngx.req.read_body()
                        ngx.header["X-Got"] = ngx.req.get_body_data()
                        ngx.header["X-Seen"] = ngx.req.get_headers()["x-rust-filter"]
                        ngx.header["Content-Length"] = 19
                        ngx.print("hello ")
                        ngx.flush(true)
                        ngx.print("from upstream")
                    }}
                }}
            }}
            "#
        ))
        .server(
            r#"
            # A request ends before its connection, also after a body: so its log is complete when the client is done.
            lingering_close off;
            location / {
                rewrite_by_lua_block { assert(wasm.on_http_request_headers(ctx)) }
                access_by_lua_block {
                    ngx.req.read_body()
                    local body = ngx.req.get_body_data()
                    if body then
                        assert(wasm.on_http_request_body(ctx, body, true))
                    end
                }
                header_filter_by_lua_block { assert(wasm.on_http_response_headers(ctx)) }
                body_filter_by_lua_block { assert(wasm.on_http_response_body(ctx)) }
                proxy_pass http://unix:upstream.sock;
            }
            location /d {
                return 200;
                header_filter_by_lua_block {
                    assert(wasm.on_http_response_headers(assert(wasm.on_configure(plugin, conf))))
                }
            }
            "#,
        )
        .start()
}

fn built(name: &str) -> Vec<u8> {
    fs::read(root().join("t/guests/build").join(format!("{name}.wasm"))).expect("a guest")
}

fn example() -> Vec<u8> {
    fs::read(root().join("examples/add-header/build/release.wasm")).expect("the example")
}

#[test]
fn filters_that_add_a_header() {
    let root_id = |id: &str| format!("{{ root_id = '{id}' }}");
    let cases = [
        ("add-header", example(), root_id("add_header"), "nil", "world!"),
        ("add-header", example(), root_id("add_header"), "'add_header'", "add_header"),
        ("add-header", example(), root_id("add_header"), "('x'):rep(4000)", &"x".repeat(4000)),
        ("as_sdk_stock", built("as_sdk_stock"), root_id("stock"), "'configured'", "configured"),
        ("as_sdk_0_1", built("as_sdk_0_1"), root_id("add_header"), "nil", "world!"),
        ("as_sdk_0_1", built("as_sdk_0_1"), root_id("add_header"), "'configured'", "configured"),
        ("as_no_sdk", built("as_no_sdk"), "nil".into(), "'configured'", "configured"),
        ("rust_filter_0_1", built("rust_filter_0_1"), "nil".into(), "nil", "world!"),
        ("rust_filter_0_1", built("rust_filter_0_1"), "nil".into(), "'configured'", "configured"),
        ("go", built("go"), "nil".into(), "nil", "world!"),
        ("go", built("go"), "nil".into(), "'configured'", "configured"),
        ("zig", built("zig"), "nil".into(), "nil", "world!"),
        ("zig", built("zig"), "nil".into(), "'configured'", "configured"),
        ("rust_filter", built("rust_filter"), "nil".into(), "'hello: configured'", "configured"),
    ];
    for (name, wasm, options, configuration, hello) in cases {
        let nginx = filter(&wasm, &options, configuration);
        for _ in 0..3 {
            let response = nginx.request("POST", "/").body("request").send();
            assert_eq!(response.status, 200, "{name}");
            assert_eq!(response.header_all("hello"), [hello], "{name}");
            assert_eq!(response.header_all("x-got"), ["request"], "{name}");
            assert_eq!(response.text(), "hello from upstream", "{name}");
            assert_eq!(nginx.get("/d").header_all("hello"), [hello], "{name}");
        }
        if name == "as_sdk_0_1" {
            nginx.expect_log("wasm log filter: returning context for add_header");
        }
    }
}

#[test]
fn rust_with_and_without_wasi() {
    for name in ["rust_filter", "rust_filter_no_wasi"] {
        let nginx = filter(&built(name), "nil", r#""hello: world\nhello: again""#);

        let response = nginx.request("POST", "/some/path?query=1").body("quiet").send();
        assert_eq!(response.header_all("hello"), ["world", "again"], "{name}");
        assert_eq!(response.header_all("x-rust-path"), ["/some/path?query=1"], "{name}");
        assert_eq!(response.header_all("x-seen"), ["2"], "{name}");
        assert_eq!(response.header_all("x-got"), ["quiet"], "{name}");
        assert_eq!(response.text(), "hello from upstream", "{name}");

        let response = nginx.request("POST", "/").header("X-Upper", "1").body("quiet").send();
        assert_eq!(response.header_all("x-got"), ["QUIET"], "{name}");
        assert_eq!(response.text(), "HELLO FROM UPSTREAM", "{name}");

        let response = nginx.request("GET", "/").header("X-Deny", "because").send();
        assert_eq!(response.status, 403, "{name}");
        assert_eq!(response.header_all("x-denied-by"), ["rust_filter"], "{name}");
        assert_eq!(response.header_all("content-type"), ["text/plain"], "{name}");
        assert_eq!(response.header_all("x-got"), [""; 0], "{name}");
        assert_eq!(response.text(), "denied: because\n", "{name}");

        let (configured, lines): (Vec<_>, Vec<_>) =
            nginx.guest_log("filter").into_iter().partition(|line| line.starts_with("configure"));
        // One that nginx's master made before it opened its log is not seen.
        assert!(configured.iter().all(|line| line == "configure size=25"), "{configured:?}");
        assert_eq!(
            lines,
            [
                // :method, :scheme, :authority, :path and what the client of the tests sends.
                "request headers given=6 read=6 end=false",
                "done",
                "log POST 200",
                "request headers given=7 read=7 end=false",
                "done",
                "log POST 200",
                "request headers given=6 read=6 end=true",
                "done",
                "log GET 403",
            ],
            "{name}"
        );
    }
}

#[test]
fn rust_refuses_a_configuration() {
    for (name, configuration) in [
        ("rust_filter", "no colon"),
        ("rust_filter_no_wasi", "no colon"),
        ("rust_filter_0_1", "fail"),
    ] {
        let log = Nginx::new()
            .guest(name)
            .http(&format!(
                r#"init_by_lua_block {{
                    local wasm = require("resty.proxy-wasm")
                    assert(wasm.on_configure(assert(wasm.load("filter", "{name}.wasm")), "{configuration}"))
                }}"#
            ))
            .start_fails();
        let cause = "failed to run proxy_on_configure: proxy_on_configure returned false: the filter refused its \
                     configuration";
        assert!(log.contains(cause), "{name}: {log}");
    }
}

#[test]
fn rust_of_abi_0_1() {
    let nginx = filter(&built("rust_filter_0_1"), "nil", "nil");
    let response = nginx.request("GET", "/").header("x-deny", "yes").send();
    assert_eq!((response.status, response.text().as_str()), (403, "denied\n"));
    assert_eq!(response.header_all("x-denied-by"), ["rust_filter_0_1"]);
    assert_eq!(nginx.get("/").header_all("hello"), ["world!"]);
    assert_eq!(nginx.guest_log("filter"), ["request headers given=6", "request headers given=5"]);
}

#[test]
fn assemblyscript_without_an_sdk() {
    let nginx = filter(&built("as_no_sdk"), "nil", "nil");
    for (path, length) in [("/", "1"), ("/five", "5"), ("/?q=%20", "7")] {
        let response = nginx.get(path);
        assert_eq!(response.header_all("x-path-length"), [length]);
        assert_eq!(response.header_all("hello"), [""; 0]);
    }
}

#[test]
fn go_keeps_its_state_between_requests() {
    let nginx = filter(&built("go"), "nil", "nil");
    for _ in 0..3 {
        assert_eq!(nginx.get("/").header_all("hello"), ["world!"]);
    }
    assert_eq!(nginx.guest_log("filter"), ["go response 1", "go response 2", "go response 3"]);
}

#[test]
fn assemblyscript_looks_its_root_up() {
    // The SDK aborts for a root id that was not registered; the name of the plugin is the root id when none is given.
    let nginx = Nginx::new()
        .file("filter.wasm", example())
        .server(
            r#"
            location /t {
                content_by_lua_block {
                    local wasm = require("resty.proxy-wasm")
                    for _, name in ipairs({ "add_header", "other" }) do
                        local ctx, err = wasm.on_configure(assert(wasm.load(name, "filter.wasm")), "x")
                        ngx.say(ctx and "configured" or err)
                    end
                }
            }
            "#,
        )
        .start();
    assert_eq!(
        nginx.get("/t").text(),
        "configured\n\
         failed to run proxy_on_configure: proxy_on_context_create failed: the filter ended itself with exit code 255 \
         (proc_exit)\n"
    );
    nginx.expect_log("wasm log other: Missing root context factory for root id: other");
}
