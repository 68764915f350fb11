//! Requests that wait for their filter, and what lets them continue.

use crate::world::{Probe, Stream};
use resty_proxy_wasm::event::Action;

/// A stream that waits, with its waker.
fn paused(probe: &Probe, waker: usize) -> Stream {
    let stream = probe.open();
    assert_eq!(stream.request_headers().action, Action::Pause);
    stream.wait(waker);
    stream
}

/// Runs a script of another plugin context of the same plugin, on a stream of its own.
fn meanwhile(probe: &Probe, script: &str) -> Stream {
    let context = probe.filter.context(script);
    let stream = probe.filter.open(&context);
    stream.request_headers();
    stream
}

fn on(stream: &Stream, ops: &str) -> String {
    let mut script = format!("request_headers: set_effective_context {}\n", stream.at.id);
    for op in ops.split("; ") {
        script += &format!("request_headers: {op}\n");
    }
    script
}

fn action(stream: &Stream) -> Action {
    stream.resumed().expect("an answer").action
}

#[test]
fn every_value_but_0_pauses() {
    for (value, wanted) in [
        ("0", Action::Continue),
        ("1", Action::Pause),
        ("2", Action::Pause),
        ("3", Action::Pause),
        ("4", Action::Pause),
        ("-1", Action::Pause),
    ] {
        let probe = Probe::new(&format!("request_headers: return {value}"));
        assert_eq!(probe.open().request_headers().action, wanted, "{value}");
    }
}

#[test]
fn another_stream_resumes_it() {
    let probe = Probe::new("request_headers: pause");
    let (one, two) = (paused(&probe, 11), paused(&probe, 22));
    meanwhile(&probe, &on(&two, "continue_stream 0"));
    assert_eq!(probe.filter.host.woken(), [22]);
    assert_eq!(action(&two), Action::Continue);
    meanwhile(&probe, &on(&one, "continue_stream 1"));
    assert_eq!(probe.filter.host.woken(), [11]);
    assert_eq!(action(&one), Action::Continue);
    meanwhile(&probe, &on(&one, "continue_stream 0"));
    assert_eq!(probe.filter.host.woken(), [0; 0], "not paused: harmless");
}

#[test]
fn a_caller_that_gives_up_ends_the_pause() {
    let probe = Probe::new("request_headers: pause");
    let stream = paused(&probe, 1);
    assert_eq!([action(&stream), action(&stream)], [Action::Pause, Action::Continue]);
    meanwhile(&probe, &on(&stream, "continue_stream 0"));
    assert_eq!(probe.filter.host.woken(), [0; 0]);
}

#[test]
fn the_first_abi_has_a_function_for_each_direction() {
    for op in ["continue_request", "continue_response"] {
        let probe = Probe::of("probe_0_1_0.wasm", "request_headers: pause");
        let stream = paused(&probe, 7);
        meanwhile(&probe, &on(&stream, op));
        assert_eq!(probe.filter.host.woken(), [7]);
        assert_eq!(action(&stream), Action::Continue);
    }
}

#[test]
fn a_resume_in_the_same_callback_is_no_pause() {
    let probe = Probe::new("request_headers: continue_stream 0; request_headers: pause");
    assert_eq!(probe.open().request_headers().action, Action::Continue);
    assert_eq!(probe.filter.host.woken(), [0; 0]);
}

#[test]
fn streams_that_do_not_exist_here() {
    let probe = Probe::new(
        "request_headers: continue_stream 2; request_headers: continue_stream 3
         request_headers: continue_stream 4; request_headers: pause; configure: continue_stream 0",
    );
    assert_eq!(probe.open().request_headers().action, Action::Pause);
    assert_eq!(probe.answers(), ["0", "0", "0", "2", "1"]);
}

#[test]
fn a_local_response_ends_the_wait() {
    let probe = Probe::new("request_headers: pause");
    let stream = paused(&probe, 5);
    meanwhile(
        &probe,
        &on(&stream, "send_local_response 403 '' no '' -1; send_local_response 500 '' '' '' -1"),
    );
    assert_eq!(probe.answers()[2..], ["0", "2"]);
    assert_eq!(
        probe.warned(),
        ["proxy_on_request_headers: a second local response on one stream is refused"]
    );
    assert_eq!(probe.filter.host.woken(), [5]);
    let answer = stream.resumed().expect("an answer");
    assert_eq!(
        (answer.action, answer.effects),
        (Action::Respond, vec!["answer 403 [] no".to_string()])
    );
}

#[test]
fn closing_ends_the_wait() {
    let probe = Probe::new("request_headers: pause");
    let stream = paused(&probe, 5);
    meanwhile(&probe, &on(&stream, "close_stream 0"));
    assert_eq!(probe.filter.host.woken(), [5]);
    assert_eq!(action(&stream), Action::Close);
}

