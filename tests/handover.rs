//! Values on their way to a guest, which makes room for them: through WebAssembly of the host's own in front of host
//! functions, or from these themselves where a module has a start section.

use crate::world::{Filter, allocator, sim_host};
use resty_proxy_wasm::abi::Callback;
use resty_proxy_wasm::limits;
use resty_proxy_wasm::vm::Options;

/// A filter that asks for a property and logs it; `allocate` is its allocator's body, after which its memory's first free
/// byte is the answer.
fn text(start: bool, allocate: &str) -> String {
    let allocator = allocator(start, allocate);
    format!(
        r#"(module $filter
        (import "env" "proxy_get_property" (func $get (param i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "plugin_nameplugin_vm_idno such thing")
        (func (export "proxy_abi_version_0_2_1"))
        {allocator}
        ;; Logs the value, or the status as a digit.
        (func $show (param $path i32) (param $size i32) (local $status i32)
            (local.set $status
                (call $get (local.get $path) (local.get $size) (i32.const 64) (i32.const 68)))
            (if (local.get $status)
                (then
                    (i32.store8 (i32.const 80) (i32.add (i32.const 48) (local.get $status)))
                    (drop (call $log (i32.const 2) (i32.const 80) (i32.const 1))))
                (else
                    (drop (call $log (i32.const 2)
                        (i32.load (i32.const 64)) (i32.load (i32.const 68)))))))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (call $show (i32.const 0) (i32.const 11))
            (call $show (i32.const 11) (i32.const 12))
            (call $show (i32.const 23) (i32.const 13))
            (call $show (i32.const 0) (i32.const 11))
            (i32.const 0)))"#
    )
}

fn load(text: &str) -> Result<Filter, String> {
    let bytes = wat::parse_str(text).expect("WebAssembly text");
    Filter::load(&sim_host(), &bytes, Options::new("filter")).map_err(|error| error.to_string())
}

fn filter(text: &str) -> Filter {
    load(text).expect("a filter that starts")
}

fn said(text: &str) -> Vec<String> {
    let filter = filter(text);
    filter.open(&filter.context("")).request_headers();
    assert_eq!(filter.host.warned(), [""; 0]);
    filter.host.said()
}

#[test]
fn both_ways_give_the_same() {
    for start in [false, true] {
        // The second one is empty, for which there is no room to make.
        assert_eq!(said(&text(start, "")), ["filter", "", "1", "filter"], "{start}");
        let grows = "(drop (memory.grow (i32.const 1)))
            (global.set $free (i32.mul (i32.const 65536) (i32.sub (memory.size) (i32.const 1))))";
        assert_eq!(said(&text(start, grows)), ["filter", "", "1", "filter"], "{start}");
        let behind = "(global.set $free (i32.const 65532))";
        assert_eq!(said(&text(start, behind)), ["6", "", "1", "6"], "{start}");
        let none = "(global.set $free (i32.const 0)) (local.set $size (i32.const 0))";
        assert_eq!(said(&text(start, none)), [":", "", "1", ":"], "{start}: INTERNAL_FAILURE");
    }
}

#[test]
fn a_value_that_the_allocator_asks_for_does_not_take_the_place_of_another() {
    for start in [false, true] {
        let asks = "(if (i32.lt_u (global.get $free) (i32.const 1030)) (then
            (global.set $free (i32.const 1100))
            (call $show (i32.const 11) (i32.const 12))
            (call $show (i32.const 0) (i32.const 11))))";
        assert_eq!(
            said(&text(start, asks)),
            ["", "filter", "filter", "", "1", "filter"],
            "{start}"
        );
    }
}

#[test]
fn a_trap_of_the_allocator_shows_the_way_to_it() {
    for (start, front) in [(false, "host!proxy_get_property"), (true, "")] {
        let filter = filter(&text(start, "unreachable"));
        let stream = filter.open(&filter.context(""));
        let error = stream.run(Callback::RequestHeaders, b"", false).expect_err("a trap");
        let error = error.to_string();
        let at = |name| error.find(name).unwrap_or_else(|| panic!("{name}: {error}"));
        assert!(at("filter!allocate") < at("filter!show"), "{error}");
        assert!(at("filter!allocate") < at(front) || front.is_empty(), "{error}");
    }
}

#[test]
fn what_a_front_is_made_of_is_not_for_guests() {
    for import in [
        r#"(import "host" "finish" (func (param i32) (result i32)))"#,
        r#"(import "begin" "proxy_get_property" (func (param i64 i64 i64) (result i64)))"#,
    ] {
        let module = format!(r#"(module {import} (memory (export "memory") 1))"#);
        let error = load(&module).err().expect("a refusal");
        assert!(error.contains("neither Proxy-Wasm (module \"env\") nor WASI"), "{error}");
    }
}

#[test]
fn a_front_takes_no_table_away() {
    for (more, fits) in [(0, true), (1, false)] {
        let tables = "(table 1 funcref)".repeat(limits::TABLES + more);
        let text = text(false, "").replace("(memory", &format!("{tables} (memory"));
        assert_eq!(load(&text).is_ok(), fits);
    }
}
