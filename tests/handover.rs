//! Values on their way to a guest, which makes room for them: through WebAssembly that the host adds in front of host
//! functions (`host/src/vm/shim/`), or from these themselves where it adds nothing.

use crate::world::{BY_HOST, Filter, allocator, sim_host};
use resty_proxy_wasm::abi::Callback;
use resty_proxy_wasm::limits;
use resty_proxy_wasm::vm::Options;

/// What a filter may have besides.
const NOTHING: &str = "";
/// Its code runs before the host knows its allocator.
const START: &str = "(func $start (call $show (i32.const 0) (i32.const 11))) (start $start)";

/// A filter that asks for a property and logs it; `allocate` is its allocator's body, after which its memory's first free
/// byte is the answer.
fn text(besides: &str, allocate: &str) -> String {
    let allocator = allocator(allocate);
    format!(
        r#"(module $filter
        (import "env" "proxy_get_property" (func $get (param i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "plugin_nameplugin_vm_idno such thing")
        (func (export "proxy_abi_version_0_2_1"))
        {allocator}
        {besides}
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
    for besides in [NOTHING, BY_HOST] {
        let said = |allocate| said(&text(besides, allocate));
        // The second one is empty, for which there is no room to make.
        assert_eq!(said(""), ["filter", "", "1", "filter"], "{besides}");
        let grows = "(drop (memory.grow (i32.const 1)))
            (global.set $free (i32.mul (i32.const 65536) (i32.sub (memory.size) (i32.const 1))))";
        assert_eq!(said(grows), ["filter", "", "1", "filter"], "{besides}");
        let behind = "(global.set $free (i32.const 65532))";
        assert_eq!(said(behind), ["6", "", "1", "6"], "{besides}");
        let none = "(global.set $free (i32.const 0)) (local.set $size (i32.const 0))";
        assert_eq!(said(none), [":", "", "1", ":"], "{besides}: INTERNAL_FAILURE");
    }
}

#[test]
fn a_start_section_may_ask_for_values() {
    for besides in [START.to_owned(), format!("{START} {BY_HOST}")] {
        let filter = filter(&text(&besides, ""));
        assert_eq!(filter.host.said(), ["filter"]);
        filter.open(&filter.context("")).request_headers();
        assert_eq!(filter.host.said(), ["filter", "", "1", "filter"], "{besides}");
    }
}

#[test]
fn a_value_that_the_allocator_asks_for_does_not_take_the_place_of_another() {
    for besides in [NOTHING, BY_HOST] {
        let asks = "(if (i32.lt_u (global.get $free) (i32.const 1030)) (then
            (global.set $free (i32.const 1100))
            (call $show (i32.const 11) (i32.const 12))
            (call $show (i32.const 0) (i32.const 11))))";
        assert_eq!(
            said(&text(besides, asks)),
            ["", "filter", "filter", "", "1", "filter"],
            "{besides}"
        );
    }
}

#[test]
fn a_trap_of_the_allocator_shows_the_way_to_it() {
    for (besides, front) in [(NOTHING, "host!proxy_get_property"), (BY_HOST, "")] {
        let filter = filter(&text(besides, "unreachable"));
        let stream = filter.open(&filter.context(""));
        let error = stream.run(Callback::RequestHeaders, b"", false).expect_err("a trap");
        let error = error.to_string();
        let at = |name| error.find(name).unwrap_or_else(|| panic!("{name}: {error}"));
        assert!(at("filter!allocate") < at("filter!show"), "{error}");
        assert!(at("filter!allocate") < at(front) || front.is_empty(), "{error}");
        assert!(at(front) < at("filter!show") && !error.contains("give"), "{error}");
    }
}

#[test]
fn what_a_front_is_made_of_is_not_for_guests() {
    let import = r#"(import "begin" "proxy_get_property"
        (func (param i64 i64 i64 i64) (result i64 i64 i64 i64 i64)))"#;
    let alone = format!(r#"(module {import} (memory (export "memory") 1))"#);
    let beside = text(NOTHING, "").replacen("(import", &format!("{import} (import"), 1);
    for module in [alone, beside] {
        let error = load(&module).err().expect("a refusal");
        assert!(error.contains("neither Proxy-Wasm (module \"env\") nor WASI"), "{error}");
    }
}

#[test]
fn a_front_takes_no_table_away() {
    for (more, fits) in [(0, true), (1, false)] {
        let tables = "(table 1 funcref)".repeat(limits::TABLES + more);
        let text = text(NOTHING, "").replace("(memory", &format!("{tables} (memory"));
        assert_eq!(load(&text).is_ok(), fits);
    }
}
