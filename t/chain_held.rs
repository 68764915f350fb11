//! Filters of a chain that pause on the request's headers, and see its body before they let them continue.

use super::chain::{NONE, chain, order};
use super::support::{Curl, Nginx, Running};

/// What the probes logged but for the end of requests, without what they answered.
fn steps(nginx: &Running) -> Vec<String> {
    let lines = order(nginx).into_iter();
    lines.map(|line| line.split(" -> ").next().unwrap_or_default().to_string()).collect()
}

#[test]
fn headers_are_held_until_the_body_was_seen() {
    let a = "request_headers: pause
             request_body: get_buffer_bytes 0 0 max
             request_body: add_header_map_value 0 x-seen yes";
    let b = "request_headers: get_header_map_value 0 x-seen; request_body: args";
    let nginx = chain(NONE, [a, b, ""]);
    for path in ["/", "/rewrite"] {
        let from = order(&nginx).len();
        let response = nginx.request("POST", path).body("hello").send();
        assert_eq!(response.status, 200);
        assert!(response.text().contains("\r\nx-seen: yes\r\n"), "{}", response.text());
        assert!(response.text().ends_with("\r\n\r\nhello"));
        assert_eq!(
            order(&nginx)[from..],
            [
                "a request_headers pause -> 1",
                "a request_body get_buffer_bytes 0 0 max -> 0 hello",
                "a request_body add_header_map_value 0 x-seen yes -> 0",
                "b request_headers get_header_map_value 0 x-seen -> 0 yes",
                "b request_body args -> size=5 eos=1",
            ]
        );
    }
}

#[test]
fn a_word_of_the_filter_ends_the_wait_too() {
    for a in [
        "request_headers: pause; request_body: continue_stream 0",
        "request_headers: pause; request_body: continue_stream 0; request_body: pause",
        "request_headers: pause; request_headers: continue_stream 0",
    ] {
        let nginx = chain(NONE, [a, "request_headers: ids", ""]);
        let response = nginx.request("POST", "/").body("hello").send();
        assert_eq!(response.status, 200, "{a}");
        assert!(response.text().ends_with("\r\n\r\nhello"), "{a}");
    }
}

#[test]
fn a_body_callback_that_does_nothing_ends_no_wait() {
    let wait = "pause_timeout = 50";
    let a = "request_headers: pause; request_body: args; response_headers: ids";
    let nginx = chain([wait, "", ""], [a, "request_headers: ids", ""]);
    nginx.expect_log("the filter paused the request, and nothing let it go on within 50 ms");
    let response = nginx.request("POST", "/").body("hello").send();
    assert_eq!(response.status, 503);
    assert_eq!(steps(&nginx), ["a request_headers pause", "a request_body args"]);
}

#[test]
fn a_pause_at_the_end_of_the_body_holds_the_filters_after_it() {
    let a = "configure: set_tick_period_milliseconds 10
             request_headers: pause
             request_body: get_buffer_bytes 0 0 max
             request_body: pause
             tick@first: ids
             tick: set_effective_context 2
             tick: continue_stream 0";
    let nginx = chain(NONE, [a, "request_headers: ids", ""]);
    let response = nginx.request("POST", "/").body("hello").send();
    assert_eq!(response.status, 200);
    let steps = steps(&nginx);
    let at = |step: &str| steps.iter().position(|line| line == step).expect("a step");
    assert!(at("a request_body pause") < at("b request_headers ids"), "{steps:?}");
    assert!(steps[..at("b request_headers ids")].contains(&"a tick continue_stream 0".to_string()));
}

#[test]
fn without_a_body_the_filter_is_waited_for() {
    let a = "request_headers: pause; request_body: continue_stream 0";
    let nginx = chain(["pause_timeout = 50", "", ""], [a, "", ""]);
    nginx.expect_log("the filter paused the request, and nothing let it go on within 50 ms");
    assert_eq!(nginx.get("/").status, 503);
    assert_eq!(nginx.request("POST", "/").body("").send().status, 503);
    // A body may take its time.
    let nginx = chain(NONE, [a, "", ""]);
    assert_eq!(nginx.request("POST", "/").body("hello").send().status, 200);
}

#[test]
fn a_body_that_turns_out_to_be_empty_has_an_end() {
    let b = "request_headers: args; request_headers: pause
             request_body: args; request_body: get_buffer_bytes 0 0 max";
    let end =
        ["b request_body args -> size=0 eos=1", "b request_body get_buffer_bytes 0 0 max -> 0 ''"];
    let nginx = chain(NONE, ["", b, ""]);
    let response = nginx.request("POST", "/").chunks(&[]).send();
    assert_eq!(response.status, 200);
    assert_eq!(order(&nginx)[2..], end);
    // Emptied by the filter before.
    let nginx = chain(NONE, ["request_body: set_buffer_bytes 0 0 max ''", b, ""]);
    let response = nginx.request("POST", "/").body("hello").send();
    assert_eq!((response.status, response.text().ends_with("\r\n\r\n")), (200, true));
    assert_eq!(order(&nginx)[3..], end);
}

