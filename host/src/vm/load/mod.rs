//! From the bytes of a module to compiled code: wasmtime's engines, the module cache, and the imports.

pub(super) mod baseline;
pub(super) mod cache;
pub(super) mod code;
pub(super) mod code_store;
pub(super) mod compile;
pub(super) mod engine;
mod entry;
pub(super) mod linker;
mod magic;
pub(super) mod process_limits;
pub(super) mod watch;