#[test]
fn headers_of_a_waiting_request_can_be_changed() {
    let probe = Probe::new("request_headers: add_header_map_value 0 a 1; request_headers: pause");
    let stream = probe.open();
    assert_eq!(stream.request_headers().effects, ["add request a: 1"]);
    meanwhile(
        &probe,
        &on(&stream, "add_header_map_value 0 b 2; add_header_map_value 2 c 3; continue_stream 0"),
    );
    assert_eq!(
        probe.warned(),
        ["proxy_on_request_headers: a change of the response headers came too early or too late"]
    );
    let answer = stream.resumed().expect("an answer");
    assert_eq!(
        (answer.action, answer.effects),
        (Action::Continue, vec!["add request b: 2".to_string()])
    );
}

#[test]
fn a_stream_that_is_not_paused_is_only_answered_from_outside() {
    let probe = Probe::new("");
    let stream = probe.open();
    stream.request_headers();
    meanwhile(
        &probe,
        &on(&stream, "add_header_map_value 0 b 2; send_local_response 403 '' '' '' -1"),
    );
    assert_eq!(probe.answers(), ["0", "2", "0"]);
    assert_eq!(
        probe.warned(),
        [
            "proxy_on_request_headers: a change of the request headers came too late: the request has gone on",
        ]
    );
    // It takes the place of the response, which the guest is not told of.
    let answer = stream.response_headers(&[]);
    assert_eq!(answer.action, Action::Respond);
    assert_eq!(answer.effects, ["answer 403 [direct] "]);
}

#[test]
fn the_body_may_hold_and_release_too() {
    let probe = Probe::new("request_body: pause");
    let stream = probe.open();
    assert_eq!(stream.request_body(b"x", true).action, Action::Pause);
    stream.wait(3);
    meanwhile(&probe, &on(&stream, "continue_stream 0"));
    assert_eq!(probe.filter.host.woken(), [3]);
    assert_eq!(action(&stream), Action::Continue);
}

#[test]
fn response_headers_cannot_wait() {
    let probe = Probe::new("response_headers: pause");
    assert_eq!(probe.open().response_headers(&[]).action, Action::Continue);
    assert_eq!(probe.open().response_headers(&[]).action, Action::Continue);
    assert_eq!(
        probe.warned(),
        [
            "proxy_on_response_headers: Pause on response headers is not possible: the response continues \
          (hold the body instead)"
        ]
    );
}

#[test]
fn a_waiting_stream_may_end() {
    let probe = Probe::new("request_headers: pause; done: ids");
    let stream = paused(&probe, 9);
    probe.said();
    stream.end().expect("an end");
    assert_eq!(probe.said(), ["done ids -> id=2 root=1"]);
    assert_eq!(probe.filter.host.woken(), [0; 0]);
    assert_eq!(action(&stream), Action::Continue);
}

/// What the last of two pieces of the body answers when the headers are held.
fn held(body: &str) -> (Probe, Stream, Action) {
    let probe = Probe::new(&format!("request_headers: pause; {body}"));
    let stream = probe.open();
    assert_eq!(stream.request_headers().action, Action::Pause);
    assert_eq!(stream.request_piece(b"ab", false).action, Action::Continue);
    let action = stream.request_piece(b"cd", true).action;
    (probe, stream, action)
}

#[test]
fn held_headers_continue_when_the_body_was_seen() {
    for (body, action) in [
        ("request_body: get_buffer_bytes 0 0 max", Action::Continue),
        ("request_body@first: get_buffer_status 0", Action::Continue),
        ("request_body@eos: add_header_map_value 0 a 1", Action::Continue),
        ("request_body@first: continue_stream 0", Action::Continue),
        ("request_body@eos: continue_stream 0; request_body: pause", Action::Continue),
        ("request_body@eos: send_local_response 403 '' '' '' -1", Action::Respond),
        ("request_body@eos: close_stream 0", Action::Close),
        ("request_body@first: get_buffer_bytes 0 0 max; request_body: pause", Action::Pause),
        ("request_body: get_buffer_bytes 0 0 max; request_body@more: pause", Action::Continue),
        // It did nothing but log, which the probe always does.
        ("request_body: args", Action::Pause),
        ("request_body: stdout hello", Action::Pause),
        ("log: ids", Action::Pause),
    ] {
        let (_probe, stream, answered) = held(body);
        assert_eq!(answered, action, "{body}");
        if answered == Action::Pause {
            stream.wait(7);
        }
    }
}

#[test]
fn held_headers_wait_for_a_call_whatever_the_body_callback_says() {
    let call = "http_call upstream '' '' '' 1000";
    for body in [
        format!("request_body: {call}"),
        format!("request_headers: {call}; request_body: get_buffer_bytes 0 0 max"),
    ] {
        let (_probe, _stream, action) = held(&body);
        assert_eq!(action, Action::Pause, "{body}");
    }
    // Calls that others made are no matter of this stream.
    let others = format!("configure: {call}; request_body: get_buffer_bytes 0 0 max");
    assert_eq!(held(&others).2, Action::Continue);
}
