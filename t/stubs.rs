//! Host functions that are linked and not built yet: what they answer, that one warning tells of each, and that the
//! guest goes on.

use super::ops::{Ops, check, check_with};
use super::support::Probe;
use resty_proxy_wasm::abi::{HOST_FUNCTIONS, Support};

/// A call of each, and its answer. 10, and not 12, is what SDKs turn into an error instead of a panic.
const ANSWERS: Ops<'static> = &[
    ("grpc_call upstream service method a=b message 1000", "10"),
    ("grpc_stream upstream service method a=b", "10"),
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

const WARNINGS: &[&str] = &["gRPC calls are not built yet in this version"];

fn answers(guest: &str, callback: &str, exported: &str, ops: Ops<'_>) {
    let run = check_with(callback, ops, |probe| probe.guest(guest));
    assert_eq!(run.response.status, 200);
    assert_eq!(run.failures(), [""; 0]);
    for warning in WARNINGS {
        let marker = format!(r#"wasm plugin "probe": {exported}: {warning}"#);
        run.nginx.expect_log(&marker);
        let times = run.nginx.log_texts(&marker).len();
        // on_configure runs in the master, too, and there each VM of the process warns once.
        assert_eq!(times, if callback == "configure" { 2 } else { 1 }, "{marker}");
    }
}

#[test]
fn in_a_request() {
    let all = [ANSWERS, SINCE_0_2, NO_CALL].concat();
    answers("probe", "request_headers", "proxy_on_request_headers", &all);
    answers("probe", "response_headers", "proxy_on_response_headers", &all);
    answers("probe", "log", "proxy_on_log", &all);
}

#[test]
fn in_the_plugin_context() {
    let all = [ANSWERS, SINCE_0_2, NO_CALL].concat();
    answers("probe", "configure", "proxy_on_configure", &all);
}

#[test]
fn with_abi_0_1_0() {
    let all = [ANSWERS, NO_CALL].concat();
    answers("probe_0_1_0", "request_headers", "proxy_on_request_headers", &all);
}

#[test]
fn every_stub_is_called() {
    let called = |name: &str| {
        ANSWERS.iter().any(|(op, _)| op.split(' ').next() == name.strip_prefix("proxy_"))
    };
    for function in HOST_FUNCTIONS {
        let stub = matches!(function.support, Support::Answers(_));
        assert_eq!(called(function.name), stub, "{}", function.name);
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
