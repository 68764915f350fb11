//! Bodies that filters hold: how much of them, from where they are changed, and what becomes of them when the filter does
//! not let them go.

use super::chain::{NONE, chain, order};
use super::support::{Curl, Nginx, Probe, Running, Upstream, poll};

const BODY_TO_FILE: &str = "a client request body is buffered to a temporary file";

/// Filter `a` around an upstream that echoes requests and answers `/length` with `hello`, with HTTP/2.
fn held(options: &str, script: &str) -> Running {
    let load = format!(
        "local wasm = require('resty.proxy-wasm')
         local plugin = assert(wasm.load('a', 'probe.wasm', {{ calls = {{ allow = {{ '*', 'unix:*' }} }}, {options} }}))
         local text = ([==[{script}]==]):gsub('@PREFIX@', ngx.config.prefix())
         ctx = assert(wasm.on_configure(plugin, text .. '\\n'))
         chain = wasm.new_chain({{ ctx }})
         function call(name, ...)
             local ok, err = wasm['on_http_' .. name](ctx, ...)
             if not ok then ngx.log(ngx.NOTICE, 'lua call failed: ', err) end
         end"
    );
    let content = r#"content_by_lua_block {
        if ngx.var.arg_length then ngx.header["Content-Length"] = 6 end
        for _, piece in ipairs({ "se", "cr", "et" }) do
            ngx.print(piece)
            ngx.flush(true)
        end
    }"#;
    Nginx::new()
        .guest("probe")
        .echo()
        .http2()
        .http(&format!("init_by_lua_block {{ {load} }} server {{ listen unix:up.sock; location / {{ {content} }} }}"))
        .server(&format!(
            r#"
            client_max_body_size 0;
            client_body_buffer_size 16k;
            location / {{
                access_by_lua_block {{ chain:access() }}
                header_filter_by_lua_block {{ chain:header_filter() }}
                body_filter_by_lua_block {{ chain:body_filter() }}
                proxy_pass http://unix:echo.sock;
            }}
            location /up {{
                header_filter_by_lua_block {{ chain:header_filter() }}
                body_filter_by_lua_block {{ chain:body_filter() }}
                proxy_pass http://unix:up.sock;
            }}
            location /lua {{
                header_filter_by_lua_block {{ chain:header_filter() }}
                body_filter_by_lua_block {{ chain:body_filter() }}
                {content}
            }}
            location /plain {{
                header_filter_by_lua_block {{ call("response_headers") }}
                body_filter_by_lua_block {{ call("response_body") }}
                proxy_pass http://unix:up.sock;
            }}
            location /plain_request {{
                access_by_lua_block {{
                    ngx.req.read_body()
                    local body = ngx.req.get_body_data()
                    local half = math.floor(#body / 2)
                    call("request_body", body:sub(1, half), false)
                    call("request_body", body:sub(half + 1), true)
                }}
                proxy_pass http://unix:echo.sock;
            }}
            "#
        ))
        .start()
}

const RESPONSES: [&str; 6] =
    ["/up", "/up?length=1", "/lua", "/lua?length=1", "/plain", "/plain?length=1"];

/// Nothing of the body comes, and the client sees that it is incomplete.
fn expect_cut(nginx: &Running, reason: &str) {
    nginx.expect_log(reason);
    for path in RESPONSES {
        let bytes = nginx.raw(format!("GET {path} HTTP/1.1\r\nHost: t\r\n\r\n"));
        let text = String::from_utf8_lossy(&bytes);
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        assert_eq!(body, "", "{path}");
        let old = nginx.raw(format!("GET {path} HTTP/1.0\r\n\r\n"));
        assert!(!old.ends_with(b"et"), "{path}: {}", old.escape_ascii());
        assert_eq!(Curl::http2(nginx).get_cut(path), b"", "{path}");
    }
}

const INSPECT: &str = "request_body@more: pause
    request_body@eos: get_buffer_status 0
    response_body@more: pause
    response_body@eos: get_buffer_status 1";

#[test]
fn a_request_that_is_held_and_too_large_is_refused() {
    let nginx = held("body_limit = 1500000, body = true", INSPECT);
    nginx.expect_log(BODY_TO_FILE);
    nginx.expect_log(
        "wasm plugin \"a\": failed to run proxy_on_http_request_body: the filter holds the request body, and it is \
         larger than body_limit (1500000 bytes)",
    );
    let large = "x".repeat(3_000_000);
    let response = nginx.request("POST", "/").body(&large).send();
    assert_eq!(response.status, 413);
    assert!(!response.text().contains("xxx"));
    std::fs::write(nginx.path("input"), &large).expect("a file");
    assert_eq!(Curl::http2(&nginx).upload("input").get("/").status, 413);
    let grpc = nginx.request("POST", "/").header("Content-Type", "application/grpc").body(&large);
    let grpc = grpc.send();
    assert_eq!((grpc.status, grpc.header("grpc-status")), (200, Some("8")));
    assert!(!order(&nginx).iter().any(|line| line.contains("get_buffer_status 0")));
    // What fits is held.
    let small = "x".repeat(1_400_000);
    let response = nginx.request("POST", "/").body(&small).send();
    assert!(response.text().ends_with(&format!("\r\n\r\n{small}")));
    assert_eq!(
        order(&nginx).iter().find(|line| line.contains("get_buffer_status 0")).map(String::as_str),
        Some("a request_body get_buffer_status 0 -> 0 1400000 0")
    );
}

