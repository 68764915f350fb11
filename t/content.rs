//! `chain:content()`: responses that filters can wait in.

use super::ops::wait_for_lines;
use super::support::{Nginx, Running};

/// A chain of filters of these scripts, the first one nearest to the client, before `/origin`; and a server that filters call.
fn chain(scripts: &[&str], options: &str) -> Running {
    let contexts: String = scripts
        .iter()
        .enumerate()
        .map(|(at, script)| {
            format!(
                "assert(wasm.on_configure(assert(wasm.load('f{at}', 'probe_0_2_100.wasm', {{ {options} }})), [==[{script}]==])),"
            )
        })
        .collect();
    Nginx::new()
        .guest("probe_0_2_100")
        .http(&format!(
            r#"
            lua_socket_log_errors off;
            init_by_lua_block {{
                local wasm = require("resty.proxy-wasm")
                assert(wasm.setup({{ upstreams = {{ service = "unix:" .. ngx.config.prefix() .. "service.sock" }} }}))
                chain = wasm.new_chain({{ {contexts} }})
            }}
            server {{ listen unix:service.sock; location / {{ return 200 "of the service"; }} }}
            server {{
                listen unix:origin.sock;
                location / {{
                    content_by_lua_block {{
                        ngx.status = tonumber(ngx.var.arg_status) or 200
                        ngx.header["X-Origin"] = {{ "one", "two" }}
                        ngx.header["Content-Type"] = "text/xml"
                        ngx.req.read_body()
                        ngx.print(ngx.req.get_method(), " ", ngx.var.request_uri, " ", ngx.req.get_headers()["x-filter"] or "-",
                            " ", ngx.req.get_body_data() or "-")
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
                content_by_lua_block { chain:content("/origin" .. ngx.var.uri) }
            }
            location /origin/ {
                internal;
                proxy_pass http://unix:origin.sock:/;
            }
            location /wrong { content_by_lua_block { ngx.print(select(2, pcall(chain.content, chain, "origin"))) } }
            "#,
        )
        .start()
}

const CALL: &str = "http_call service '' '' '' 20000";
const GO_ON: &str = "http_call_response: continue_stream 1";

#[test]
fn a_response_is_that_of_the_location() {
    let nginx = chain(&["request_headers: add_header_map_value 0 x-filter yes"], "");
    let response = nginx.request("POST", "/a?b=c").body("hello").send();
    assert_eq!(response.text(), "POST /a?b=c yes hello");
    assert_eq!(response.header_all("x-origin"), ["one", "two"]);
    assert_eq!(response.header("content-type"), Some("text/xml"));
    assert_eq!(response.header("content-length"), Some("21"));
    assert_eq!(nginx.get("/?status=404").status, 404);
    let response = nginx.request("HEAD", "/").send();
    assert_eq!((response.status, response.text().as_str()), (200, ""));
    assert_eq!(
        nginx.get("/wrong").text(),
        "bad argument #1 to 'content' (the path of a location expected)"
    );
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
fn what_it_makes_of_the_body_meanwhile_goes_on() {
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
    nginx.expect_log("upstream prematurely closed connection");
    nginx.expect_log("the response of /origin/cut ended too early");
    assert_eq!(nginx.get("/cut").status, 500);
}
