//! `chain:content()`: responses that filters can wait in.

use super::ops::wait_for_lines;
use super::support::{Nginx, Running};

/// A chain of filters of these scripts, the first one nearest to the client, and a server that they call.
pub(crate) fn filters(scripts: &[&str], options: &str) -> String {
    let contexts: String = scripts
        .iter()
        .enumerate()
        .map(|(at, script)| {
            format!(
                "assert(wasm.on_configure(assert(wasm.load('f{at}', 'probe_0_2_100.wasm', {{ {options} }})), [==[{script}]==])),"
            )
        })
        .collect();
    format!(
        r#"
            init_by_lua_block {{
                local wasm = require("resty.proxy-wasm")
                assert(wasm.setup({{ upstreams = {{ service = "unix:" .. ngx.config.prefix() .. "service.sock" }} }}))
                chain = wasm.new_chain({{ {contexts} }})
            }}
            server {{ listen unix:service.sock; location / {{ return 200 "of the service"; }} }}
        "#
    )
}

/// Such a chain before a server.
fn chain(scripts: &[&str], options: &str) -> Running {
    let filters = filters(scripts, options);
    Nginx::new()
        .guest("probe_0_2_100")
        .http(&format!(
            r#"
            lua_socket_log_errors off;
            client_max_body_size 8m;
            client_body_buffer_size 16k;
            {filters}
            server {{
                listen unix:origin.sock;
                location / {{
                    client_max_body_size 8m;
                    client_body_buffer_size 16k;
                    content_by_lua_block {{
                        ngx.status = tonumber(ngx.var.arg_status) or 200
                        ngx.header["X-Origin"] = {{ "one", "two" }}
                        ngx.header["Content-Type"] = "text/xml"
                        ngx.req.read_body()
                        local body = ngx.req.get_body_data()
                        local file = ngx.req.get_body_file()
                        body = file and "file of " .. assert(io.open(file)):seek("end") or body or "-"
                        local text = ngx.req.get_method() .. " " .. ngx.var.request_uri .. " " ..
                            (ngx.req.get_headers()["x-filter"] or "-") .. " " .. body
                        ngx.header["Content-Length"] = #text
                        ngx.print(text)
                    }}
                }}
                location /cut {{
                    content_by_lua_block {{
                        ngx.header["Content-Length"] = 100
                        ngx.print("cut")
                        ngx.flush(true)
                        ngx.exit(ngx.ERROR)
                    }}
                }}
            }}
            "#
        ))
        .server(
            r#"
            location / {
                access_by_lua_block { chain:access() }
                content_by_lua_block { chain:content("unix:origin.sock") }
            }
            location /wrong { content_by_lua_block { ngx.print(select(2, pcall(chain.content, chain, "/origin"))) } }
            location /nobody { content_by_lua_block { chain:content("unix:nobody.sock") } }
            "#,
        )
        .start()
}

pub(crate) const CALL: &str = "http_call service '' '' '' 20000";
pub(crate) const GO_ON: &str = "http_call_response: continue_stream 1";

#[test]
fn a_response_is_that_of_the_server() {
    let nginx = chain(&["request_headers: add_header_map_value 0 x-filter yes"], "");
    nginx.expect_log("a client request body is buffered to a temporary file");
    let response = nginx.request("POST", "/a?b=c").body("hello").send();
    assert_eq!(response.text(), "POST /a?b=c yes hello");
    assert_eq!(response.header_all("x-origin"), ["one", "two"]);
    assert_eq!(response.header("content-type"), Some("text/xml"));
    assert_eq!(response.header("content-length"), Some("21"));
    let file = nginx.request("POST", "/").body("x".repeat(200_000)).send();
    assert_eq!(file.text(), "POST / yes file of 200000");
    let answer = nginx.request("PROPFIND", "/a%20b%3f%25%0d%c3%a4?x=%0d").send();
    assert_eq!(answer.text(), "PROPFIND /a%20b%3F%25%0D%C3%A4?x=%0d yes -");
    assert_eq!(nginx.get("/?status=404").status, 404);
    let response = nginx.request("HEAD", "/").send();
    assert_eq!((response.status, response.text().as_str()), (200, ""));
    assert_eq!(
        nginx.get("/wrong").text(),
        "bad argument #1 to 'content' (unix:PATH or HOST:PORT expected)"
    );
}

/// SDKs leave responses alone that come from elsewhere.
#[test]
fn a_response_is_that_of_an_upstream() {
    let nginx = chain(&["response_headers: get_property response.code_details"], "");
    assert_eq!(nginx.get("/").status, 200);
    let lines = nginx.guest_log("f0");
    let line = "response_headers get_property response.code_details -> 0 via_upstream";
    assert!(lines.iter().any(|this| this == line), "{lines:#?}");
}

#[test]
fn a_filter_waits_at_the_end_of_a_body_for_a_call() {
    let script = format!(
        "response_body: {CALL}
         response_body: pause
         http_call_response: get_buffer_bytes 4 0 max
         http_call_response: set_effective_context caller
         http_call_response: get_buffer_bytes 1 0 max
         {GO_ON}"
    );
    let nginx = chain(&[&script], "");
    assert_eq!(nginx.get("/").text(), "GET / - -");
    let lines = nginx.guest_log("f0");
    for line in [
        "http_call_response get_buffer_bytes 4 0 max -> 0 of the service",
        "http_call_response get_buffer_bytes 1 0 max -> 0 GET / - -",
    ] {
        assert!(lines.iter().any(|this| this == line), "{line}: {lines:#?}");
    }
}

