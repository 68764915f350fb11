//! A Proxy-Wasm host without a server: events go in, one guest callback runs, an outcome and a list of effects come out.
//!
//! Read from the bottom:
//!
//! - [`limits`], [`codec`], [`abi`]: caps, encodings, and the Proxy-Wasm ABI as data.
//! - [`event`], [`effect`], [`snapshot`], [`ports`]: what goes into the core and what comes out of it. An
//!   event of a request enters; one guest callback runs; an outcome and a list of effects leave. What a guest
//!   asks in between goes through the [`ports::Host`] trait.
//! - [`store`]: what plugins share, as traits, and a store for one process.
//! - [`callout`], [`grpc`]: clients of HTTP and gRPC over bytes in memory, for the calls of guests.
//! - [`guest`]: the contexts that live in a VM.
//! - [`hostcall`], [`wasi`]: what a guest can call. They read and change contexts, so they sit above them.
//! - [`vm`]: compiling guests and finding them compiled, starting and calling them; plugins over the VMs that come and go.
//! - [`folder`]: a folder as a [`vm::CodeStore`], for embedders that have a file system.
//! - `sim` (a Cargo feature): a simulated host, for tests, fuzz targets, benchmarks and tools.
//!
//! Nothing here opens a socket or starts a thread, but for compiling (`vm/engine.rs`), and nothing but [`folder`] opens a file.

#![deny(unsafe_code)]

pub mod abi;
pub mod callout;
pub mod codec;
pub mod effect;
pub mod error;
pub mod event;
#[allow(unsafe_code, reason = "it vouches for compiled code that is run")]
pub mod folder;
pub mod grpc;
pub mod guest;
pub mod hostcall;
pub mod limits;
pub mod ports;
#[cfg(feature = "sim")]
pub mod sim;
pub mod snapshot;
pub mod store;
pub mod vm;
pub mod wasi;