#[test]
fn bodies_of_http2_that_nothing_announces_are_expected() {
    let nginx = Nginx::new()
        .guest("probe")
        .echo()
        .http2()
        .http(
            r#"init_by_lua_block {
                local wasm = require("resty.proxy-wasm")
                local plugin = assert(wasm.load("probe", "probe.wasm", { calls = { allow = { "unix:*" } } }))
                chain = wasm.new_chain({ assert(wasm.on_configure(plugin, [[
                    request_headers: args
                    request_headers: pause
                    request_body: get_buffer_bytes 0 0 max]])) })
            }"#,
        )
        .server("location / { access_by_lua_block { chain:access() } proxy_pass http://unix:echo.sock; }")
        .file("input", "hello")
        .start();
    assert_eq!(Curl::http2(&nginx).stream("input").get("/").status, 200);
    assert_eq!(Curl::http2(&nginx).arguments(&["-X", "POST"]).get("/").status, 200);
    let lines = nginx.guest_log("probe");
    let ends = lines.iter().filter(|line| line.ends_with(" eos=0"));
    assert_eq!(ends.count(), 2, "{lines:?}");
    let bodies: Vec<&String> = lines.iter().filter(|line| line.contains("get_buffer")).collect();
    assert_eq!(
        bodies,
        [
            "request_body get_buffer_bytes 0 0 max -> 0 hello",
            "request_body get_buffer_bytes 0 0 max -> 0 ''"
        ]
    );
}

#[test]
fn a_filter_that_waits_for_a_call_gets_the_body_after_it() {
    let call = "http_call unix:@PREFIX@echo.sock :path=/ '' '' 5000";
    let a = format!(
        "request_headers: {call}
         request_headers: pause
         request_body: get_buffer_bytes 0 0 max
         http_call_response: set_effective_context caller
         http_call_response: continue_stream 0"
    );
    let nginx = chain(NONE, [&a, "request_headers: ids", ""]);
    let response = nginx.request("POST", "/").body("hello").send();
    assert_eq!(response.status, 200);
    assert_eq!(
        steps(&nginx),
        [
            &format!("a request_headers {call}").replace("@PREFIX@", &nginx.path("")),
            "a request_headers pause",
            "a http_call_response set_effective_context caller",
            "a http_call_response continue_stream 0",
            "b request_headers ids",
            "a request_body get_buffer_bytes 0 0 max",
        ]
    );
}

#[test]
fn a_held_filter_sees_what_those_before_it_made_of_the_body() {
    let a = "request_headers: ids; request_body: set_buffer_bytes 0 0 0 '>'";
    let b = "request_headers: pause
             request_body: get_buffer_bytes 0 0 max
             request_body: set_buffer_bytes 0 max 0 '<'";
    let c = "request_headers: ids; request_body: get_buffer_bytes 0 0 max";
    let nginx = chain(NONE, [a, b, c]);
    let response = nginx.request("POST", "/").body("hello").send();
    assert!(response.text().ends_with("\r\n\r\n>hello<"), "{}", response.text());
    assert_eq!(
        order(&nginx),
        [
            "a request_headers ids -> id=2 root=1",
            "b request_headers pause -> 1",
            "a request_body set_buffer_bytes 0 0 0 '>' -> 0",
            "b request_body get_buffer_bytes 0 0 max -> 0 >hello",
            "b request_body set_buffer_bytes 0 max 0 '<' -> 0",
            "c request_headers ids -> id=2 root=1",
            "c request_body get_buffer_bytes 0 0 max -> 0 >hello<",
        ]
    );
}

#[test]
fn a_held_filter_may_refuse_the_request() {
    let a = "response_headers: add_header_map_value 2 x-a 1";
    let b = "request_headers: pause; request_body: send_local_response 403 '' no '' -1";
    let c = "request_headers,response_headers: ids";
    let nginx = chain(NONE, [a, b, c]);
    let response = nginx.request("POST", "/").body("hello").send();
    assert_eq!((response.status, response.text().as_str()), (403, "no"));
    assert_eq!(response.header_all("x-a"), ["1"]);
    assert!(!steps(&nginx).iter().any(|line| line.starts_with("c ")), "{:?}", steps(&nginx));
}

#[test]
fn a_held_filter_that_fails_is_skipped_or_ends_the_request() {
    let b = "request_headers: pause; request_body: trap";
    for (fail, status) in [("fail = 'open'", 200), ("", 503)] {
        let nginx = chain(["", fail, ""], ["", b, "request_body: args"]);
        nginx.expect_log("failed to run proxy_on_http_request_body: ");
        let response = nginx.request("POST", "/").body("hello").send();
        assert_eq!(response.status, status);
        let told = steps(&nginx).contains(&"c request_body args".to_string());
        assert_eq!(told, status == 200);
    }
}
