//! Proxy-Wasm filters on stock OpenResty: the C ABI that Lua drives, and nginx as a host.
//!
//! - [`proxy_wasm_host`] is the core, which knows Proxy-Wasm and no server; its modules are re-exported here.
//! - [`shm`]: the store that all workers share, in memory that the master maps before it forks.
//! - [`ffi`]: the C ABI, and nginx as a [`ports::Host`].
//!
//! `docs/ARCHITECTURE.md` is the map, `docs/RATIONALE.md` says why things are as they are.

#![deny(unsafe_code)]

#[cfg(feature = "sim")]
pub use proxy_wasm_host::sim;
pub use proxy_wasm_host::{
    abi, callout, codec, effect, error, event, grpc, guest, hostcall, id_map, limits, ports, redis,
    snapshot, store, version, vm, wasi,
};

#[allow(unsafe_code, reason = "the C ABI is made of pointers")]
pub mod ffi;
#[allow(
    unsafe_code,
    reason = "memory that other processes change is reached by address, by region.rs alone; process.rs is told of forks"
)]
pub mod shm;
