//! Where the calls work: each phase of nginx, each way to load and configure.

use super::support::{Nginx, Running, valgrind};

/// `try(phase)` makes a plugin context and calls everything; `NOTICE` lines tell what the calls answered. The guest logs
/// a line in each callback that runs.
const TRY: &str = r#"
wasm = require("resty.proxy-wasm")
plugin = assert(wasm.load("it", "probe.wasm"))
SCRIPT = "request_headers,request_body,response_headers,response_body: return 0"

local function answer(phase, call, result, err)
    local text = type(result) == "cdata" and "cdata" or tostring(result)
    ngx.log(ngx.NOTICE, "in ", phase, ": ", call, " ", text, err and " " or "", err or "")
    return result
end

function try(phase)
    local ctx = answer(phase, "configure", wasm.on_configure(plugin, SCRIPT))
    answer(phase, "request_headers", wasm.on_http_request_headers(ctx))
    answer(phase, "request_body", wasm.on_http_request_body(ctx, "x", true))
    answer(phase, "response_headers", wasm.on_http_response_headers(ctx))
    answer(phase, "response_body", wasm.on_http_response_body(ctx))
end
"#;

/// The answers when there is a request: the response's body is passed in body_filter only.
fn with_request(phase: &str) -> [String; 5] {
    let body = if phase == "body_filter" {
        "response_body true".into()
    } else {
        format!(
            "response_body nil failed to run proxy_on_http_response_body: there is no ngx.arg in phase {phase}"
        )
    };
    [
        "configure cdata".into(),
        "request_headers true".into(),
        "request_body true".into(),
        "response_headers true".into(),
        body,
    ]
}

fn without_request() -> [String; 5] {
    [
        "configure cdata".into(),
        "request_headers nil bad request".into(),
        "request_body nil bad request".into(),
        "response_headers nil bad request".into(),
        "response_body nil bad request".into(),
    ]
}

/// What the calls answered in a phase, as it was tried first.
fn answers(nginx: &Running, phase: &str) -> Vec<String> {
    nginx.wait_for_log(&format!("in {phase}: response_body"));
    let mut answers = nginx.log_texts(&format!("in {phase}: "));
    answers.truncate(5);
    answers
}

#[test]
fn every_phase_of_a_request() {
    let nginx = Nginx::new()
        .guest("probe")
        .http(&format!("init_by_lua_block {{ {TRY} }}"))
        .http(
            r#"
            upstream balanced {
                server 127.0.0.1:1;
                balancer_by_lua_block {
                    try("balancer")
                    assert(require("ngx.balancer").set_current_peer("unix:answer.sock"))
                }
            }
            server {
                listen unix:answer.sock;
                location / { return 200 "answer"; }
            }
            "#,
        )
        .server(
            r#"
            location /set {
                set_by_lua_block $value { try("set") return "" }
                return 200 "answer";
            }
            location /rewrite {
                rewrite_by_lua_block { try("rewrite") }
                content_by_lua_block { ngx.print("answer") }
            }
            location /access {
                access_by_lua_block { try("access") }
                content_by_lua_block { ngx.print("answer") }
            }
            location /content {
                content_by_lua_block { try("content") ngx.print("answer") }
            }
            location /header_filter {
                header_filter_by_lua_block { try("header_filter") }
                return 200 "answer";
            }
            location /body_filter {
                body_filter_by_lua_block { try("body_filter") }
                return 200 "answer";
            }
            location /log {
                log_by_lua_block { try("log") }
                return 200 "answer";
            }
            location /balancer {
                proxy_pass http://balanced;
            }
            "#,
        )
        .start();
    let phases =
        ["set", "rewrite", "access", "content", "header_filter", "body_filter", "log", "balancer"];
    let mut seen = 0;
    for phase in phases {
        let response = nginx.get(&format!("/{phase}"));
        assert_eq!((response.status, response.text().as_str()), (200, "answer"), "{phase}");
        assert_eq!(answers(&nginx, phase), with_request(phase), "{phase}");

        // The guest really ran, each callback once.
        let lines = nginx.guest_log("it");
        let mut expected = vec![
            "request_headers return 0 -> 0",
            "request_body return 0 -> 0",
            "response_headers return 0 -> 0",
        ];
        if phase == "body_filter" {
            expected.push("response_body return 0 -> 0");
        }
        assert_eq!(lines[seen..][..expected.len()], expected, "{phase}");
        seen = lines.len();
    }
}

