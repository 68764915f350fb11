//! Request bodies as filters change them: what an upstream really receives.

use super::ops::{Ops, echoed, expect, script};
use super::support::{Probe, Response, Running};

/// Length and transfer coding of the request that the echo server got, and its body.
#[derive(Debug, PartialEq)]
struct Received {
    length: Option<String>,
    coding: Option<String>,
    body: String,
}

fn received(response: &Response) -> Received {
    assert_eq!(response.status, 200);
    let text = response.text();
    let (_, headers) = echoed(&text);
    let value = |name: &str| {
        let found = headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_string())
    };
    Received {
        length: value("content-length"),
        coding: value("transfer-encoding"),
        body: text.split_once("\r\n\r\n").expect("a head").1.into(),
    }
}

/// A request with a length.
fn with_length(body: &str) -> Received {
    Received { length: Some(body.len().to_string()), coding: None, body: body.into() }
}

/// A request without a body.
fn without_body() -> Received {
    Received { length: None, coding: None, body: String::new() }
}

/// Runs ops in on_request_body and returns what was passed on to the upstream.
fn upstream_receives(body: &str, ops: Ops<'_>) -> Received {
    let run =
        Probe::new(&script("request_body", ops)).request("POST", |request| request.body(body));
    expect(&run.nginx, "request_body", ops);
    assert_eq!(run.failures(), [""; 0]);
    received(&run.response)
}

#[test]
fn a_body_that_is_only_read_passes_unchanged() {
    let ops = &[("args", "size=5 eos=1"), ("get_buffer_bytes 0 0 max", "0 hello")];
    assert_eq!(upstream_receives("hello", ops), with_length("hello"));
}

#[test]
fn a_replaced_body_is_sent_with_its_length() {
    assert_eq!(
        upstream_receives("hello", &[("set_buffer_bytes 0 0 max hi", "0")]),
        with_length("hi")
    );
    assert_eq!(
        upstream_receives("hello", &[("set_buffer_bytes 0 0 max 'good morning'", "0")]),
        with_length("good morning")
    );
    assert_eq!(
        upstream_receives("hello", &[(r"set_buffer_bytes 0 5 0 \0\xff\r\n", "0")]).length,
        Some("9".into())
    );
}

#[test]
fn an_emptied_body_is_sent_with_length_0() {
    assert_eq!(
        upstream_receives("hello", &[("set_buffer_bytes 0 0 max ''", "0")]),
        with_length("")
    );
}

#[test]
fn a_body_may_grow_past_what_was_buffered() {
    let expected = "x".repeat(3_000_000) + "hello";
    assert_eq!(
        upstream_receives("hello", &[(r"set_buffer_bytes 0 0 0 '\R{3000000}x'", "0")]),
        with_length(&expected)
    );
}

#[test]
fn a_chunked_body_is_sent_with_a_length() {
    let script = "request_headers: args
                  request_body: args
                  request_body: set_buffer_bytes 0 4 0 ef";
    let run = Probe::new(script).request("POST", |request| request.chunks(&["ab", "cd"]));
    assert_eq!(run.of("request_headers"), ["args -> num_headers=6 eos=0"]);
    assert_eq!(run.of("request_body")[0], "args -> size=4 eos=1");
    assert_eq!(received(&run.response), with_length("abcdef"));
}

#[test]
fn a_request_without_a_body_has_no_body_callback() {
    let ops = "request_headers: args\nrequest_body: args";
    for (method, body) in [("GET", None), ("POST", Some("")), ("DELETE", None)] {
        let run = Probe::new(ops).request(method, |request| match body {
            Some(body) => request.body(body),
            None => request,
        });
        assert!(run.of("request_headers")[0].ends_with(" eos=1"), "{method}");
        assert_eq!(run.of("request_body"), [""; 0], "{method}");
    }
}

/// A location where Lua hands the body over as `lua` says, which sees it as `body`. The body is in a file when it has
/// more than 1 KiB.
fn handed_over(script: &str, options: &str, lua: &str) -> Running {
    let location = r#"
        location /own {
            client_body_buffer_size 1k;
            access_by_lua_block {
                ngx.req.read_body()
                local body, path = ngx.req.get_body_data(), ngx.req.get_body_file()
                if path then
                    local file = assert(io.open(path, "rb"))
                    body = file:read("*a")
                    file:close()
                end
                local function on_body(...)
                    return probe.call("on_http_request_body", probe.ctx, ...)
                end
                LUA
            }
            proxy_pass http://unix:echo.sock;
        }"#;
    let location = location.replace("LUA", lua);
    Probe::new(script).options(options).nginx(|nginx| nginx.server(&location)).start()
}

fn post(nginx: &Running, body: &str) -> Response {
    nginx.request("POST", "/own").body(body).send()
}

#[test]
fn a_body_in_a_file_is_replaced() {
    let rows = [
        ("request_body: set_buffer_bytes 0 0 max hi", "hi".to_string()),
        ("request_body: set_buffer_bytes 0 0 max ''", String::new()),
        ("request_body: set_buffer_bytes 0 0 0 '>> '", ">> ".to_string() + &"x".repeat(100_000)),
        (r"request_body: set_buffer_bytes 0 0 max '\R{200000}y'", "y".repeat(200_000)),
        ("request_body: get_buffer_status 0", "x".repeat(100_000)),
    ];
    for (script, expected) in rows {
        let nginx = handed_over(script, "", "on_body(body, true)");
        let response = post(&nginx, &"x".repeat(100_000));
        nginx.expect_log("a client request body is buffered to a temporary file");
        assert_eq!(received(&response), with_length(&expected), "{script}");
    }
}