#[test]
fn only_a_filter_that_fails_open_lets_it_pass() {
    let nginx = held("body_limit = 1500000, fail = 'open'", INSPECT);
    nginx.expect_log(BODY_TO_FILE);
    nginx.expect_log("larger than body_limit (1500000 bytes)");
    let large = "x".repeat(3_000_000);
    let response = nginx.request("POST", "/").body(&large).send();
    assert_eq!(response.status, 200);
    assert!(response.text().ends_with(&format!("\r\n\r\n{large}")));
    assert!(!order(&nginx).iter().any(|line| line.contains("get_buffer_status 0")));
}

#[test]
fn a_filter_that_holds_nothing_has_no_limit() {
    let nginx = held("body_limit = 10", "request_body,response_body: ids");
    nginx.expect_log(BODY_TO_FILE);
    let large = "x".repeat(3_000_000);
    let response = nginx.request("POST", "/").body(&large).send();
    assert!(response.text().ends_with(&format!("\r\n\r\n{large}")));
}

#[test]
fn a_response_that_is_held_and_too_large_is_cut() {
    let nginx = held("body_limit = 3", INSPECT);
    nginx.expect_log(
        "the filter holds the response body, and it is larger than body_limit (3 bytes)",
    );
    expect_cut(&nginx, "the response is cut off: ");
    assert!(!order(&nginx).iter().any(|line| line.contains("get_buffer_status")));
}

#[test]
fn a_response_that_is_too_large_passes_a_filter_that_fails_open() {
    let nginx = held("body_limit = 3, fail = 'open'", INSPECT);
    nginx.expect_log(
        "wasm plugin \"a\": failed to run proxy_on_http_response_body: the filter holds",
    );
    for path in RESPONSES {
        assert_eq!(nginx.get(path).text(), "secret", "{path}");
        assert_eq!(Curl::http2(&nginx).get(path).text(), "secret", "{path}");
    }
    assert!(!order(&nginx).iter().any(|line| line.contains("get_buffer_status")));
}

#[test]
fn documented_calls_say_why() {
    let failed = "failed to run proxy_on_http_request_body: the filter holds the request body, and it is larger than \
                  body_limit (4 bytes)";
    for (options, lines) in [("body_limit = 4", 2), ("body_limit = 4, fail = 'open'", 1)] {
        let nginx = held(options, INSPECT);
        // What becomes of the request is the caller's business.
        nginx.request("POST", "/plain_request").body("0123456789").send();
        assert_eq!(nginx.log_texts("lua call failed: "), vec![failed; lines]);
        assert_eq!(order(&nginx), ["a request_body pause -> 1"]);
    }
}

#[test]
fn the_limit_is_an_option_and_a_setting() {
    let setup = |setting: &str, options: &str| {
        Probe::new(INSPECT)
            .init(&format!("assert(wasm.setup({{ {setting} }}))"))
            .options(options)
            .nginx(|nginx| {
                nginx.server(
                    r#"location /pieces {
                        content_by_lua_block {
                            probe.call("on_http_request_body", probe.ctx, "hello", false)
                        }
                    }"#,
                )
            })
            .start()
    };
    for (setting, options, limit) in [
        ("body_limit = 4", "", "4"),
        ("body_limit = '1k'", "body_limit = 3", "3"),
        ("body_limit = '128m'", "body_limit = 4", "4"),
        ("", "body_limit = 1", "1"),
        ("body_limit = 1", "body_limit = 134217728", ""),
        ("body_limit = '1k'", "", ""),
        ("", "", ""),
    ] {
        let nginx = setup(setting, options);
        nginx.get("/pieces");
        let failures = nginx.log_texts("lua call failed: ");
        match limit {
            "" => assert_eq!(failures, [""; 0], "{setting} {options}"),
            _ => assert!(
                failures[0].ends_with(&format!("body_limit ({limit} bytes)")),
                "{failures:?}"
            ),
        }
    }
    for value in ["0", "-1", "1.5", "'x'", "'129m'", "134217729", "true", "{}"] {
        let log = Nginx::new()
            .http(&format!(
                "init_by_lua_block {{ require('resty.proxy-wasm').setup({{ body_limit = {value} }}) }}"
            ))
            .start_fails();
        let wanted = "bad argument #1 to 'setup' (body_limit must be a size from 1 to \"128m\")";
        assert!(log.contains(wanted), "{value}: {log}");
    }
}

