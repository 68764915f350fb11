//! Bodies: what a filter is shown of them, and what is passed on.

use crate::world::{Probe, Request, Stream};
use resty_proxy_wasm::abi::{Attribute, Callback};
use resty_proxy_wasm::event::Action;
use resty_proxy_wasm::guest::Output;
use resty_proxy_wasm::vm::Options;

pub(crate) fn replace(bytes: &[u8]) -> Output {
    Output::Replace(bytes.to_vec())
}

/// What was passed on of response body chunks, the last of them being the end.
fn response(script: &str, chunks: &[&str]) -> (Probe, Vec<Output>) {
    let probe = Probe::new(script);
    let stream = probe.open();
    let last = chunks.len() - 1;
    let outputs = chunks
        .iter()
        .enumerate()
        .map(|(index, chunk)| stream.response_body(chunk.as_bytes(), index == last).body)
        .collect();
    (probe, outputs)
}

#[test]
fn a_body_that_no_filter_changes_passes_unchanged() {
    let (probe, outputs) = response("response_body: get_buffer_bytes 1 0 max", &["ab", "", "cd"]);
    assert_eq!(outputs, [Output::Unchanged, Output::Unchanged, Output::Unchanged]);
    assert_eq!(probe.answers(), ["0 ab", "0 ''", "0 cd"]);
}

#[test]
fn reading_follows_start_and_size() {
    for (start, size, answer) in [
        ("0", "5", "0 hello"),
        ("0", "max", "0 hello"),
        ("0", "99", "0 hello"),
        ("1", "3", "0 ell"),
        ("2", "max", "2"),
        ("5", "1", "0 ''"),
        ("5", "max", "2"),
        ("6", "1", "0 ''"),
        ("99", "99", "0 ''"),
        ("max", "1", "0 ''"),
        ("max", "max", "0 ''"),
        ("0", "0", "0 ''"),
        ("2", "0xfffffffe", "2"),
    ] {
        let script = format!("response_body: get_buffer_bytes 1 {start} {size}");
        let (probe, _) = response(&script, &["hello"]);
        assert_eq!(probe.answers(), [answer], "{start} {size}");
    }
}

#[test]
fn writing_follows_start_and_size() {
    for (start, size, result) in [
        ("0", "0", "-hello"),
        ("0", "5", "-"),
        ("0", "99", "-"),
        ("0", "max", "-"),
        ("5", "0", "hello-"),
        ("99", "max", "hello-"),
        ("max", "max", "hello-"),
        ("1", "0", "h-ello"),
        ("1", "3", "h-o"),
        ("3", "max", "hel-"),
        ("0", "1", "-ello"),
    ] {
        let script = format!("response_body: set_buffer_bytes 1 {start} {size} -");
        let (probe, outputs) = response(&script, &["hello"]);
        assert_eq!(probe.answers(), ["0"]);
        assert_eq!(outputs, [replace(result.as_bytes())], "{start} {size}");
    }
}

#[test]
fn several_writes_and_reads_in_one_callback() {
    let (probe, outputs) = response(
        "response_body: set_buffer_bytes 1 0 0 <; response_body: set_buffer_bytes 1 99 0 >
         response_body: get_buffer_bytes 1 0 99; response_body: get_buffer_status 1
         response_body: set_buffer_bytes 1 0 max ''; response_body: get_buffer_status 1
         response_body: set_buffer_bytes 1 0 0 end",
        &["ab"],
    );
    assert_eq!(probe.answers(), ["0", "0", "0 <ab>", "0 4 0", "0", "0 0 0", "0"]);
    assert_eq!(outputs, [replace(b"end")]);
}

#[test]
fn a_body_may_vanish_and_appear() {
    let (_, outputs) = response("response_body: set_buffer_bytes 1 0 max ''", &["ab", "cd"]);
    assert_eq!(outputs, [replace(b""), replace(b"")]);
    let (_, outputs) = response("response_body@eos: set_buffer_bytes 1 0 0 end", &["ab", ""]);
    assert_eq!(outputs, [Output::Unchanged, replace(b"end")]);
}

