//! From the bytes of a module to compiled code: wasmtime's engine, the module cache, and the imports.

pub mod baseline;
pub mod cache;
pub mod code;
pub mod code_store;
pub mod compiling;
pub mod engine;
mod entry;
pub mod linker;
mod magic;
pub mod process_limits;
