//! Imports: every function of the tables is there, with the table's type.

use crate::world::player::{import, wasm_type};
use crate::world::{Filter, Request, sim_host};
use resty_proxy_wasm::abi::{HOST_FUNCTIONS, WASI_FUNCTIONS};
use std::collections::HashSet;

/// A module that imports these and does nothing.
fn importing(imports: &str) -> Vec<u8> {
    let text = format!(
        r#"(module {imports} (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1")))"#
    );
    wat::parse_str(text).expect("WebAssembly text")
}

#[test]
fn every_function_is_linked_with_the_type_of_the_table() {
    for function in HOST_FUNCTIONS {
        let filter = Filter::new(&sim_host(), &importing(&import(function)));
        assert_eq!(filter.plugin.warnings(), [""; 0], "{}", function.name);
    }
}

#[test]
fn another_type_is_noticed() {
    for function in HOST_FUNCTIONS {
        let other = import(function).replace("(param ", "(param i32 ");
        let filter = Filter::new(&sim_host(), &importing(&other));
        let [warning] = filter.plugin.warnings() else { panic!("{}: one warning", function.name) };
        let types: Vec<&str> = function.params.iter().map(|(_, ty)| wasm_type(ty)).collect();
        let own = types.join(", ");
        let wrong = ["i32"].iter().chain(&types).copied().collect::<Vec<_>>().join(", ");
        let name = function.name;
        assert_eq!(
            *warning,
            format!(
                "import env.{name}({wrong}) -> (i32) has another type than this host's ({own}) -> (i32): calls \
                 answer 12"
            )
        );
    }
}

#[test]
fn the_table_lists_the_functions_of_the_specification() {
    let all: HashSet<&str> = HOST_FUNCTIONS.iter().map(|f| f.name).collect();
    assert_eq!(all.len(), HOST_FUNCTIONS.len(), "none twice");
    let specified = HOST_FUNCTIONS.iter().filter(|f| f.versions != "0.2.100");
    let names: HashSet<&str> = specified.map(|f| f.name).collect();
    // abi-versions/v0.2.1, then those that only 0.1.0 has.
    let specified = "proxy_log proxy_get_log_level proxy_get_current_time_nanoseconds
        proxy_set_tick_period_milliseconds proxy_get_buffer_bytes proxy_get_buffer_status proxy_set_buffer_bytes
        proxy_get_header_map_size proxy_get_header_map_pairs proxy_set_header_map_pairs proxy_get_header_map_value
        proxy_add_header_map_value proxy_replace_header_map_value proxy_remove_header_map_value
        proxy_continue_stream proxy_close_stream proxy_send_local_response proxy_http_call proxy_grpc_call
        proxy_grpc_stream proxy_grpc_send proxy_grpc_cancel proxy_grpc_close proxy_get_status
        proxy_get_shared_data proxy_set_shared_data proxy_register_shared_queue proxy_resolve_shared_queue
        proxy_enqueue_shared_queue proxy_dequeue_shared_queue proxy_define_metric proxy_increment_metric
        proxy_record_metric proxy_get_metric proxy_get_property proxy_set_property proxy_call_foreign_function
        proxy_set_effective_context proxy_done
        proxy_continue_request proxy_continue_response proxy_clear_route_cache proxy_get_configuration";
    assert_eq!(names, specified.split_whitespace().collect::<HashSet<&str>>());
}

#[test]
fn wasi_is_there_under_both_names() {
    let types = |name: &str| match name {
        "fd_write" => "(param i32 i32 i32 i32) (result i32)",
        "environ_sizes_get" | "environ_get" | "random_get" => "(param i32 i32) (result i32)",
        "clock_time_get" => "(param i32 i64 i32) (result i32)",
        "poll_oneoff" => "(param i32 i32 i32 i32) (result i32)",
        "sched_yield" => "(result i32)",
        "proc_exit" => "(param i32)",
        other => panic!("{other} has no type here"),
    };
    for module in ["wasi_snapshot_preview1", "wasi_unstable"] {
        for (name, _) in WASI_FUNCTIONS {
            let import = format!(r#"(import "{module}" "{name}" (func {}))"#, types(name));
            let filter = Filter::new(&sim_host(), &importing(&import));
            assert_eq!(filter.plugin.warnings(), [""; 0], "{module}.{name}");
        }
    }
}

#[test]
fn emscriptens_helpers_are_there() {
    let text = r#"(module
        (import "env" "pthread_equal" (func $equal (param i32 i32) (result i32)))
        (import "env" "emscripten_notify_memory_growth" (func $grown (param i32)))
        (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (call $grown (i32.const 0))
            (if (call $equal (i32.const 1) (i32.const 2)) (then unreachable))
            (if (i32.eqz (call $equal (i32.const 3) (i32.const 3))) (then unreachable))
            (i32.const 0)))"#;
    let filter = Filter::new(&sim_host(), &wat::parse_str(text).expect("WebAssembly text"));
    assert_eq!(filter.plugin.warnings(), [""; 0]);
    filter.open_for(&filter.context(""), Request::default()).request_headers();
}
