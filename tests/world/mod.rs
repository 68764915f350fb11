//! A simulated world: requests that live in memory, a log that can be read back, a clock that tests move, and a shell
//! that tells filters of events and keeps what comes out.

#![allow(
    dead_code,
    unused_imports,
    reason = "the tests, the benchmarks and the fuzz targets share it, and none uses all of it"
)]

mod code;
mod filter;
pub mod host;
pub mod model;
pub mod player;
pub mod probe;
mod time;

pub use code::module;
pub use filter::{Answer, Filter, Stream};
pub use host::{Request, World};
pub use probe::Probe;
pub use time::Ticker;

use resty_proxy_wasm::ports::RequestId;
use std::num::NonZeroUsize;

/// The process that tests are in, unless they say that it forked.
pub const PROCESS: u64 = 1;

/// Reads a filter of `t/guests`: `bare.wat`, `probe.wasm`.
pub fn guest(name: &str) -> Vec<u8> {
    let root = env!("CARGO_MANIFEST_DIR");
    match name.strip_suffix(".wat") {
        Some(_) => {
            wat::parse_file(format!("{root}/t/guests/wat/{name}")).expect("WebAssembly text")
        }
        None => std::fs::read(format!("{root}/t/guests/build/{name}")).expect("a filter"),
    }
}

fn number(request: RequestId) -> usize {
    request.0.get() - 1
}

fn request_id(number: usize) -> RequestId {
    RequestId(NonZeroUsize::MIN.saturating_add(number))
}