const DENY: &str = "send_local_response 403 leak no '' -1";

#[test]
fn a_local_response_from_the_body_cuts_the_response() {
    let answered = "the filter answered with 403 when the headers of the response were sent";
    let nginx = held(
        "",
        &format!(
            "response_body@more: pause; response_body@eos: {DENY}; log: get_property response.code_details"
        ),
    );
    expect_cut(&nginx, &format!("the response is cut off: wasm plugin \"a\": {answered}"));
    let lines = order(&nginx);
    assert!(lines.contains(&format!("a response_body {DENY} -> 0")), "{lines:?}");
    assert!(lines.contains(&"a log get_property response.code_details -> 0 leak".into()));
}

#[test]
fn what_went_out_before_a_local_response_stays_all_of_it() {
    let nginx = held("", &format!("response_body@eos: {DENY}"));
    nginx.expect_log("the response is cut off: ");
    let bytes = nginx.raw("GET /lua HTTP/1.1\r\nHost: t\r\n\r\n");
    assert!(bytes.ends_with(b"2\r\nse\r\n2\r\ncr\r\n2\r\net\r\n"), "{}", bytes.escape_ascii());
    Curl::http2(&nginx).get_cut("/lua");
}

#[test]
fn the_end_of_a_response_is_not_sent_before_its_verdict() {
    let judge = Upstream::sink();
    let call = format!("http_call {} :path=/ '' '' 5000", judge.url());
    let script = format!(
        "response_body@more: pause; response_body@eos: {call}; response_body@eos: pause
         http_call_response: set_effective_context caller
         http_call_response: continue_stream 1"
    );
    let nginx = held("", &script);
    expect_cut(
        &nginx,
        "the filter pauses the end of the response body to wait for a call, which is not possible",
    );
    let nginx = held("fail = 'open'", &script);
    nginx.expect_log(
        "the filter pauses the end of the response body to wait for a call, which is not possible",
    );
    for path in ["/up", "/lua?length=1", "/plain"] {
        assert_eq!(nginx.get(path).text(), "secret", "{path}");
    }
}

#[test]
fn a_call_that_the_filter_does_not_wait_for_delays_nothing() {
    let judge = Upstream::sink();
    let script = format!(
        "response_headers: http_call {} :path=/ '' '' 5000; response_body@more: pause",
        judge.url()
    );
    let nginx = held("", &script);
    for path in RESPONSES {
        assert_eq!(nginx.get(path).text(), "secret", "{path}");
    }
}