#[test]
fn pause_holds_chunks_until_the_filter_continues() {
    let (probe, outputs) = response(
        "response_body: args; response_body@first: pause; response_body: get_buffer_bytes 1 0 max",
        &["ab", "cd", "ef"],
    );
    assert_eq!(outputs, [Output::Hold, replace(b"abcd"), Output::Unchanged]);
    assert_eq!(
        probe.answers(),
        ["size=2 eos=0", "1", "0 ab", "size=4 eos=0", "0 abcd", "size=2 eos=1", "0 ef"]
    );
}

#[test]
fn what_was_changed_while_held_stays_changed() {
    let (_, outputs) = response(
        "response_body@more: pause; response_body@first: set_buffer_bytes 1 0 max A
         response_body@eos: set_buffer_bytes 1 99 0 !",
        &["ab", "cd", ""],
    );
    assert_eq!(outputs, [Output::Hold, Output::Hold, replace(b"Acd!")]);
}

#[test]
fn the_end_sends_what_is_held_whatever_the_filter_answers() {
    for answer in ["pause", "return 2", "return 3", "return 4", "return -1"] {
        let (_, outputs) = response(&format!("response_body: {answer}"), &["ab", "cd"]);
        assert_eq!(outputs, [Output::Hold, replace(b"abcd")], "{answer}");
    }
}

#[test]
fn bodies_are_there_in_their_own_callbacks_only() {
    let probe = Probe::new(
        "request_headers,response_headers,log: get_buffer_bytes 0 0 9
         request_headers,response_headers,log: set_buffer_bytes 1 0 0 x
         request_body: get_buffer_status 1; request_body: set_buffer_bytes 1 0 0 x
         response_body: get_buffer_status 0; response_body: set_buffer_bytes 0 0 0 x",
    );
    let stream = probe.open();
    stream.request_headers();
    assert_eq!(probe.answers(), ["1", "2"]);
    stream.request_body(b"a", true);
    assert_eq!(probe.answers(), ["1", "2"]);
    stream.response_headers(&[]);
    assert_eq!(probe.answers(), ["1", "2"]);
    stream.response_body(b"b", true);
    assert_eq!(probe.answers(), ["1", "2"]);
    stream.end().expect("an end");
    assert_eq!(probe.answers(), ["1", "2"]);
}

#[test]
fn buffers_of_other_kinds_are_missing_and_never_written() {
    let script = (2..=10)
        .flat_map(|kind| {
            ["get_buffer_bytes", "get_buffer_status", "set_buffer_bytes"]
                .map(|op| format!("response_body: {op} {kind} 0 9 x"))
        })
        .collect::<Vec<_>>()
        .join("\n");
    let (probe, outputs) = response(&script, &["ab"]);
    let answers = probe.answers();
    let of_kind: Vec<&[String]> = answers.chunks(3).collect();
    let length = format!("0 {} 0", script.len());
    for (kind, wanted) in (2..=10).zip([
        ["1", "1", "2"],
        ["1", "1", "2"],
        ["1", "1", "2"],
        ["1", "1", "2"],
        ["0 ''", "0 0 0", "2"],
        ["0 response_", &length, "2"],
        ["1", "1", "2"],
        ["1", "1", "2"],
        ["2", "2", "2"],
    ]) {
        assert_eq!(of_kind[kind - 2], wanted, "buffer {kind}");
    }
    assert_eq!(outputs, [Output::Unchanged]);
}

/// What came of request body chunks: whether the filter was waited for, and the body.
fn request(script: &str, chunks: &[&str]) -> Vec<(Action, Output)> {
    let probe = Probe::new(script);
    let stream = probe.open();
    let last = chunks.len() - 1;
    let outputs = chunks.iter().enumerate().map(|(index, chunk)| {
        let answer = stream.request_body(chunk.as_bytes(), index == last);
        (answer.action, answer.body)
    });
    outputs.collect()
}

