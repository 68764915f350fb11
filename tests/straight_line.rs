//! Guests without loops whose time is over: each host function ends them.

use crate::world::{Answer, Filter, SLOW, Ticker, sim_host};
use resty_proxy_wasm::abi::Callback;
use resty_proxy_wasm::error::Error;
use resty_proxy_wasm::ports::Host;
use resty_proxy_wasm::vm::{Options, TimeLimits, host_functions};
use std::sync::Arc;

const LIMITS: TimeLimits = TimeLimits { callback: 10, start: 1000 };

/// A function that guests can import.
struct Function {
    module: String,
    name: String,
    params: Vec<String>,
    results: Vec<String>,
}

impl Function {
    fn of(module: &str, name: &str, params: &[&str], results: &[&str]) -> Self {
        let all = |types: &[&str]| types.iter().map(ToString::to_string).collect();
        Self {
            module: module.into(),
            name: name.into(),
            params: all(params),
            results: all(results),
        }
    }

    /// A call with zeros, the result of which is dropped.
    fn call(&self) -> String {
        let zeros: String = self.params.iter().map(|ty| format!("({ty}.const 0) ")).collect();
        format!("(call $function {zeros}) {}", "drop ".repeat(self.results.len()))
    }

    /// A filter that writes a line which takes longer than it may run, makes the calls, and writes another line. `more` is
    /// put into the module.
    fn filter(&self, more: &str, calls: &str) -> Vec<u8> {
        let slow = String::from_utf8_lossy(SLOW);
        let text = format!(
            r#"(module
            (import "{}" "{}" (func $function (param {}) (result {})))
            (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            {more}
            (data (i32.const 1024) "{slow}after")
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (drop (call $log (i32.const 2) (i32.const 1024) (i32.const {})))
                {calls}
                (drop (call $log (i32.const 2) (i32.const {}) (i32.const 5)))
                (i32.const 0)))"#,
            self.module,
            self.name,
            self.params.join(" "),
            self.results.join(" "),
            slow.len(),
            1024 + slow.len(),
        );
        wat::parse_str(text).expect("WebAssembly text")
    }
}

/// Functions of this host, and of others, which have something in their place.
fn all() -> Vec<Function> {
    let host: Arc<dyn Host> = sim_host();
    let known = host_functions(&host).expect("functions");
    let all = known.into_iter().map(|(module, name, ty)| Function {
        module,
        name,
        params: ty.params().map(|ty| ty.to_string()).collect(),
        results: ty.results().map(|ty| ty.to_string()).collect(),
    });
    all.chain([
        Function::of("env", "proxy_of_a_vendor", &["i32", "f64"], &["i32"]),
        Function::of("env", "abort", &["i32"], &[]),
        Function::of("env", "proxy_done", &["i64"], &["i64"]),
        Function::of("wasi_snapshot_preview1", "unknown", &["i32"], &["i32"]),
        Function::of("wasi_unstable", "fd_write", &["f32"], &[]),
    ])
    .collect()
}

/// A filter that was run for longer than it may, and what came of that.
fn overrun(bytes: &[u8]) -> (Filter, Result<Answer, Error>) {
    let options = Options { time_limits: LIMITS, ..Options::new("filter") };
    let filter = Filter::load(&sim_host(), bytes, options).expect("a filter that starts");
    let stream = filter.open(&filter.context(""));
    let answer = stream.run(Callback::RequestHeaders, b"", false);
    (filter, answer)
}

#[test]
fn every_host_function_ends_a_guest_whose_time_is_over() {
    let all = all();
    for name in
        ["proxy_log", "random_get", "fd_pwrite", "path_open", "sock_accept", "pthread_equal"]
    {
        assert!(all.iter().any(|function| function.name == name), "{name}");
    }
    let _time = Ticker::start();
    // With an allocator there is WebAssembly of ours between the guest and some functions.
    let allocator = r#"(func (export "malloc") (param i32) (result i32) (i32.const 2048))"#;
    for (function, more) in all.iter().flat_map(|f| [(f, ""), (f, allocator)]) {
        let Function { module, name, .. } = function;
        let bytes = function.filter(more, &function.call());
        let (filter, answer) = overrun(&bytes);
        let error = answer.expect_err(name).to_string();
        let cause = "proxy_on_request_headers failed: time limit of 10 ms passed (in ";
        assert!(error.starts_with(cause), "{module}.{name}: {error}");
        assert_eq!(filter.host.said(), ["slow"], "{module}.{name}");
        filter.host.warned();
    }
}

#[test]
fn instructions_that_move_much_end_a_guest_whose_time_is_over() {
    let _time = Ticker::start();
    let nothing = Function::of("env", "proxy_done", &[], &["i32"]);
    let more = format!(
        r#"(data $data "{}") (table $table 1000 funcref) (elem $functions func {})"#,
        "x".repeat(65536),
        "$log ".repeat(1000)
    );
    for instruction in [
        "(memory.fill (i32.const 0) (i32.const 1) (i32.const 65536))",
        "(memory.copy (i32.const 1) (i32.const 0) (i32.const 65535))",
        "(memory.init $data (i32.const 0) (i32.const 0) (i32.const 65536))",
        "(table.fill $table (i32.const 0) (ref.null func) (i32.const 1000))",
        "(table.copy $table $table (i32.const 1) (i32.const 0) (i32.const 999))",
        "(table.init $table $functions (i32.const 0) (i32.const 0) (i32.const 1000))",
    ] {
        let bytes = nothing.filter(&more, &format!("{instruction} (return (i32.const 0))"));
        let error = overrun(&bytes).1.expect_err(instruction).to_string();
        assert!(error.contains("time limit of 10 ms passed"), "{instruction}: {error}");
    }
}
