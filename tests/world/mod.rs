//! The simulated host with what tests need on it, and guests: the scriptable one, and one that plays random calls.

#![allow(
    dead_code,
    unused_imports,
    reason = "the tests, the benchmarks and the fuzz targets share it, and none uses all of it"
)]

pub(crate) mod model;
pub(crate) mod player;
pub(crate) mod probe;

pub(crate) use probe::Probe;
pub(crate) use resty_proxy_wasm::sim::{
    Answer, Filter, MONOTONIC_CLOCK, Request, SHARED_MEMORY, SimHost, Stream, Ticker, module,
};

use resty_proxy_wasm::callout::Upstream;
use resty_proxy_wasm::guest::deadline;
use resty_proxy_wasm::ports::{ForeignError, ForeignKind};
use resty_proxy_wasm::shm::Shared;
use resty_proxy_wasm::sim::{ForeignFunction, Settings};
use std::sync::Arc;
use std::time::Duration;

/// A host with some functions and an upstream. A test that leaves warnings in its log fails.
pub(crate) fn sim_host() -> Arc<SimHost> {
    let foreign = |name: &str, kind, function: ForeignFunction| (name.into(), kind, function);
    let now = ForeignKind::Now;
    SimHost::with_settings(Settings {
        upstreams: vec![(
            b"registered".to_vec(),
            Upstream::parse(b"https://127.0.0.1:8443", false).expect("an upstream"),
        )],
        foreign: vec![
            foreign("reverse", now, Box::new(|text| Ok(text.iter().rev().copied().collect()))),
            foreign("fails", now, Box::new(|_| Err(ForeignError::Failed))),
            foreign("nowhere", now, Box::new(|_| Err(ForeignError::NotHere))),
            foreign("later", ForeignKind::Later, Box::new(|_| Err(ForeignError::Failed))),
        ],
        store: Arc::new(shared()),
        on_log: Some(Box::new(be_slow)),
        on_property: Some(Box::new(|path| assert_ne!(path, BROKEN, "the host panics here"))),
        warnings_are_taken: true,
        ..Settings::default()
    })
}

/// Shared memory, as the processes of a server have it.
pub(crate) fn shared() -> Shared {
    Shared::new(SHARED_MEMORY, |repair| panic!("{repair:?}, although no process was killed"))
        .expect("memory")
}

/// A property whose reading makes the host panic.
pub(crate) const BROKEN: &[u8] = b"broken";

/// The end of log lines that take [`SLOW_TICKS`] to write. A [`Ticker`] must run meanwhile.
pub(crate) const SLOW: &[u8] = b"slow";
const SLOW_TICKS: u64 = 3;

fn be_slow(line: &[u8]) {
    if line.ends_with(SLOW) {
        let until = deadline::passed() + SLOW_TICKS;
        while deadline::passed() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The host adds nothing to a module that exports something by this name (`host/src/vm/shim/`). It calls the allocator itself.
pub(crate) const BY_HOST: &str = r#"(global (export "headers of the host") i32 (i32.const 0))"#;

/// An allocator in WebAssembly text: after what `allocate` says, it gives the bytes from the global `$free` on.
pub(crate) fn allocator(allocate: &str) -> String {
    format!(
        r#"(global $free (mut i32) (i32.const 1024))
        (func $allocate (export "proxy_on_memory_allocate") (param $size i32) (result i32) (local $at i32)
            {allocate}
            (local.set $at (global.get $free))
            (global.set $free (i32.add (global.get $free) (local.get $size)))
            (local.get $at))"#
    )
}

/// Reads a filter of `t/guests`: `bare.wat`, `probe.wasm`.
pub(crate) fn guest(name: &str) -> Vec<u8> {
    let root = env!("CARGO_MANIFEST_DIR");
    match name.strip_suffix(".wat") {
        Some(_) => {
            wat::parse_file(format!("{root}/t/guests/wat/{name}")).expect("WebAssembly text")
        }
        None => std::fs::read(format!("{root}/t/guests/build/{name}")).expect("a filter"),
    }
}
