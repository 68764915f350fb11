//! VMs and plugin contexts that fail to start again: tried later and later, and the log hears of changes only.

use crate::world::{Filter, Request, SimHost, sim_host};
use resty_proxy_wasm::abi::LogLevel;
use resty_proxy_wasm::vm::Context;
use std::rc::Rc;
use std::sync::Arc;

/// Does not start while the log level is critical, refuses its configuration while it is error, and traps when a
/// stream is created at trace.
const MOODY: &str = r#"(module
    (import "env" "proxy_get_log_level" (func $level (param i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "proxy_abi_version_0_2_1"))
    (func $is (param i32) (result i32)
        (drop (call $level (i32.const 16)))
        (i32.eq (i32.load (i32.const 16)) (local.get 0)))
    (func (export "_initialize") (if (call $is (i32.const 5)) (then unreachable)))
    (func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.eqz (call $is (i32.const 4))))
    (func (export "proxy_on_context_create") (param i32 i32)
        (if (i32.and (call $is (i32.const 0)) (i32.ne (local.get 1) (i32.const 0))) (then unreachable))))"#;

const WELL: LogLevel = LogLevel::Info;
const NO_START: LogLevel = LogLevel::Critical;
const NO_CONFIGURE: LogLevel = LogLevel::Error;
const TRAP: LogLevel = LogLevel::Trace;

struct Moody {
    host: Arc<SimHost>,
    filter: Filter,
    context: Rc<Context>,
}

impl Moody {
    fn new() -> Self {
        let host = sim_host();
        let filter = Filter::new(&host, &wat::parse_str(MOODY).expect("a module"));
        let context = filter.context("");
        Self { host, filter, context }
    }

    /// What a request's first callback answers: nothing, or an error without the guest's backtrace.
    fn request(&self) -> String {
        let request = self.host.add(Request::default());
        let opened = self.filter.try_open(&self.context, request);
        opened.map_or_else(|error| without_frames(&error.to_string()), |_| String::new())
    }

    fn lose_vm(&self) {
        self.host.set_log_level(TRAP);
        assert!(self.request().starts_with("proxy_on_context_create failed: wasm trap"));
    }

    fn warned(&self) -> Vec<String> {
        self.host.warned().iter().map(|line| without_frames(line)).collect()
    }
}

fn without_frames(error: &str) -> String {
    match (error.find(" (in "), error.find(')')) {
        (Some(from), Some(to)) => format!("{}{}", &error[..from], &error[to + 1..]),
        _ => error.into(),
    }
}

const NOT_STARTED: &str = "_initialize failed: wasm trap: wasm `unreachable` instruction executed";
const REFUSED: &str = "proxy_on_configure returned false: the filter refused its configuration";

#[test]
fn a_vm_that_fails_to_start_is_tried_later_and_later() {
    check(NO_START, NOT_STARTED);
}

#[test]
fn a_configuration_that_is_refused_by_a_new_vm_is_tried_later_and_later() {
    check(NO_CONFIGURE, REFUSED);
}

fn check(level: LogLevel, cause: &str) {
    let moody = Moody::new();
    moody.lose_vm();
    moody.host.set_log_level(level);
    assert_eq!(moody.request(), cause);
    assert_eq!(moody.warned(), [format!("{cause}; next try in 100 ms")]);
    moody.host.pass(40);
    assert_eq!(moody.request(), format!("{cause}; next try in 60 ms"));
    for wait in [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000] {
        // Not even a filter that has recovered is tried before the time.
        moody.host.set_log_level(WELL);
        let early = moody.request();
        assert!(early.starts_with(&format!("{cause}; next try in ")), "{early}");
        moody.host.set_log_level(level);
        moody.host.pass(wait);
        assert_eq!(moody.request(), cause, "after {wait} ms");
    }
    assert_eq!(moody.warned(), [""; 0], "the same cause is told once");

    moody.host.set_log_level(WELL);
    moody.host.pass(30_000);
    assert_eq!(moody.request(), "");
    assert_eq!(moody.warned(), ["works again after 12 failed tries"]);
    moody.lose_vm();
    moody.host.set_log_level(level);
    assert_eq!(moody.request(), cause);
    assert_eq!(moody.warned(), [format!("{cause}; next try in 100 ms")], "the delay starts anew");
}

#[test]
fn a_refusal_to_load_or_to_configure_is_not_delayed() {
    let world = sim_host();
    let bytes = wat::parse_str(MOODY).expect("a module");
    world.set_log_level(NO_CONFIGURE);
    let filter = Filter::new(&world, &bytes);
    for _ in 0..3 {
        assert_eq!(filter.configure("x").map(|_| ()).unwrap_err().to_string(), REFUSED);
    }
    world.set_log_level(WELL);
    assert!(filter.configure("x").is_ok());
}
