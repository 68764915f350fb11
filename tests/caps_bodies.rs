//! The caps of bodies, each from both sides.

use crate::world::{Probe, Stream};
use resty_proxy_wasm::abi::Callback;
use resty_proxy_wasm::guest::Output;
use resty_proxy_wasm::limits;
use resty_proxy_wasm::vm::Options;

fn failure(stream: &Stream, callback: Callback, chunk: &[u8]) -> String {
    stream.run(callback, chunk, false).expect_err("a failure").to_string()
}

#[test]
fn held_bodies() {
    let probe = Probe::new("response_body@more: pause");
    let stream = probe.open();
    let half = vec![b'x'; limits::HELD_BODY / 2];
    assert_eq!(stream.response_body(&half, false).body, Output::Hold);
    assert_eq!(stream.response_body(&half, false).body, Output::Hold);
    assert_eq!(
        failure(&stream, Callback::ResponseBody, b"!"),
        "the filter holds the response body, and it is larger than body_limit (16777216 bytes)"
    );
}

#[test]
fn the_largest_body_limit() {
    let options = Options { body_limit: usize::MAX, ..Options::new("probe") };
    let stream = Probe::with(options, "request_body: pause").open();
    let most = vec![b'x'; limits::MAX_HELD_BODY];
    assert_eq!(stream.request_body(&most, false).body, Output::Hold);
    assert_eq!(
        failure(&stream, Callback::RequestBody, b"!"),
        "the filter holds the request body, and it is larger than body_limit (134217728 bytes)"
    );
}

#[test]
fn what_a_filter_makes_of_a_body() {
    let probe = Probe::new(
        "request_body: set_buffer_bytes 0 max 0 x; request_body: set_buffer_bytes 0 0 max y",
    );
    let stream = probe.open();
    let whole = vec![b'x'; limits::BODY];
    assert_eq!(stream.request_body(&whole, true).body, Output::Replace(b"y".to_vec()));
    assert_eq!(probe.answers(), ["10", "0"]);
    assert_eq!(
        probe.warned(),
        ["proxy_on_request_body: the body would pass the limit of what a filter may make of it"]
    );
}

/// Pieces of a request body that passed, as the documented call takes them.
fn passed(stream: &Stream, size: usize) {
    const PIECE: usize = 16 * 1024 * 1024;
    for _ in 0..size / PIECE {
        assert_eq!(stream.request_body(&vec![b'x'; PIECE], false).body, Output::Unchanged);
    }
}

fn kept(stream: &Stream) -> usize {
    let size = stream.context.with_stream(stream.at, |vm| {
        Ok(vm.state().contexts.streams.get(&stream.at.id).expect("it").request_passed.len())
    });
    size.expect("a VM")
}

#[test]
fn what_is_kept_of_a_request_body_that_passed() {
    let probe = Probe::new("request_body@eos: set_buffer_bytes 0 0 0 more");
    let stream = probe.open();
    passed(&stream, limits::BODY);
    assert_eq!(kept(&stream), limits::BODY);
    assert_eq!(stream.request_body(b"!", false).body, Output::Unchanged);
    assert_eq!(kept(&stream), 0, "no more than the cap is kept");
    passed(&stream, limits::BODY);
    assert_eq!(kept(&stream), 0);
    // What passed cannot be written before a change any more.
    assert_eq!(stream.request_body(b"end", true).body, Output::Unchanged);
    assert_eq!(probe.answers(), ["10"]);
    assert_eq!(
        probe.warned(),
        ["proxy_on_request_body: the body would pass the limit of what a filter may make of it"]
    );
}

#[test]
fn a_request_body_that_was_changed_and_is_too_large() {
    let too_large = "the filter changed the request body, and it is larger than 134217728 bytes";
    let edit = "request_body@first: set_buffer_bytes 0 0 1 X";
    let stream = Probe::new(edit).open();
    passed(&stream, limits::BODY);
    assert_eq!(failure(&stream, Callback::RequestBody, b"!"), too_large);
    let options = Options { fail_open: true, ..Options::new("probe") };
    let stream = Probe::with(options, edit).open();
    passed(&stream, limits::BODY);
    assert_eq!(failure(&stream, Callback::RequestBody, b"!"), too_large);
    assert_eq!(stream.request_body(b"end", true).body, Output::Unchanged);
}