#[test]
fn a_response_is_denied_by_the_answer_to_a_call() {
    let script = format!(
        "response_headers: http_call unix:@PREFIX@echo.sock :path=/ '' '' 5000
         http_call_response: set_effective_context caller
         http_call_response: get_buffer_bytes 1 0 max
         http_call_response: {DENY}
         response_body@more: pause"
    );
    let mut lua = String::from("local wasm = require('resty.proxy-wasm')\n");
    lua += &format!(
        "local plugin = assert(wasm.load('a', 'probe.wasm', {{ calls = {{ allow = {{ 'unix:*' }} }} }}))
         local text = ([==[{script}]==]):gsub('@PREFIX@', ngx.config.prefix())
         chain = wasm.new_chain({{ assert(wasm.on_configure(plugin, text .. '\\n')) }})"
    );
    let nginx = Nginx::new()
        .guest("probe")
        .echo()
        .http(&format!("init_by_lua_block {{ {lua} }}"))
        .server(
            r#"
            header_filter_by_lua_block { chain:header_filter() }
            body_filter_by_lua_block { chain:body_filter() }
            location / {
                content_by_lua_block {
                    ngx.print("secret")
                    ngx.flush(true)
                    while not io.open(ngx.config.prefix() .. "go") do ngx.sleep(0.01) end
                    ngx.print("more")
                }
            }"#,
        )
        .start();
    nginx.expect_log("the response is cut off: ");
    let mut client = nginx.connect();
    client.write(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    let answered = || {
        let line = order(&nginx).into_iter().find(|line| line.contains("send_local_response"));
        line.filter(|line| line.ends_with("-> 0"))
    };
    assert!(poll(answered).is_some(), "{:?}", order(&nginx));
    std::fs::write(nginx.path("go"), "").expect("a file");
    let bytes = client.read_to_end();
    let text = String::from_utf8_lossy(&bytes);
    assert!(!text.contains("secret") && !text.ends_with("0\r\n\r\n"), "{text}");
    let read = "a http_call_response get_buffer_bytes 1 0 max -> 0 secret".to_string();
    assert!(order(&nginx).contains(&read), "{:?}", order(&nginx));
}

/// A filter that pauses with the body, and does `ops` to it in the answer to a call.
fn in_answer(ops: &str) -> String {
    let mut script = "request_body@eos: http_call unix:@PREFIX@echo.sock :path=/ '' '' 5000
        request_body: pause
        http_call_response: set_effective_context caller\n"
        .to_string();
    for op in ops.split("; ") {
        script += &format!("http_call_response: {op}\n");
    }
    script + "http_call_response: continue_stream 0\n"
}

#[test]
fn a_request_body_is_read_and_replaced_in_the_answer_to_a_call() {
    for (ops, sent) in [
        ("get_buffer_bytes 0 0 max; set_buffer_bytes 0 0 max new", "new"),
        ("get_buffer_bytes 0 0 max; set_buffer_bytes 0 max 0 !", "hello!"),
        ("get_buffer_bytes 0 0 max; set_buffer_bytes 0 0 max ''", ""),
        ("get_buffer_bytes 0 0 max", "hello"),
    ] {
        let nginx = held("", &in_answer(ops));
        for path in ["/", "/plain_request"] {
            let response = nginx.request("POST", path).body("hello").send();
            assert!(
                response.text().ends_with(&format!("\r\n\r\n{sent}")),
                "{path} {ops}: {}",
                response.text()
            );
            let lines = order(&nginx);
            let read = "a http_call_response get_buffer_bytes 0 0 max -> 0 hello";
            assert!(lines.iter().any(|line| line == read), "{lines:?}");
            assert!(
                lines.iter().all(|line| !line.contains("set_buffer") || line.ends_with("-> 0"))
            );
        }
        std::fs::write(nginx.path("input"), "hello").expect("a file");
        let answer = Curl::http2(&nginx).upload("input").get("/");
        assert!(answer.text().ends_with(&format!("\r\n\r\n{sent}")), "{ops}: {}", answer.text());
    }
}

#[test]
fn a_large_body_in_a_file_is_changed_in_the_answer_to_a_call() {
    let large = "x".repeat(2_500_000);
    // Held as a whole; and only its last piece, behind others that continued as they are, or changed.
    for (first, ops, sent) in [
        ("", "set_buffer_bytes 0 0 max new", "new".to_string()),
        ("", "set_buffer_bytes 0 0 0 new", "new".to_string() + &large),
        ("", "get_buffer_status 0", large.clone()),
        ("request_body@more: return 0", "set_buffer_bytes 0 max 0 !", large.clone() + "!"),
        ("request_body@more: return 0", "get_buffer_status 0", large.clone()),
        (
            "request_body@first: set_buffer_bytes 0 0 0 '>'; request_body@more: return 0",
            "set_buffer_bytes 0 max 0 !",
            format!(">{large}!"),
        ),
        (
            "request_body@first: set_buffer_bytes 0 0 0 '>'; request_body@more: return 0",
            "get_buffer_status 0",
            format!(">{large}"),
        ),
    ] {
        let script = in_answer(ops) + first;
        let nginx = held("", &script);
        nginx.expect_log(BODY_TO_FILE);
        let response = nginx.request("POST", "/").body(&large).send();
        assert_eq!(response.status, 200, "{script}");
        let text = response.text();
        let (_, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(body == sent, "{script}: {} bytes", body.len());
    }
}

#[test]
fn a_body_that_is_never_resumed_is_dropped_with_its_request() {
    let script = "request_body: set_buffer_bytes 0 0 max new; request_body: pause";
    let wait = "nothing let it go on within 50 ms";
    for (options, status, sent) in
        [("pause_timeout = 50", 503, ""), ("pause_timeout = 50, fail = 'open'", 200, "hello")]
    {
        let nginx = held(options, script);
        nginx.expect_log(wait);
        let response = nginx.request("POST", "/").body("hello").send();
        assert_eq!(response.status, status);
        assert!(sent.is_empty() || response.text().ends_with(sent), "{}", response.text());
    }
}

#[test]
fn a_filter_behind_sees_what_the_answer_to_a_call_made_of_the_body() {
    let b = "request_body: get_buffer_bytes 0 0 max";
    let nginx = chain(NONE, [&in_answer("set_buffer_bytes 0 0 max new"), b, ""]);
    let response = nginx.request("POST", "/").body("hello").send();
    assert!(response.text().ends_with("\r\n\r\nnew"), "{}", response.text());
    let lines = order(&nginx);
    assert_eq!(
        lines.last().map(String::as_str),
        Some("b request_body get_buffer_bytes 0 0 max -> 0 new")
    );
}
