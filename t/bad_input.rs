//! What every host function answers to pointers outside the memory, to numbers that name nothing, and at the wrong
//! time; and that the worker serves on after each.

use super::ops::{check, expect, of, script};
use super::support::{Nginx, Probe, Running};
use resty_proxy_wasm::abi::{HOST_FUNCTIONS, HostFunction};

/// A call of each host function that takes a pointer, one that would go well but for the pointer or the callback.
const CALLS: &[&str] = &[
    "log 2 text",
    "get_log_level",
    "get_current_time_nanoseconds",
    "get_buffer_bytes 7 0 5",
    "get_buffer_status 7",
    "set_buffer_bytes 0 0 0 text",
    "get_header_map_size 0",
    "get_header_map_pairs 0",
    "set_header_map_pairs 0 a=b",
    "get_header_map_value 0 :path",
    "add_header_map_value 0 x-a b",
    "replace_header_map_value 0 x-a b",
    "remove_header_map_value 0 x-a",
    "send_local_response 200 why body a=b -1",
    "http_call upstream :path=/ body a=b 1000",
    "grpc_call upstream service method a=b message 1000",
    "grpc_stream upstream service method a=b",
    "grpc_send 1 message 0",
    "redis_init upstream user password 1000",
    "redis_call upstream '*1\\r\\n$4\\r\\nPING\\r\\n'",
    "inject_encoded_data_to_filter_chain piece 0",
    "get_upstream_hosts",
    "set_upstream_override_host address",
    "get_status",
    "get_shared_data key",
    "set_shared_data key value 0",
    "register_shared_queue name",
    "resolve_shared_queue vm name",
    "enqueue_shared_queue 1 data",
    "dequeue_shared_queue 1",
    "define_metric 0 name",
    "get_metric 1",
    "get_property request.path",
    "set_property mine.a value",
    "call_foreign_function name arguments",
    "get_configuration",
];

/// Those that take numbers only.
const NO_POINTER: &[&str] = &[
    "set_tick_period_milliseconds",
    "continue_stream",
    "close_stream",
    "continue_request",
    "continue_response",
    "clear_route_cache",
    "grpc_cancel",
    "grpc_close",
    "increment_metric",
    "record_metric",
    "set_effective_context",
    "done",
];

/// The name of the host function without its `proxy_`.
fn short(function: &HostFunction) -> &'static str {
    function.name.strip_prefix("proxy_").expect("a prefix")
}

/// The parameters that are pointers: those with their size behind them, and those that results are written to.
fn pointers(function: &HostFunction) -> Vec<usize> {
    let names: Vec<&str> = function.params.iter().map(|(name, _)| *name).collect();
    let is_pointer = |at: &usize| {
        let name = names[*at];
        let next = names.get(at + 1).copied().unwrap_or_default();
        name.starts_with("return_")
            || next == format!("{name}_size")
            || (name, next) == ("data", "size")
    };
    (0..names.len()).filter(is_pointer).collect()
}

fn call_of(name: &str) -> Option<&'static str> {
    CALLS.iter().copied().find(|call| call.split(' ').next() == Some(name))
}

/// Whether a build of the probe has an op for the function.
fn has(guest: &str, function: &HostFunction) -> bool {
    match guest {
        "probe_0_1_0" => !function.versions.starts_with("0.2"),
        "probe_0_2_0" => !["0.1.0", "0.2.1", "0.2.100"].contains(&function.versions),
        _ => function.versions != "0.1.0",
    }
}

#[test]
fn every_host_function_is_tried() {
    for function in HOST_FUNCTIONS {
        let name = short(function);
        let tried = call_of(name).is_some();
        assert_eq!(tried, !pointers(function).is_empty(), "{name}");
        assert_eq!(tried, !NO_POINTER.contains(&name), "{name}");
    }
    let known = |name: &str| HOST_FUNCTIONS.iter().any(|function| short(function) == name);
    for call in CALLS.iter().chain(NO_POINTER) {
        let name = call.split(' ').next().unwrap_or_default();
        assert!(known(name), "{name} is no host function");
    }
}

/// Callbacks in which each call with a bad pointer must be refused, before anything else is looked at.
const CALLBACKS: &[&str] = &[
    "vm_start",
    "configure",
    "create",
    "request_headers",
    "request_body",
    "response_headers",
    "response_body",
    "done",
    "log",
    "delete",
];

