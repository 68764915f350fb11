//! Response bodies as filters change them: what a client really receives.

use super::support::{Outcome, Probe};

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
    let expected = [(2, 0, "ab"), (4, 0, "abcd"), (6, 0, "abcdef"), (6, 1, "abcdef")];
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
    // Bytes past the length are dropped: a client would take them for its next response.
    for (script, body) in [
        ("response_body: pause; response_body@eos: set_buffer_bytes 1 0 max hi", "hi"),
        (
            "response_body: pause; response_body@eos: set_buffer_bytes 1 0 max 'good morning'",
            "good ",
        ),
        ("response_body@first: set_buffer_bytes 1 max 0 'HTTP/1.1 200 OK'", "hello"),
        ("response_body@first: set_buffer_bytes 1 0 0 abc", "abche"),
        ("response_body@eos: set_buffer_bytes 1 max 0 'HTTP/1.1 200 OK'", "hello"),
    ] {
        let nginx = Probe::new(script).content(FIXED).start();
        nginx.expect_log(WARNING);
        for _ in 0..2 {
            let answer =
                nginx.raw("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            let text = String::from_utf8(answer).expect("text");
            assert!(text.contains("\r\nContent-Length: 5\r\n"), "{text}");
            assert!(text.ends_with(&format!("\r\n\r\n{body}")), "{script}: {text}");
        }
        assert_eq!(nginx.log_texts(WARNING).len(), 1);
    }
}

#[test]
fn a_callback_that_fails_writes_nothing_past_the_length() {
    let script = "response_body@first: set_buffer_bytes 1 max 0 'HTTP/1.1 200 OK'; \
                  response_body@first: trap";
    let nginx = Probe::new(script).content(FIXED).start();
    nginx.expect_log(WARNING);
    nginx.expect_log("failed to run proxy_on_http_response_body");
    let answer = nginx.raw("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let text = String::from_utf8(answer).expect("text");
    assert!(text.contains("\r\nContent-Length: 5\r\n"), "{text}");
    assert!(text.ends_with("\r\n\r\nhello"), "{text}");
}

#[test]
fn a_body_of_the_same_size_needs_no_warning() {
    let run =
        respond("response_body: pause\nresponse_body@eos: set_buffer_bytes 1 0 max HELLO", FIXED);
    assert_eq!(run.response.text(), "HELLO");
    assert_eq!(run.response.header("content-length"), Some("5"));
}

#[test]
fn answers_without_a_body_stay_so() {
    let script = "response_headers: args; response_body: set_buffer_bytes 1 0 0 more";
    let run = Probe::new(script).content(FIXED).request("HEAD", |request| request);
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