#[test]
fn a_body_that_is_nil_is_empty() {
    let nginx = handed_over("request_body: args", "", "on_body(nil, true)");
    assert_eq!(received(&post(&nginx, "hello")), with_length("hello"));
    assert_eq!(nginx.guest_log("probe"), ["request_body args -> size=0 eos=1"]);
}

#[test]
fn a_filter_may_give_a_body_to_a_request_without_one() {
    let nginx = handed_over("request_body: set_buffer_bytes 0 0 0 hello", "", "on_body(nil, true)");
    assert_eq!(received(&nginx.get("/own")), with_length("hello"));
}

#[test]
fn a_request_without_a_body_stays_one() {
    let nginx = handed_over("request_body: get_buffer_status 0", "", "on_body(nil, true)");
    assert_eq!(received(&nginx.get("/own")), without_body());
    assert_eq!(nginx.guest_log("probe"), ["request_body get_buffer_status 0 -> 0 0 0"]);
}

/// Hands a body over in pieces of two bytes, the last with `end_of_body`.
const IN_PIECES: &str = "
    for at = 1, #body, 2 do
        on_body(body:sub(at, at + 1), at + 2 > #body)
    end";

#[test]
fn pieces_are_sent_one_by_one() {
    let nginx = handed_over(
        "request_body: args
         request_body: get_buffer_bytes 0 0 max
         request_body: set_buffer_bytes 0 0 0 .",
        "",
        IN_PIECES,
    );
    assert_eq!(received(&post(&nginx, "hello")), with_length(".he.ll.o"));
    let expected = [("he", 0), ("ll", 0), ("o", 1)].iter().flat_map(|(piece, end)| {
        [
            format!("request_body args -> size={} eos={end}", piece.len()),
            format!("request_body get_buffer_bytes 0 0 max -> 0 {piece}"),
            "request_body set_buffer_bytes 0 0 0 . -> 0".to_string(),
        ]
    });
    assert_eq!(nginx.guest_log("probe"), expected.collect::<Vec<_>>());
}

#[test]
fn pieces_that_are_held_come_again_with_the_next() {
    let nginx = handed_over(
        "request_body: args
         request_body@more: pause
         request_body@eos: get_buffer_bytes 0 0 max
         request_body@eos: set_buffer_bytes 0 5 0 !",
        "",
        IN_PIECES,
    );
    assert_eq!(received(&post(&nginx, "hello")), with_length("hello!"));
    assert_eq!(
        nginx.guest_log("probe"),
        [
            "request_body args -> size=2 eos=0",
            "request_body pause -> 1",
            "request_body args -> size=4 eos=0",
            "request_body pause -> 1",
            "request_body args -> size=5 eos=1",
            "request_body get_buffer_bytes 0 0 max -> 0 hello",
            "request_body set_buffer_bytes 0 5 0 ! -> 0",
        ]
    );
}

#[test]
fn a_change_to_the_first_piece_only() {
    let nginx = handed_over("request_body@first: set_buffer_bytes 0 0 max J", "", IN_PIECES);
    assert_eq!(received(&post(&nginx, "hello")), with_length("Jllo"));
}

#[test]
fn a_change_to_the_last_piece_only() {
    let nginx = handed_over("request_body@eos: set_buffer_bytes 0 0 max ''", "", IN_PIECES);
    assert_eq!(received(&post(&nginx, "hello")), with_length("hell"));
}

#[test]
fn pieces_that_no_filter_changes() {
    let nginx = handed_over("request_body@more: pause", "", IN_PIECES);
    assert_eq!(received(&post(&nginx, "hello")), with_length("hello"));
}

#[test]
fn a_pause_at_the_end_holds_the_request() {
    let nginx = handed_over("request_body: pause", "pause_timeout = 50", "on_body(body, true)");
    assert_eq!(received(&post(&nginx, "hello")), with_length("hello"));
    assert_eq!(
        nginx.log_texts("lua call failed: "),
        [
            "on_http_request_body: failed to run proxy_on_http_request_body: the filter paused the request, and nothing \
          let it go on within 50 ms"
        ]
    );
}

#[test]
fn a_pause_that_is_taken_back_does_not_hold() {
    let nginx = handed_over(
        "request_body: set_buffer_bytes 0 0 max hi; request_body: continue_stream 0; request_body: pause",
        "",
        "on_body(body, true)",
    );
    assert_eq!(received(&post(&nginx, "hello")), with_length("hi"));
    assert_eq!(nginx.log_texts("lua call failed: "), [""; 0]);
}

#[test]
fn a_body_can_be_refused() {
    let run = Probe::new("request_body: send_local_response 413 '' 'too long' '' -1")
        .request("POST", |request| request.body("hello"));
    assert_eq!((run.response.status, run.response.text().as_str()), (413, "too long"));
}

#[test]
fn a_changed_body_needs_a_phase_that_can_pass_it_on() {
    let location = r#"
        location /late {
            return 200;
            header_filter_by_lua_block { probe.call("on_http_request_body", probe.ctx, "hello", true) }
        }"#;
    let nginx = Probe::new("request_body: set_buffer_bytes 0 0 max hi")
        .nginx(|nginx| nginx.server(location))
        .start();
    assert_eq!(nginx.get("/late").status, 200);
    assert_eq!(
        nginx.log_texts("lua call failed: "),
        [
            "on_http_request_body: failed to run proxy_on_http_request_body: the filter changed the request body, which \
          phase header_filter cannot pass on"
        ]
    );
}
