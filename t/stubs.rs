//! Host functions that find nothing to work on: what they answer, and that the guest continues.

use super::ops::{Ops, check, check_with};
use super::support::Probe;
use resty_proxy_wasm::abi::{HOST_FUNCTIONS, Support};

/// Streams of gRPC that there are none of.
const ANSWERS: Ops<'static> = &[
    ("grpc_send 1 message 0", "1"),
    ("grpc_send max message 1", "1"),
    ("grpc_cancel 1", "1"),
    ("grpc_close 1", "1"),
];

/// Not stubs, but with nothing to call where no function is registered. ABI 0.1.0 does not have them.
const SINCE_0_2: Ops<'static> =
    &[("call_foreign_function name arguments", "1"), ("call_foreign_function '' ''", "1")];

/// The same while there are no calls.
const NO_CALL: Ops<'static> = &[("get_status", "0 0 ''"), ("done", "1")];

fn answers(guest: &str, callback: &str, ops: Ops<'_>) {
    let run = check_with(callback, ops, |probe| probe.guest(guest));
    assert_eq!(run.response.status, 200);
    assert_eq!(run.failures(), [""; 0]);
}

#[test]
fn in_a_request() {
    let all = [ANSWERS, SINCE_0_2, NO_CALL].concat();
    answers("probe", "request_headers", &all);
    answers("probe", "response_headers", &all);
    answers("probe", "log", &all);
}

#[test]
fn in_the_plugin_context() {
    let all = [ANSWERS, SINCE_0_2, NO_CALL].concat();
    answers("probe", "configure", &all);
}

#[test]
fn with_abi_0_1_0() {
    let all = [ANSWERS, NO_CALL].concat();
    answers("probe_0_1_0", "request_headers", &all);
}

#[test]
fn no_function_is_a_stub() {
    for function in HOST_FUNCTIONS {
        assert_eq!(function.support, Support::Full, "{}", function.name);
    }
}

#[test]
fn return_pointers_of_a_foreign_function_may_be_null() {
    check(
        "request_headers",
        &[("call_foreign_function name arguments", "1"), ("log 2 'still here'", "0")],
    );
    let run = Probe::new("request_headers: null call_foreign_function name arguments").run();
    assert_eq!(
        run.of("request_headers"),
        [0, 2, 4, 5].map(|at| format!("null call_foreign_function arg {at} -> 1"))
    );
}