#[test]
fn a_changed_request_body_is_sent_whole_with_its_last_chunk() {
    let go = |body| (Action::Continue, body);
    for (script, chunks, wanted) in [
        ("", &["ab", "cd"][..], vec![go(Output::Unchanged), go(Output::Unchanged)]),
        (
            "request_body@first: set_buffer_bytes 0 0 max X",
            &["ab", "cd", "ef"],
            vec![go(Output::Unchanged), go(Output::Unchanged), go(replace(b"Xcdef"))],
        ),
        (
            "request_body@eos: set_buffer_bytes 0 0 max X",
            &["ab", "cd"],
            vec![go(Output::Unchanged), go(replace(b"abX"))],
        ),
        (
            "request_body@more: pause; request_body@eos: set_buffer_bytes 0 0 max X",
            &["ab", "cd"],
            vec![go(Output::Hold), go(replace(b"X"))],
        ),
        ("request_body@more: pause", &["ab", "cd"], vec![go(Output::Hold), go(Output::Unchanged)]),
        ("request_body: set_buffer_bytes 0 0 max ''", &["ab"], vec![go(replace(b""))]),
    ] {
        assert_eq!(request(script, chunks), wanted, "{script}");
    }
}

#[test]
fn pause_with_the_last_chunk_holds_the_request() {
    let answers = request("request_body: pause", &["ab", "cd"]);
    assert_eq!(answers, [(Action::Continue, Output::Hold), (Action::Pause, Output::Hold)]);
}

fn respond(stream: &Stream, headers: &[(&str, &str)], chunk: &str) {
    stream.response_headers(headers);
    if let Some((_, length)) = headers.iter().find(|(name, _)| *name == "content-length") {
        stream.host.with(stream.request, |r| {
            r.set_attribute(Attribute::ResponseContentLength, length.as_bytes())
        });
    }
    stream.response_body(chunk.as_bytes(), true);
}

#[test]
fn a_changed_length_is_told_once() {
    let warning = "proxy_on_response_body: the size of a response body changed after its Content-Length was sent; \
                   remove the header content-length in proxy_on_response_headers";
    let probe = Probe::new("response_body: set_buffer_bytes 1 0 max longer");
    respond(&probe.open(), &[], "x");
    respond(&probe.open(), &[("content-length", "6")], "sixsix");
    assert_eq!(probe.warned(), [""; 0]);
    respond(&probe.open(), &[("content-length", "1")], "x");
    respond(&probe.open(), &[("content-length", "1")], "x");
    assert_eq!(probe.warned(), [warning]);
}

#[test]
fn a_filter_without_the_callback_is_not_in_the_way() {
    let world = crate::world::sim_host();
    let filter = crate::world::Filter::new(&world, &crate::world::guest("bare.wat"));
    let stream = filter.open_for(&filter.context(""), Request::default());
    assert_eq!(stream.request_body(b"x", true).body, Output::Unchanged);
    assert_eq!(stream.response_body(b"x", true).body, Output::Unchanged);
}

/// What was passed on of the pieces of a request body, each taken at once.
fn pieces(script: &str, pieces: &[&str]) -> Vec<Output> {
    let probe = Probe::new(script);
    let stream = probe.open();
    let last = pieces.len() - 1;
    let outputs = pieces.iter().enumerate();
    outputs
        .map(|(index, piece)| stream.request_piece(piece.as_bytes(), index == last).body)
        .collect()
}