#[test]
fn phases_without_a_request() {
    let nginx = Nginx::new()
        .guest("probe")
        .http(&format!("init_by_lua_block {{ {TRY} try(\"init\") }}"))
        .http(
            r#"
            init_worker_by_lua_block {
                try("init_worker")
                ngx.timer.at(0, function() try("timer") end)
            }
            exit_worker_by_lua_block { try("exit_worker") }
            "#,
        )
        .server("location /t { return 200; }")
        .start();
    for phase in ["init_worker", "timer"] {
        assert_eq!(answers(&nginx, phase), without_request(), "{phase}");
    }
    assert_eq!(nginx.get("/t").status, 200);
    assert_eq!(nginx.guest_log("it"), [""; 0]);

    if valgrind() {
        return;
    }
    // The master writes to its error log from the second configuration on.
    nginx.reload();
    for phase in ["init", "exit_worker"] {
        assert_eq!(answers(&nginx, phase), without_request(), "{phase}");
    }
}

#[test]
fn phases_of_tls() {
    let nginx = Nginx::new()
        .guest("probe")
        .file("conf/tls.pem", include_str!("support/tls.pem"))
        .http(&format!("init_by_lua_block {{ {TRY} }}"))
        .http(
            r#"
            ssl_session_fetch_by_lua_block { try("ssl_session_fetch") }
            ssl_session_store_by_lua_block { try("ssl_session_store") }
            server {
                listen unix:tls.sock ssl;
                ssl_certificate tls.pem;
                ssl_certificate_key tls.pem;
                ssl_client_hello_by_lua_block { try("ssl_client_hello") }
                ssl_certificate_by_lua_block { try("ssl_certificate") }
                ssl_session_tickets off;
                ssl_protocols TLSv1.2;
                location / { return 200 "answer"; }
            }
            "#,
        )
        .server("location /t { proxy_pass https://unix:tls.sock; }")
        .start();
    for _ in 0..2 {
        assert_eq!(nginx.get("/t").text(), "answer");
    }
    for phase in ["ssl_client_hello", "ssl_certificate", "ssl_session_store", "ssl_session_fetch"] {
        assert_eq!(answers(&nginx, phase), without_request(), "{phase}");
    }
}

/// `bare` and a location `/t` that runs a request through `filter()`, which answers a plugin context.
fn form(http: &str) -> Running {
    Nginx::new()
        .wat("bare")
        .workers(2)
        .http(http)
        .server(
            r#"
            location /t {
                access_by_lua_block {
                    ngx.ctx.filter = assert(filter())
                    assert(wasm.on_http_request_headers(ngx.ctx.filter))
                }
                content_by_lua_block { ngx.print("answer") }
                header_filter_by_lua_block { assert(wasm.on_http_response_headers(ngx.ctx.filter)) }
            }
            "#,
        )
        .start()
}

#[test]
fn forms_of_loading_and_configuring() {
    let forms = [
        // Both in the master.
        r#"init_by_lua_block {
            wasm = require("resty.proxy-wasm")
            local plugin = assert(wasm.load("bare", "bare.wasm"))
            local ctx = assert(wasm.on_configure(plugin, "x"))
            function filter() return ctx end
        }"#,
        // Loaded in the master, configured in every request: the documented form.
        r#"init_by_lua_block {
            wasm = require("resty.proxy-wasm")
            plugin = assert(wasm.load("bare", "bare.wasm"))
            function filter() return wasm.on_configure(plugin, "x") end
        }"#,
        // Both in the worker.
        r#"init_worker_by_lua_block {
            wasm = require("resty.proxy-wasm")
            local plugin = assert(wasm.load("bare", "bare.wasm"))
            local ctx = assert(wasm.on_configure(plugin, "x"))
            function filter() return ctx end
        }"#,
        // Loaded in the master, configured in the worker.
        r#"init_by_lua_block {
            wasm = require("resty.proxy-wasm")
            plugin = assert(wasm.load("bare", "bare.wasm"))
        }
        init_worker_by_lua_block {
            local ctx = assert(wasm.on_configure(plugin))
            function filter() return ctx end
        }"#,
        // With the first request.
        r#"init_by_lua_block {
            wasm = require("resty.proxy-wasm")
            local ctx
            function filter()
                ctx = ctx or wasm.on_configure(assert(wasm.load("bare", "bare.wasm")))
                return ctx
            end
        }"#,
        // All of it in every request.
        r#"init_by_lua_block {
            wasm = require("resty.proxy-wasm")
            function filter()
                return wasm.on_configure(assert(wasm.load("bare", "bare.wasm")))
            end
        }"#,
    ];
    for http in forms {
        let nginx = form(http);
        for _ in 0..6 {
            let response = nginx.get("/t");
            assert_eq!(response.header_all("hello"), ["world!"], "{http}");
            assert_eq!(response.text(), "answer", "{http}");
        }
    }
}

#[test]
fn a_configuration_that_is_refused_in_the_master() {
    let log = Nginx::new()
        .wat("configure_false")
        .http(
            r#"init_by_lua_block {
                wasm = require("resty.proxy-wasm")
                assert(wasm.on_configure(assert(wasm.load("strict", "configure_false.wasm")), "x"))
            }"#,
        )
        .start_fails();
    let cause = "failed to run proxy_on_configure: proxy_on_configure returned false: the filter refused its configuration";
    assert!(log.contains(cause), "{log}");
}
