//! Guests that do not end are stopped, wherever they loop.

use crate::world::{Filter, Probe, Ticker, guest, sim_host};
use resty_proxy_wasm::abi::Callback;
use resty_proxy_wasm::vm::{Options, TimeLimits};

const LIMITS: TimeLimits = TimeLimits { callback: 30, start: 60 };

fn options(name: &str) -> Options {
    Options { time_limits: LIMITS, ..Options::new(name) }
}

/// The error without the guest's backtrace, which must be there.
fn cause(error: &impl ToString) -> String {
    let error = error.to_string();
    let (cause, frames) = error.split_once(" (in ").expect("a backtrace");
    assert!(frames.ends_with(')') && frames.len() > 2, "{error}");
    cause.into()
}

#[test]
fn a_loop_in_an_event_is_stopped_and_the_next_stream_has_a_new_vm() {
    let _time = Ticker::start();
    for (callback, export) in [
        (Callback::RequestHeaders, "request_headers"),
        (Callback::RequestBody, "request_body"),
        (Callback::ResponseHeaders, "response_headers"),
        (Callback::ResponseBody, "response_body"),
    ] {
        for op in ["loop", "loop_host"] {
            let probe = Probe::with(options("probe"), &format!("{export}@first: {op}"));
            let (one, two) = (probe.open(), probe.open());
            let stopped = format!("proxy_on_{export} failed: time limit of 30 ms passed");
            assert_eq!(cause(&one.run(callback, b"x", true).unwrap_err()), stopped, "{op}");
            let lost = two.run(callback, b"x", true).unwrap_err();
            assert_eq!(cause(&lost), format!("the filter's VM was lost: {stopped}"));
            assert_eq!(probe.open().at.id, 2);
        }
    }
}

#[test]
fn a_loop_in_the_life_of_a_context_is_stopped() {
    let _time = Ticker::start();
    for (script, export, limit) in
        [("vm_start: loop", "vm_start", 60), ("configure: loop", "configure", 60)]
    {
        let filter =
            Filter::load(&sim_host(), &guest("probe.wasm"), options("probe")).expect("a filter");
        let error = filter.configure(script).map(|_| ()).unwrap_err();
        let stopped = format!("proxy_on_{export} failed: time limit of {limit} ms passed");
        assert_eq!(cause(&error), stopped);
    }
    for export in ["done", "log", "delete"] {
        let probe = Probe::with(options("probe"), &format!("{export}: loop"));
        let error = probe.open().end().unwrap_err();
        assert_eq!(cause(&error), format!("proxy_on_{export} failed: time limit of 30 ms passed"));
    }
    let probe = Probe::with(options("probe"), "create: loop");
    let request = probe.filter.host.add(crate::world::Request::default());
    let error = probe.filter.try_open(&probe.context, request).map(|_| ()).unwrap_err();
    assert_eq!(cause(&error), "proxy_on_context_create failed: time limit of 30 ms passed");
}

#[test]
fn start_code_has_one_limit_for_all_of_its_steps() {
    let _time = Ticker::start();
    let looping = |name: &str| {
        format!(
            "(module (memory (export \"memory\") 1) (func (export \"proxy_abi_version_0_2_1\"))
                (func (export \"_initialize\") {})
                (func $start {}) {} (func $spin (export \"{name}\") (loop br 0)))",
            if name == "_initialize_" { "call $spin" } else { "" },
            if name == "start" { "call $spin" } else { "" },
            if name == "start" { "(start $start)" } else { "" },
        )
    };
    for (name, step) in [("start", "instantiation"), ("_initialize_", "_initialize")] {
        let bytes = wat::parse_str(looping(name)).expect("a module");
        let error = Filter::load(&sim_host(), &bytes, options("spin")).map(|_| ()).unwrap_err();
        assert_eq!(cause(&error), format!("{step} failed: time limit of 60 ms passed"));
    }
}
