//! Bodies that wait: what another plugin context reads and changes of them, and local responses meanwhile.

use crate::bodies::{limited, replace};
use crate::world::{Probe, Stream};
use resty_proxy_wasm::abi::Callback;
use resty_proxy_wasm::error::Error;
use resty_proxy_wasm::event::Action;
use resty_proxy_wasm::guest::Output;
use resty_proxy_wasm::limits;

/// Runs ops in another plugin context, with the stream as the effective context. Returns the answers.
fn elsewhere(probe: &Probe, stream: &Stream, ops: &str) -> Vec<String> {
    probe.said();
    let mut script = format!("request_headers: set_effective_context {}\n", stream.at.id);
    ops.split("; ").for_each(|op| script += &format!("request_headers: {op}\n"));
    let context = probe.filter.context(&script);
    probe.filter.open(&context).request_headers();
    probe.answers().split_off(1)
}

#[test]
fn a_request_body_that_waits_is_read_and_changed_from_elsewhere() {
    for piecewise in [true, false] {
        for (script, op, replaced, same) in [
            ("request_body: pause", "set_buffer_bytes 0 0 max new", "new", "ab"),
            ("request_body: pause", "set_buffer_bytes 0 1 0 -", "a-b", "ab"),
            (
                "request_body: set_buffer_bytes 0 0 0 .; request_body: pause",
                "set_buffer_bytes 0 max 0 .",
                ".ab.",
                ".ab",
            ),
        ] {
            for op in [Some(op), None] {
                let probe = Probe::new(script);
                let stream = probe.open();
                let answer = match piecewise {
                    true => stream.request_piece(b"ab", true),
                    false => stream.request_body(b"ab", true),
                };
                assert_eq!((answer.action, answer.body), (Action::Pause, Output::Hold));
                let ops =
                    format!("get_buffer_bytes 0 0 max; {}", op.unwrap_or("continue_stream 0"));
                let answers = elsewhere(&probe, &stream, &ops);
                assert_eq!(answers, [format!("0 {same}").as_str(), "0"], "{script}");
                elsewhere(&probe, &stream, "continue_stream 0");
                let resumed = stream.resumed().expect("an answer");
                let wanted = match (op, same) {
                    (Some(_), _) => replace(replaced.as_bytes()),
                    (None, "ab") if piecewise => Output::Pass(b"ab".to_vec()),
                    (None, "ab") => Output::Unchanged,
                    (None, same) => replace(same.as_bytes()),
                };
                assert_eq!((resumed.action, resumed.body), (Action::Continue, wanted), "{script}");
                assert_eq!(
                    elsewhere(
                        &probe,
                        &stream,
                        "get_buffer_bytes 0 0 max; set_buffer_bytes 0 0 0 x"
                    ),
                    ["1", "2"],
                    "it went on"
                );
            }
        }
    }
}

#[test]
fn pieces_that_are_held_are_changed_from_elsewhere() {
    let probe = Probe::new("request_body,response_body@more: pause; *@eos: ids");
    let stream = probe.open();
    stream.request_piece(b"ab", false);
    let ops = "get_buffer_status 0; set_buffer_bytes 0 0 max X";
    assert_eq!(elsewhere(&probe, &stream, ops), ["0 2 0", "0"]);
    assert_eq!(stream.request_piece(b"cd", true).body, replace(b"Xcd"));
    stream.response_body(b"ab", false);
    let ops = "get_buffer_status 1; set_buffer_bytes 1 0 max Y";
    assert_eq!(elsewhere(&probe, &stream, ops), ["0 2 0", "0"]);
    assert_eq!(stream.response_body(b"cd", true).body, replace(b"Ycd"));
}

#[test]
fn what_others_make_of_a_held_body_is_counted() {
    let probe = Probe::new("request_body: pause");
    let stream = probe.open();
    let held = || stream.context.with_stream(stream.at, |vm| Ok(vm.state().contexts.held));
    stream.request_body(b"ab", true);
    assert_eq!(held(), Ok(2));
    elsewhere(&probe, &stream, "set_buffer_bytes 0 0 max hello");
    assert_eq!(held(), Ok(5));
    stream
        .context
        .with_stream(stream.at, |vm| {
            vm.state_mut().contexts.held = limits::HELD_BODIES;
            Ok(())
        })
        .expect("a VM");
    assert_eq!(elsewhere(&probe, &stream, "set_buffer_bytes 0 0 0 x"), ["10"]);
    assert_eq!(probe.warned().len(), 1);
}

#[test]
fn a_local_response_cuts_a_response_that_was_begun() {
    let deny = "send_local_response 403 why no '' -1";
    let cut = r#"wasm plugin "probe": the filter answered with 403 when the headers of the response were sent"#;
    let probe = Probe::new(&format!("response_body@eos: {deny}; response_body@more: pause"));
    let stream = probe.open();
    stream.response_headers(&[]);
    assert_eq!(stream.response_body(b"secret", false).body, Output::Hold);
    for _ in 0..2 {
        let error = stream.run(Callback::ResponseBody, b"!", true).expect_err("an end");
        assert_eq!(error, Error::Cut(cut.into()));
    }
    assert_eq!(probe.answers(), ["1", "0"], "told once");
    // From elsewhere, while the body is on its way.
    let probe = Probe::new("response_body@more: pause");
    let stream = probe.open();
    stream.response_headers(&[]);
    stream.response_body(b"secret", false);
    assert_eq!(elsewhere(&probe, &stream, &format!("{deny}; {deny}")), ["0", "2"]);
    let error = stream.run(Callback::ResponseBody, b"!", true).expect_err("an end");
    assert_eq!(error, Error::Cut(cut.into()));
    assert_eq!(probe.warned().len(), 1);
    // Too late: all of it went out.
    let probe = Probe::new("");
    let stream = probe.open();
    stream.response_headers(&[]);
    stream.response_body(b"public", true);
    assert_eq!(elsewhere(&probe, &stream, deny), ["2"]);
    assert_eq!(probe.warned().len(), 1);
}

#[test]
fn the_end_of_a_response_does_not_go_out_before_what_it_waits_for() {
    let whats = [
        ("response_body@eos: http_call up :path=/ '' '' 1000", "a call"),
        ("configure: http_call up :path=/ '' '' 1000", "a call"),
        ("configure: set_tick_period_milliseconds 1000", "a tick or a message"),
        ("configure: register_shared_queue q", "a tick or a message"),
    ];
    let outputs = [(false, Output::Hold), (true, replace(b"abcd"))];
    for ((what, named), (fail_open, output)) in
        whats.iter().flat_map(|what| outputs.iter().map(move |output| (what, output)))
    {
        let script = &format!("{what}; response_body: pause");
        let probe = limited(100, *fail_open, script);
        let stream = probe.open();
        stream.response_body(b"ab", false);
        let error = stream.run(Callback::ResponseBody, b"cd", true).expect_err("it cannot wait");
        let text = format!("pauses the end of the response body to wait for {named}, which");
        assert!(error.to_string().contains(&text), "{error}");
        assert_eq!(matches!(error, Error::Cut(_)), !fail_open);
        let left = stream.context.with_stream(stream.at, |vm| {
            let stream = vm.state_mut().contexts.streams.get_mut(&stream.at.id);
            Ok(stream.expect("the stream").response_body.rescue())
        });
        assert_eq!(left.as_ref(), Ok(output));
    }
}
