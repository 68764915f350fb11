//! What a guest may reach of WASI: `wasi_snapshot_preview1`, and `wasi_unstable` of old AssemblyScript.
//!
//! wasmtime-wasi has every name, over an empty context: no preopened directory, no socket, no argument.
//! The functions that the Proxy-Wasm specification itself describes are ours: they answer FAULT for a bad
//! pointer where wasmtime-wasi traps, log what is written, and never wait.

mod others;
mod preview1;

use wasmtime::Linker;
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p1::WasiP1Ctx;

use crate::guest::State;

/// The two module names, old and new.
pub const MODULES: [&str; 2] = ["wasi_snapshot_preview1", "wasi_unstable"];

/// A context that reaches nothing of the host.
pub fn context() -> WasiP1Ctx {
    WasiCtxBuilder::new().build_p1()
}

/// Links both modules.
pub fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    others::add_to_linker(linker)?;
    for module in MODULES {
        preview1::add_to_linker(linker, module)?;
    }
    Ok(())
}
