//! A Proxy-Wasm host for OpenResty.
//!
//! The crate is a functional core with a thin shell. Read from the bottom:
//!
//! - [`limits`], [`codec`], [`abi`]: caps, encodings, and the Proxy-Wasm ABI as data.
//! - [`event`], [`effect`], [`snapshot`], [`ports`]: what goes into the core and what comes out of it. An
//!   event of a request enters; one guest callback runs; an outcome and a list of effects leave. What a guest
//!   asks in between goes through the [`ports::Host`] trait.
//! - [`store`]: what plugins share, as traits, and a store for one process.
//! - [`shm`]: what all workers share, in memory that the master maps before it forks: values by key, queues, metrics.
//! - [`callout`], [`grpc`]: clients of HTTP and gRPC over bytes in memory, for the calls of guests.
//! - [`guest`]: the contexts that live in a VM.
//! - [`hostcall`], [`wasi`]: what a guest can call. They read and change contexts, so they sit above them.
//! - [`vm`]: compiling guests and finding them compiled, starting and calling them; plugins over the VMs that come and go.
//! - `sim` (a Cargo feature): a simulated host, for tests, fuzz targets, benchmarks and tools.
//! - [`ffi`]: the C ABI that Lua drives, nginx as a [`ports::Host`], and the folder of the module cache as a
//!   [`vm::CodeStore`]. The only place with `unsafe`, but for the one where compiled code is taken from that folder, for the
//!   mapping and the count of forks below [`shm`], and for the address of a guest's memory (`guest/view.rs`).
//!
//! Nothing outside `ffi` knows of nginx or Lua, reads a clock, opens a file or starts a thread (but for compiling, see
//! `vm/engine.rs`, for `/proc`, see `shm/process.rs`, and for limits of the process, see `vm/process_limits.rs`). `docs/RATIONALE.md` says why things are as they are.

#![deny(unsafe_code)]

pub mod abi;
pub mod callout;
pub mod codec;
pub mod effect;
pub mod error;
pub mod event;
#[allow(unsafe_code, reason = "the C ABI is made of pointers")]
pub mod ffi;
pub mod grpc;
pub mod guest;
pub mod hostcall;
pub mod limits;
pub mod ports;
#[allow(
    unsafe_code,
    reason = "memory that other processes change is reached by address, by region.rs alone; process.rs is told of forks"
)]
pub mod shm;
#[cfg(feature = "sim")]
pub mod sim;
pub mod snapshot;
pub mod store;
pub mod vm;
pub mod wasi;
