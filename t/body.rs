//! Bodies as filters change them: what an upstream and what a client really receive.

use super::ops::{Ops, echoed, expect, script};
use super::support::{Outcome, Probe, Response, Running};

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
        let found = headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
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
    Received {
        length: Some(body.len().to_string()),
        coding: None,
        body: body.into(),
    }
}

/// A request without a body.
fn without_body() -> Received {
    Received {
        length: None,
        coding: None,
        body: String::new(),
    }
}

/// Runs ops in on_request_body and returns what went on to the upstream.
fn upstream_receives(body: &str, ops: Ops<'_>) -> Received {
    let run =
        Probe::new(&script("request_body", ops)).request("POST", |request| request.body(body));
    expect(&run.nginx, "request_body", ops);
    assert_eq!(run.failures(), [""; 0]);
    received(&run.response)
}

#[test]
fn a_body_that_is_read_only_goes_on_as_it_is() {
    let ops = &[
        ("args", "size=5 eos=1"),
        ("get_buffer_bytes 0 0 max", "0 hello"),
    ];
    assert_eq!(upstream_receives("hello", ops), with_length("hello"));
}

#[test]
fn a_replaced_body_goes_on_with_its_length() {
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
fn an_emptied_body_goes_on_with_length_0() {
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
fn a_chunked_body_goes_on_with_a_length() {
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
    Probe::new(script)
        .options(options)
        .nginx(|nginx| nginx.server(&location))
        .start()
}

fn post(nginx: &Running, body: &str) -> Response {
    nginx.request("POST", "/own").body(body).send()
}

#[test]
fn a_body_in_a_file_is_replaced() {
    let rows = [
        (
            "request_body: set_buffer_bytes 0 0 max hi",
            "hi".to_string(),
        ),
        ("request_body: set_buffer_bytes 0 0 max ''", String::new()),
        (
            "request_body: set_buffer_bytes 0 0 0 '>> '",
            ">> ".to_string() + &"x".repeat(100_000),
        ),
        (
            r"request_body: set_buffer_bytes 0 0 max '\R{200000}y'",
            "y".repeat(200_000),
        ),
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
    assert_eq!(
        nginx.guest_log("probe"),
        ["request_body args -> size=0 eos=1"]
    );
}

#[test]
fn a_filter_may_give_a_body_to_a_request_without_one() {
    let nginx = handed_over(
        "request_body: set_buffer_bytes 0 0 0 hello",
        "",
        "on_body(nil, true)",
    );
    assert_eq!(received(&nginx.get("/own")), with_length("hello"));
}

#[test]
fn a_request_without_a_body_stays_one() {
    let nginx = handed_over(
        "request_body: get_buffer_status 0",
        "",
        "on_body(nil, true)",
    );
    assert_eq!(received(&nginx.get("/own")), without_body());
    assert_eq!(
        nginx.guest_log("probe"),
        ["request_body get_buffer_status 0 -> 0 0 0"]
    );
}

/// Hands a body over in pieces of two bytes, the last with `end_of_body`.
const IN_PIECES: &str = "
    for at = 1, #body, 2 do
        on_body(body:sub(at, at + 1), at + 2 > #body)
    end";

#[test]
fn pieces_that_go_on_one_by_one() {
    let nginx = handed_over(
        "request_body: args
         request_body: get_buffer_bytes 0 0 max
         request_body: set_buffer_bytes 0 0 0 .",
        "",
        IN_PIECES,
    );
    assert_eq!(received(&post(&nginx, "hello")), with_length(".he.ll.o"));
    let expected = [("he", 0), ("ll", 0), ("o", 1)]
        .iter()
        .flat_map(|(piece, end)| {
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
    let nginx = handed_over(
        "request_body@first: set_buffer_bytes 0 0 max J",
        "",
        IN_PIECES,
    );
    assert_eq!(received(&post(&nginx, "hello")), with_length("Jllo"));
}

#[test]
fn a_change_to_the_last_piece_only() {
    let nginx = handed_over(
        "request_body@eos: set_buffer_bytes 0 0 max ''",
        "",
        IN_PIECES,
    );
    assert_eq!(received(&post(&nginx, "hello")), with_length("hell"));
}

#[test]
fn pieces_that_nobody_changes() {
    let nginx = handed_over("request_body@more: pause", "", IN_PIECES);
    assert_eq!(received(&post(&nginx, "hello")), with_length("hello"));
}

#[test]
fn a_pause_at_the_end_holds_the_request() {
    let nginx = handed_over(
        "request_body: pause",
        "pause_timeout = 50",
        "on_body(body, true)",
    );
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
    assert_eq!(
        (run.response.status, run.response.text().as_str()),
        (413, "too long")
    );
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

// ---- Response bodies ----

/// Answers `abcdef` in three buffers, without a length.
const THREE_BUFFERS: &str = r#"
    content_by_lua_block {
        for _, piece in ipairs({ "ab", "cd", "ef" }) do
            ngx.print(piece)
        end
    }"#;

fn respond(script: &str, content: &str) -> Outcome {
    let run = Probe::new(script).content(content).run();
    assert_eq!(run.response.status, 200);
    assert_eq!(run.failures(), [""; 0]);
    run
}

/// The chunks on the wire, from a connection of their own.
fn chunks(script: &str, content: &str) -> Vec<String> {
    let nginx = Probe::new(script).content(content).start();
    let answer = nginx.raw("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let text = String::from_utf8(answer).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    assert!(head.contains("\r\nTransfer-Encoding: chunked"), "{head}");
    let chunks = body.strip_suffix("0\r\n\r\n").expect("a last chunk");
    chunks.lines().skip(1).step_by(2).map(Into::into).collect()
}

#[test]
fn a_body_that_is_read_only_reaches_the_client_as_it_is() {
    let run = respond("response_body: get_buffer_bytes 1 0 max", THREE_BUFFERS);
    assert_eq!(run.response.text(), "abcdef");
    assert_eq!(
        run.of("response_body"),
        ["0 ab", "0 cd", "0 ef", "0 ''"]
            .map(|answer| format!("get_buffer_bytes 1 0 max -> {answer}"))
    );
}

#[test]
fn each_buffer_can_be_rewritten() {
    let script =
        "response_body@more: set_buffer_bytes 1 1 0 -; response_body@eos: set_buffer_bytes 1 0 0 !";
    assert_eq!(chunks(script, THREE_BUFFERS), ["a-b", "c-d", "e-f", "!"]);
}

#[test]
fn each_buffer_can_be_emptied() {
    let run = respond("response_body: set_buffer_bytes 1 0 max ''", THREE_BUFFERS);
    assert_eq!(run.response.text(), "");
    assert_eq!(run.response.header("transfer-encoding"), Some("chunked"));
}

#[test]
fn held_buffers_come_together_at_the_end() {
    let script = "response_body: args
                  response_body: get_buffer_bytes 1 0 max
                  response_body: pause";
    let run = respond(script, THREE_BUFFERS);
    assert_eq!(run.response.text(), "abcdef");
    let expected = [
        (2, 0, "ab"),
        (4, 0, "abcd"),
        (6, 0, "abcdef"),
        (6, 1, "abcdef"),
    ];
    let expected = expected.iter().flat_map(|(size, end, content)| {
        [
            format!("args -> size={size} eos={end}"),
            format!("get_buffer_bytes 1 0 max -> 0 {content}"),
            "pause -> 1".into(),
        ]
    });
    assert_eq!(run.of("response_body"), expected.collect::<Vec<_>>());
    // Nothing was on the wire before.
    assert_eq!(chunks(script, THREE_BUFFERS), ["abcdef"]);
}

#[test]
fn a_held_body_is_rewritten_as_a_whole() {
    let script = "response_body@more: pause; response_body@eos: set_buffer_bytes 1 1 4 ----";
    assert_eq!(chunks(script, THREE_BUFFERS), ["a----f"]);
}

#[test]
fn what_is_held_is_let_go_by_a_continue() {
    let script = "response_body@first: pause";
    assert_eq!(chunks(script, THREE_BUFFERS), ["abcd", "ef"]);
}

#[test]
fn a_change_to_a_held_buffer_is_seen_by_the_next_callback() {
    let script = "response_body@first: set_buffer_bytes 1 0 max xy
                  response_body: get_buffer_bytes 1 0 max
                  response_body@more: pause";
    let run = respond(script, THREE_BUFFERS);
    assert_eq!(run.response.text(), "xycdef");
    assert_eq!(
        run.of("response_body").last().map(String::as_str),
        Some("get_buffer_bytes 1 0 max -> 0 xycdef")
    );
}

#[test]
fn continue_stream_from_a_body_callback_takes_a_pause_back() {
    let script = "response_body@more: continue_stream 1; response_body@more: pause";
    assert_eq!(chunks(script, THREE_BUFFERS), ["ab", "cd", "ef"]);
}

/// An upstream whose body comes in many buffers, with and without a length.
const LARGE: &str = r#"
    proxy_buffer_size 4k;
    proxy_buffers 4 4k;
    proxy_busy_buffers_size 4k;
    proxy_max_temp_file_size 0;
    proxy_pass http://unix:large.sock;"#;

fn large(script: &str, size: usize, framing: &str) -> Outcome {
    let server = format!(
        "server {{ listen unix:large.sock; location / {{ {framing} try_files /large =404; }} }}"
    );
    let run = Probe::new(script)
        .content(LARGE)
        .nginx(|nginx| nginx.http(&server).file("html/large", "x".repeat(size)))
        .run();
    assert_eq!(run.failures(), [""; 0]);
    run
}

const CHUNKED: &str = "header_filter_by_lua_block { ngx.header.content_length = nil }";

#[test]
fn a_large_upstream_body_passes() {
    for framing in ["", CHUNKED] {
        let run = large("response_body@eos: args", 300_000, framing);
        assert_eq!(run.response.body.len(), 300_000, "{framing}");
    }
}

#[test]
fn a_large_upstream_body_is_held() {
    for framing in ["", CHUNKED] {
        let script =
            "response_body@first: args; response_body@more: pause; response_body@eos: args";
        let run = large(script, 300_000, framing);
        assert_eq!(run.response.text(), "x".repeat(300_000), "{framing}");
        let lines = run.of("response_body");
        assert_ne!(lines[0], "args -> size=300000 eos=1", "{framing}");
        assert_eq!(
            lines.last().map(String::as_str),
            Some("args -> size=300000 eos=1"),
            "{framing}"
        );
    }
}

#[test]
fn no_more_than_a_cap_is_held() {
    const SIZE: usize = 17 * 1024 * 1024;
    let run = large(
        "response_body: pause; response_body@eos: args",
        SIZE,
        CHUNKED,
    );
    run.nginx.expect_log(
        r#"wasm plugin "probe": proxy_on_response_body: a filter wants to hold more of a response body than the host holds: it is passed on"#,
    );
    assert_eq!(run.response.body.len(), SIZE);
    assert!(run.response.body.iter().all(|&byte| byte == b'x'));
    let last = run.of("response_body").pop().unwrap_or_default();
    assert_ne!(last, format!("args -> size={SIZE} eos=1"));
}

const FIXED: &str =
    r#"content_by_lua_block { ngx.header["Content-Length"] = 5 ngx.print("hello") }"#;

#[test]
fn a_filter_that_changes_the_size_removes_the_length() {
    let script = "response_headers: remove_header_map_value 2 content-length
                  response_body: pause
                  response_body@eos: set_buffer_bytes 1 0 max 'good morning'";
    let run = respond(script, FIXED);
    assert_eq!(run.response.text(), "good morning");
    assert_eq!(run.response.header("content-length"), None);
    assert_eq!(run.response.header("transfer-encoding"), Some("chunked"));
}

const WARNING: &str = r#"wasm plugin "probe": proxy_on_response_body: the size of a response body changed after its Content-Length was sent"#;

#[test]
fn a_length_that_was_sent_and_does_not_fit_is_told_once() {
    for value in ["hi", "'good morning'"] {
        let script =
            format!("response_body: pause\nresponse_body@eos: set_buffer_bytes 1 0 max {value}");
        let nginx = Probe::new(&script).content(FIXED).start();
        nginx.expect_log(WARNING);
        for _ in 0..2 {
            let answer =
                nginx.raw("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            let text = String::from_utf8(answer).expect("text");
            assert!(text.contains("\r\nContent-Length: 5\r\n"), "{text}");
            assert!(
                text.ends_with(&format!("\r\n\r\n{}", value.trim_matches('\''))),
                "{text}"
            );
        }
        assert_eq!(nginx.log_texts(WARNING).len(), 1);
    }
}

#[test]
fn a_body_of_the_same_size_needs_no_warning() {
    let run = respond(
        "response_body: pause\nresponse_body@eos: set_buffer_bytes 1 0 max HELLO",
        FIXED,
    );
    assert_eq!(run.response.text(), "HELLO");
    assert_eq!(run.response.header("content-length"), Some("5"));
}

#[test]
fn answers_without_a_body_stay_so() {
    let script = "response_headers: args; response_body: set_buffer_bytes 1 0 0 more";
    let run = Probe::new(script)
        .content(FIXED)
        .request("HEAD", |request| request);
    assert_eq!((run.response.status, run.response.body.len()), (200, 0));
    assert!(run.of("response_headers")[0].ends_with(" eos=1"));
    for status in ["204", "304"] {
        let nginx = Probe::new(script)
            .content(&format!("content_by_lua_block {{ ngx.exit({status}) }}"))
            .start();
        let answer = nginx.raw("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        assert!(answer.ends_with(b"\r\n\r\n"), "{status}: {answer:?}");
    }
}

#[test]
fn abi_0_1_0_has_the_same_bodies() {
    let run = Probe::new(
        "request_body: set_buffer_bytes 0 0 max hi
         response_headers: remove_header_map_value 2 content-length
         response_body@more: pause
         response_body@eos: set_buffer_bytes 1 max 0 !",
    )
    .guest("probe_0_1_0")
    .request("POST", |request| request.body("hello"));
    assert!(run.response.text().ends_with("\r\n\r\nhi!"));
}
