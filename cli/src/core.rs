//! The host's core, from the one place that names its crate.

pub use proxy_wasm_host::{
    abi, callout, effect, error, event, folder, grpc, guest, limits, ports, redis, snapshot, store,
    vm,
};