#[test]
fn pieces_of_a_request_body_are_sent_one_by_one() {
    let unchanged = || Output::Unchanged;
    assert_eq!(
        pieces("request_body: get_buffer_bytes 0 0 max", &["ab", "cd"]),
        [unchanged(), unchanged()]
    );
    let pass = |bytes: &str| Output::Pass(bytes.into());
    assert_eq!(
        pieces("request_body@more: pause", &["ab", "cd", "ef"]),
        [Output::Hold, Output::Hold, pass("abcdef")]
    );
    assert_eq!(
        pieces("request_body@first: pause", &["ab", "cd", "ef"]),
        [Output::Hold, pass("abcd"), unchanged()]
    );
    assert_eq!(
        pieces("request_body@first: set_buffer_bytes 0 0 0 .", &["ab", "cd"]),
        [replace(b".ab"), unchanged()]
    );
    assert_eq!(
        pieces("request_body@eos: set_buffer_bytes 0 0 max ''", &["ab", "cd"]),
        [unchanged(), replace(b"")]
    );
    let held = "request_body@more: pause; request_body@eos: set_buffer_bytes 0 1 1 -";
    assert_eq!(pieces(held, &["ab", "cd"]), [Output::Hold, replace(b"a-cd")]);
    let early = "request_body@more: pause; request_body@first: set_buffer_bytes 0 1 1 -";
    assert_eq!(pieces(early, &["ab", "cd"]), [Output::Hold, replace(b"a-cd")]);
}

pub(crate) fn limited(body_limit: usize, fail_open: bool, script: &str) -> Probe {
    Probe::with(Options { body_limit, fail_open, ..Options::new("probe") }, script)
}

const TOO_LARGE: [&str; 2] = [
    "the filter holds the request body, and it is larger than body_limit (4 bytes)",
    "the filter holds the response body, and it is larger than body_limit (4 bytes)",
];

#[test]
fn a_body_that_is_held_and_too_large_is_shown_no_more() {
    for (callback, text) in [Callback::RequestBody, Callback::ResponseBody].iter().zip(TOO_LARGE) {
        let probe = limited(
            4,
            false,
            "request_body,response_body: args; request_body,response_body: pause",
        );
        let stream = probe.open();
        let run = |chunk: &[u8], end| stream.run(*callback, chunk, end);
        assert_eq!(run(b"abcd", false).expect("an answer").body, Output::Hold);
        assert_eq!(run(b"e", false).expect_err("no room").to_string(), text);
        assert_eq!(probe.said().len(), 4);
        for (chunk, end) in [(&b"f"[..], false), (b"", false), (b"ghi", true)] {
            let error = run(chunk, end).expect_err("no more").to_string();
            assert!(error.ends_with(text), "{error}");
        }
        assert_eq!(probe.said(), [""; 0], "no part of it looks like a whole");
    }
}

#[test]
fn a_filter_that_fails_open_lets_the_rest_pass() {
    let probe = limited(4, true, "request_body,response_body@more: pause");
    for callback in [Callback::RequestBody, Callback::ResponseBody] {
        let stream = probe.open();
        stream.run(callback, b"abcd", false).expect("an answer");
        stream.run(callback, b"e", false).expect_err("no room");
        probe.said();
        let rest = stream.run(callback, b"f", true).expect("an answer");
        assert_eq!((rest.action, rest.body), (Action::Continue, Output::Unchanged));
        assert_eq!(probe.said(), [""; 0]);
    }
}

#[test]
fn what_is_not_held_may_be_of_any_size() {
    let probe = limited(4, false, "request_body@eos: get_buffer_bytes 0 0 max");
    let stream = probe.open();
    for (chunk, end) in [(&b"hello"[..], false), (b"world!", true)] {
        assert_eq!(stream.request_body(chunk, end).action, Action::Continue);
        stream.response_body(chunk, end);
    }
    assert_eq!(probe.answers(), ["0 world!"]);
    // The end of a body is held with a pause.
    let probe = limited(4, false, "request_body: pause");
    let error = probe.open().run(Callback::RequestBody, b"hello", true).expect_err("no room");
    assert_eq!(error.to_string(), TOO_LARGE[0]);
    assert_eq!(probe.open().request_body(b"four", true).action, Action::Pause);
}