#[test]
fn what_it_makes_of_the_body_meanwhile_is_sent() {
    for (change, body) in [
        ("set_buffer_bytes 1 0 max changed", "changed"),
        ("inject_encoded_data_to_filter_chain before: 0", "before:GET / - -"),
    ] {
        let script = format!(
            "response_body: {CALL}
             response_body: pause
             http_call_response: set_effective_context caller
             http_call_response: {change}
             {GO_ON}"
        );
        let nginx = chain(&["# behind", &script], "");
        assert_eq!(nginx.get("/").text(), body, "{change}");
    }
}

/// As the filters do that check what a model answers: the last piece of theirs says that it is the last.
#[test]
fn a_piece_that_ends_the_body_ends_the_wait() {
    let script = format!(
        "response_body: {CALL}
         response_body: return 3
         http_call_response: set_effective_context caller
         http_call_response: inject_encoded_data_to_filter_chain 'checked ' 0
         http_call_response: inject_encoded_data_to_filter_chain piece 1"
    );
    let nginx = chain(&[&script], "");
    assert_eq!(nginx.get("/").text(), "checked piece");
}

#[test]
fn a_denial_takes_the_place_of_the_response() {
    for script in [
        format!(
            "response_body: {CALL}
             response_body: pause
             http_call_response: set_effective_context caller
             http_call_response: send_local_response 451 '' denied 'x-why=law' -1"
        ),
        "response_body: send_local_response 451 '' denied 'x-why=law' -1".into(),
        "response_headers: send_local_response 451 '' denied 'x-why=law' -1".into(),
    ] {
        let nginx = chain(&[&script], "");
        let response = nginx.get("/");
        assert_eq!((response.status, response.text().as_str()), (451, "denied"), "{script}");
        assert_eq!(response.header("x-why"), Some("law"), "{script}");
        assert_eq!(response.header("x-origin"), None, "{script}");
    }
}

#[test]
fn headers_change_by_what_is_in_the_body() {
    for script in [
        "response_headers: pause
         response_body: get_header_map_value 2 content-type
         response_body: replace_header_map_value 2 content-type application/json
         response_body: set_buffer_bytes 1 0 max {}"
            .to_string(),
        format!(
            "response_headers: pause
             response_body: {CALL}
             response_body: pause
             http_call_response: set_effective_context caller
             http_call_response: replace_header_map_value 2 content-type application/json
             http_call_response: set_buffer_bytes 1 0 max {{}}
             {GO_ON}"
        ),
    ] {
        let nginx = chain(&[&script], "");
        let response = nginx.get("/");
        assert_eq!(response.text(), "{}", "{script}");
        assert_eq!(response.header("content-type"), Some("application/json"), "{script}");
        assert_eq!(response.header("content-length"), Some("2"), "{script}");
    }
}

/// 3 and 4 stop all: the body is told behind the answer of the call.
#[test]
fn a_pause_of_the_headers_is_waited_for() {
    for answer in [3, 4] {
        let script = format!(
            "response_headers: {CALL}
             response_headers: return {answer}
             response_body: get_buffer_status 1
             http_call_response: set_effective_context caller
             http_call_response: replace_header_map_value 2 x-origin waited
             {GO_ON}"
        );
        let nginx = chain(&[&script], "");
        let response = nginx.get("/");
        assert_eq!((response.status, response.text().as_str()), (200, "GET / - -"), "{answer}");
        assert_eq!(response.header("x-origin"), Some("waited"), "{answer}");
        let lines = nginx.guest_log("f0");
        let at = |what: &str| lines.iter().position(|line| line.starts_with(what));
        assert!(at("http_call_response").is_some(), "{answer}: {lines:#?}");
        assert!(at("http_call_response") < at("response_body"), "{answer}: {lines:#?}");
    }
}

#[test]
fn a_filter_that_fails_or_waits_too_long() {
    let waits = format!("response_body: {CALL}\nresponse_body: pause");
    let nginx = chain(&[&waits], "pause_timeout = 100");
    nginx.expect_log("failed to run proxy_on_http_response_body: ");
    let response = nginx.get("/");
    assert_eq!((response.status, response.header("x-origin")), (503, None));
    let nginx = chain(&[&waits], "pause_timeout = 100, fail = 'open'");
    nginx.expect_log("failed to run proxy_on_http_response_body: ");
    assert_eq!(nginx.get("/").text(), "GET / - -");
    let nginx = chain(&["response_headers: trap"], "");
    nginx.expect_log("failed to run proxy_on_http_response_headers: ");
    assert_eq!(nginx.get("/").status, 503);
}

#[test]
fn a_body_that_is_held_and_too_large() {
    let waits = format!(
        "response_body: {CALL}
         response_body: pause
         http_call_response: set_effective_context caller
         {GO_ON}"
    );
    for (options, status) in [("body_limit = 8", 503), ("body_limit = 9", 200)] {
        let nginx = chain(&[&waits], options);
        if status == 503 {
            nginx.expect_log("holds the response body, and it is larger than body_limit (8 bytes)");
        }
        assert_eq!(nginx.get("/").status, status, "{options}");
        // The call is made all the same.
        wait_for_lines(&nginx, "f0", 4);
    }
}

#[test]
fn a_response_that_ends_too_early_is_no_response() {
    let nginx = chain(&["# nothing"], "");
    nginx.expect_log("the response of unix:origin.sock is cut off: it ended too early");
    nginx.expect_log("lua entry thread aborted: runtime error: the response is cut off");
    let response = nginx.raw("GET /cut HTTP/1.1\r\nHost: a\r\n\r\n");
    let text = String::from_utf8_lossy(&response);
    assert!(text.ends_with("\r\n3\r\ncut\r\n"), "{text}");
    nginx.expect_log("no response of unix:nobody.sock: ");
    nginx.expect_log("connect() to unix:nobody.sock failed");
    assert_eq!(nginx.get("/nobody").status, 502);
}