fn pointers_are_refused(guest: &str) {
    let (mut script, mut expected) = (String::new(), Vec::new());
    for function in HOST_FUNCTIONS.iter().filter(|function| has(guest, function)) {
        let name = short(function);
        let Some(call) = call_of(name) else { continue };
        script += &format!("*: oob {call}\n");
        for pointer in pointers(function) {
            for place in ["far", "end"] {
                expected.push(format!("oob {name} arg {pointer} -> 6 {place}"));
            }
        }
    }
    let vm_config = format!("vm_config = [==[{script}]==]");
    // The vm_start lines of both configurations run, but for ABI 0.1.0 where the plugin's is not there yet.
    let nginx = Probe::new(&script).guest(guest).options(&vm_config).start();
    let times = |callback: &str| match callback {
        "vm_start" if guest != "probe_0_1_0" => 2,
        "vm_start" | "configure" => 1,
        // Two requests, the body of each in two pieces.
        "response_body" => of(&nginx, callback).len() / expected.len(),
        _ => 2,
    };
    for _ in 0..2 {
        let response = nginx.request("POST", "/").body("hello").send();
        assert_eq!(response.status, 200);
        assert!(response.text().ends_with("\r\n\r\nhello"));
    }
    nginx.stop();
    for callback in CALLBACKS {
        let lines = of(&nginx, callback);
        assert!(times(callback) > 0, "{callback}");
        assert_eq!(lines, vec![&*expected; times(callback)].concat(), "{callback}");
    }
    assert_eq!(nginx.log_texts("lua call failed: "), [""; 0]);
}

#[test]
fn pointers_outside_the_memory_are_refused() {
    pointers_are_refused("probe");
}

#[test]
fn pointers_outside_the_memory_are_refused_with_abi_0_2_0() {
    pointers_are_refused("probe_0_2_0");
}

#[test]
fn pointers_outside_the_memory_are_refused_with_abi_0_1_0() {
    pointers_are_refused("probe_0_1_0");
}

