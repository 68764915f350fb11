//! Random modules that look like filters: wasm-smith's, with the imports and exports of Proxy-Wasm.

use crate::world::player::{FUNCTIONS, import};
use arbitrary::Unstructured;
use std::sync::LazyLock;
use wasm_smith::{Config, Module};

/// A valid module out of a number, one that ends by itself; `None` when wasm-smith makes none of it.
pub fn module(seed: u32) -> Option<Vec<u8>> {
    const FUEL: u32 = 200;
    let mut random = Random(seed.into());
    let size = 64 + random.below(448);
    let entropy: Vec<u8> = (0..size).map(|_| random.next() as u8).collect();
    let mut module = Module::new(config(&mut random), &mut Unstructured::new(&entropy)).ok()?;
    module.ensure_termination(FUEL).ok()?;
    Some(module.to_bytes())
}

fn config(random: &mut Random) -> Config {
    Config {
        available_imports: Some(IMPORTS.clone()),
        exports: Some(exports(random)),
        // What this host's engine does not take is refused early; once in a while is enough.
        memory64_enabled: random.one_in(64),
        threads_enabled: random.one_in(64),
        // They bring externref, which takes a collector.
        reference_types_enabled: random.one_in(32),
        disallow_traps: !random.one_in(4),
        gc_enabled: false,
        exceptions_enabled: false,
        simd_enabled: random.one_in(4),
        relaxed_simd_enabled: random.one_in(16),
        tail_call_enabled: random.one_in(4),
        // Beside the one that is exported.
        max_memories: usize::from(random.one_in(64)),
        max_memory32_bytes: 1 << 20,
        max_imports: 12,
        max_types: 16,
        max_funcs: 4,
        max_globals: 6,
        max_instructions: 4 + random.below(24),
        max_data_segments: 4,
        max_element_segments: 4,
        max_elements: 16,
        max_tables: 2,
        max_table_elements: 1000,
        max_nesting_depth: 5,
        ..Config::default()
    }
}

/// Every host function as it is, each once more with another type, and what else modules import.
static IMPORTS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let right: String = FUNCTIONS.iter().map(import).collect();
    // Names of a text module are unique, names of imports need not be.
    let wrong: String = FUNCTIONS
        .iter()
        .map(|f| import(f).replace(&format!("${}", f.name), "").replace("(param ", "(param i64 "))
        .collect();
    let more = r#"
        (import "env" "proxy_unknown" (func (param i32) (result i32 f64)))
        (import "env" "proxy_references" (func (param funcref) (result funcref)))
        (import "env" "abort" (func (param i32 i32 i32 i32)))
        (import "env" "pthread_equal" (func (param i32 i32) (result i32)))
        (import "env" "emscripten_notify_memory_growth" (func (param i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))
        (import "wasi_snapshot_preview1" "fd_read" (func (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_prestat_get" (func (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "args_sizes_get" (func (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "path_open"
            (func (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (import "wasi_unstable" "fd_seek" (func (param i32 i64 i32 i32) (result i32)))
        (import "wasi_unstable" "unknown" (func (result i64)))"#;
    text(&format!("{right}{wrong}{more}"))
});

/// Most of what a filter exports, a few of the wrong type.
fn exports(random: &mut Random) -> Vec<u8> {
    const CALLBACKS: &[(&str, &str, &str)] = &[
        ("proxy_on_memory_allocate", "i32", "i32"),
        ("malloc", "i32", "i32"),
        ("proxy_on_context_create", "i32 i32", ""),
        ("proxy_on_vm_start", "i32 i32", "i32"),
        ("proxy_on_configure", "i32 i32", "i32"),
        ("proxy_on_request_headers", "i32 i32 i32", "i32"),
        ("proxy_on_request_body", "i32 i32 i32", "i32"),
        ("proxy_on_response_headers", "i32 i32", "i32"),
        ("proxy_on_response_body", "i32 i32 i32", "i32"),
        ("proxy_on_done", "i32", "i32"),
        ("proxy_on_log", "i32", ""),
        ("proxy_on_delete", "i32", ""),
        ("_initialize", "", ""),
        ("_start", "", ""),
        ("main", "i32 i32", "i32"),
        ("__main_void", "", "i32"),
    ];
    let marker = match random.below(32) {
        0 => "9",
        1 => "0_2_100",
        number => ["0_1_0", "0_2_0", "0_2_1"][number % 3],
    };
    let mut body = format!("(func (export \"proxy_abi_version_{marker}\"))");
    if !random.one_in(32) {
        body += "(memory (export \"memory\") 1 8)";
    }
    for (name, params, results) in CALLBACKS {
        // A guest that refuses to start shows no more of itself, so these are rarer.
        let starts = ["vm_start", "configure", "_initialize", "_start"];
        let keep = if starts.iter().any(|s| name.ends_with(s)) { 8 } else { 3 };
        if !random.one_in(keep) {
            continue;
        }
        let params = if random.one_in(64) { "f32" } else { params };
        body +=
            &format!("(func (export \"{name}\") (param {params}) (result {results}) unreachable)");
    }
    text(&body)
}

fn text(body: &str) -> Vec<u8> {
    wat::parse_str(format!("(module {body})")).expect("WebAssembly text")
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}