/// Sizes that only look as if they were inside: the sum of pointer and size is past 32 bits.
const WRAPS: &str = r#"
(module
  (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
  (import "env" "proxy_set_property" (func $set (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "x-statuses")
  (global $at (mut i32) (i32.const 16))
  (func $put (param $status i32)
    (i32.store8 (global.get $at) (i32.add (i32.const 48) (local.get $status)))
    (global.set $at (i32.add (global.get $at) (i32.const 1))))
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
    (call $put (call $log (i32.const 2) (i32.const 1) (i32.const -1)))
    (call $put (call $log (i32.const 2) (i32.const -1) (i32.const 1)))
    (call $put (call $log (i32.const 2) (i32.const -1) (i32.const -1)))
    (call $put (call $log (i32.const 2) (i32.const 65536) (i32.const 1)))
    (call $put (call $log (i32.const 2) (i32.const 65537) (i32.const 0)))
    (call $put (call $log (i32.const 2) (i32.const 65536) (i32.const 0)))
    (call $put (call $log (i32.const 2) (i32.const 0) (i32.const 65537)))
    (call $put (call $set (i32.const 0) (i32.const 3) (i32.const 0x80000000) (i32.const 0x80000000)))
    (call $put (call $set (i32.const 65530) (i32.const 6) (i32.const 65535) (i32.const 1)))
    (drop (call $add (i32.const 2) (i32.const 0) (i32.const 10) (i32.const 16) (i32.const 9)))
    (i32.const 0)))
"#;

#[test]
fn no_sum_of_pointer_and_size_wraps_round() {
    let nginx = Nginx::new()
        .wat_text("wraps", WRAPS)
        .http(
            r#"
            init_by_lua_block {
                wasm = require("resty.proxy-wasm")
                ctx = assert(wasm.on_configure(assert(wasm.load("wraps", "wraps.wasm"))))
            }
            "#,
        )
        .server(
            r#"
            location / {
                return 200;
                header_filter_by_lua_block { assert(wasm.on_http_response_headers(ctx)) }
            }
            "#,
        )
        .start();
    assert_eq!(nginx.get("/").header("x-statuses"), Some("666660660"));
    nginx.expect_log("wasm log wraps: ");
}

/// Numbers that name nothing, where they stand in a request's first callback.
const UNKNOWN: &[(&str, &str)] = &[
    ("log 6 text", "2"),
    ("log max text", "2"),
    ("get_buffer_bytes 10 0 1", "2"),
    ("get_buffer_status 10", "2"),
    ("set_buffer_bytes 10 0 0 text", "2"),
    ("get_header_map_size 8", "2"),
    ("get_header_map_pairs 8", "2"),
    ("set_header_map_pairs 8 a=b", "2"),
    ("get_header_map_value 8 a", "2"),
    ("add_header_map_value 8 a b", "2"),
    ("replace_header_map_value 8 a b", "2"),
    ("remove_header_map_value 8 a", "2"),
    ("get_header_map_size max", "2"),
    ("continue_stream 4", "2"),
    ("continue_stream max", "2"),
    ("close_stream 4", "2"),
    ("close_stream max", "2"),
    ("send_local_response 99 '' '' '' -1", "2"),
    ("send_local_response 1000 '' '' '' -1", "2"),
    ("send_local_response 0 '' '' '' -1", "2"),
    ("send_local_response max '' '' '' -1", "2"),
    ("define_metric 3 name", "2"),
    ("define_metric max name", "2"),
    ("set_effective_context 0", "2"),
    ("set_effective_context 12345", "2"),
    ("set_effective_context max", "2"),
    ("set_effective_context self", "0"),
    ("set_effective_context root", "0"),
    ("set_effective_context self", "0"),
];

const NO_STATUS: &str = "a local response is refused: its status is not one from 200 to 999";

/// What cannot be called in a stream that nothing has happened to.
const UNTIMELY: &[(&str, &str)] = &[
    ("done", "1"),
    ("continue_stream 0", "0"),
    ("continue_stream 1", "0"),
    ("continue_stream 2", "0"),
    ("continue_stream 3", "0"),
    ("close_stream 2", "0"),
    ("close_stream 3", "0"),
];

#[test]
fn numbers_that_name_nothing_are_refused() {
    for callback in ["request_headers", "response_headers", "log"] {
        let run = check(callback, &[UNKNOWN, UNTIMELY].concat());
        assert_eq!(run.response.status, 200);
        run.nginx.expect_log(NO_STATUS);
    }
}

#[test]
fn numbers_that_name_nothing_are_refused_outside_a_request() {
    let without_a_stream: Vec<(&str, &str)> =
        UNKNOWN.iter().take(UNKNOWN.len() - 3).copied().collect();
    check("configure", &without_a_stream).nginx.expect_log(NO_STATUS);
}

/// Changes that only a stream, or only an earlier callback, may make.
const TOO_LATE: &[(&str, &str)] = &[
    ("set_buffer_bytes 0 0 0 text", "2"),
    ("set_buffer_bytes 1 0 0 text", "2"),
    ("set_header_map_pairs 0 a=b", "2"),
    ("add_header_map_value 0 a b", "2"),
    ("replace_header_map_value 0 a b", "2"),
    ("remove_header_map_value 0 a", "2"),
    ("set_header_map_pairs 2 a=b", "2"),
    ("add_header_map_value 2 a b", "2"),
    ("replace_header_map_value 2 a b", "2"),
    ("remove_header_map_value 2 a", "2"),
    ("send_local_response 200 '' '' '' -1", "2"),
];

fn expect_warnings(nginx: &Running, callback: &str, texts: &[&str]) {
    for text in texts {
        nginx.expect_log(&format!(r#"wasm plugin "probe": {callback}: {text}"#));
    }
}

#[test]
fn nothing_changes_when_it_is_too_late() {
    let run = Probe::new(&(script("done", TOO_LATE) + &script("log", TOO_LATE))).run();
    for (callback, name) in [("done", "proxy_on_done"), ("log", "proxy_on_log")] {
        expect(&run.nginx, callback, TOO_LATE);
        expect_warnings(
            &run.nginx,
            name,
            &[
                "a change of the request headers came too late: the request has gone on",
                "a change of the response headers came too early or too late",
                "a local response came too late: the response headers were sent",
            ],
        );
    }
    assert_eq!(run.response.status, 200);
    assert_eq!(run.response.header("a"), None);
}

#[test]
fn nothing_changes_without_a_stream() {
    let run = check("configure", TOO_LATE);
    expect_warnings(
        &run.nginx,
        "proxy_on_configure",
        &[
            "there are no headers to change: the effective context is not a stream",
            "a local response needs a stream, and the effective context is none",
        ],
    );
    assert_eq!(run.response.status, 200);
}
