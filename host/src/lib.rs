//! A Proxy-Wasm host without a server: events go in, one guest callback runs, an outcome and a list of effects come out.
//!
//! Read from the bottom:
//!
//! - [`limits`], [`codec`], [`abi`]: caps, encodings, and the Proxy-Wasm ABI as data.
//! - [`event`], [`effect`], [`snapshot`], [`ports`]: what goes into the core and what comes out of it. An
//!   event of a request enters; one guest callback runs; an outcome and a list of effects leave. What a guest
//!   asks in between goes through the [`ports::Host`] trait.
//! - [`store`]: what plugins share, as traits, and a store for one process.
//! - [`callout`], [`grpc`], [`redis`]: clients of HTTP, gRPC and Redis over bytes in memory, for the calls of guests.
//! - [`guest`]: the contexts that live in a VM.
//! - [`hostcall`], [`wasi`]: what a guest can call. They read and change contexts, so they sit above them.
//! - [`vm`]: compiling guests and finding them compiled, starting and calling them; plugins over the VMs that come and go.
//! - [`folder`]: a folder as a [`vm::CodeStore`], for embedders that have a file system.
//! - `sim` (a Cargo feature): a simulated host, for tests, fuzz targets, benchmarks and tools.
//!
//! Nothing here opens a socket or starts a thread, but for compiling (`vm/load/engine.rs`), and nothing but [`folder`] opens a file.

//! # A complete request
//!
//! ```
//! use proxy_wasm_host::{
//!     Attribute, Callback, Clock, Code, Context, EffectKind, Effects, Event, HeaderMap, Host, Jobs, Log,
//!     LogLevel, Module, Options, Phase, Plugin, RequestId, Requests, Stores,
//! };
//! use std::num::NonZeroUsize;
//! use std::sync::Arc;
//!
//! /// A server with one request, whose response is about to be sent.
//! struct Server;
//!
//! impl Log for Server {
//!     fn log(&self, _: Option<RequestId>, level: LogLevel, line: &[u8]) {
//!         eprintln!("{level:?}: {}", String::from_utf8_lossy(line));
//!     }
//! }
//! impl Requests for Server {
//!     fn phase(&self, _: RequestId) -> Phase {
//!         Phase::ResponseHeaders
//!     }
//!     fn attribute(&self, _: RequestId, attribute: Attribute<'_>, out: &mut Vec<u8>) -> bool {
//!         out.clear();
//!         out.extend_from_slice(if attribute == Attribute::RequestMethod { b"GET" } else { b"" });
//!         !out.is_empty()
//!     }
//!     fn request_headers(&self, _: RequestId, _: &mut HeaderMap) {}
//!     fn headers_sent(&self, _: RequestId) -> bool {
//!         false
//!     }
//!     fn response_status(&self, _: RequestId) -> u16 {
//!         200
//!     }
//! }
//! impl Clock for Server {}
//! impl Stores for Server {}
//! impl Jobs for Server {}
//! impl Host for Server {}
//!
//! let wasm = wat::parse_str(r#"(module
//!     (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
//!     (memory (export "memory") 1) (data (i32.const 0) "helloworld")
//!     (func (export "proxy_abi_version_0_2_1"))
//!     (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
//!         (call $add (i32.const 2) (i32.const 0) (i32.const 5) (i32.const 5) (i32.const 5))))"#)?;
//! let host: Arc<dyn Host> = Arc::new(Server);
//! let module = Module::new(Arc::new(Code::compile(&wasm)?), Options::new("hello"), &host)?;
//! let context = Context::new(&Plugin::new(module, host)?, b"configuration")?;
//!
//! let stream = context.start_stream(RequestId(NonZeroUsize::MIN), false)?;
//! let mut effects = Effects::default();
//! context.with_stream(stream, |vm| {
//!     vm.run(stream.id, Event::headers(Callback::ResponseHeaders))?;
//!     Ok(vm.take_effects(stream.id, &mut effects))
//! })?;
//! let effect = effects.iter().next().expect("an effect");
//! assert_eq!(effect.kind, EffectKind::AddResponseHeader);
//! assert_eq!((effect.name, effect.value), (&b"hello"[..], &b"world"[..]));
//! context.end_stream(stream)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![deny(unsafe_code)]
#![warn(missing_docs)]

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
pub mod id_map;
pub mod limits;
pub mod ports;
pub mod redis;
#[cfg(feature = "sim")]
pub mod sim;
pub mod snapshot;
pub mod store;
pub mod turn;
pub mod version;
pub mod vm;
pub mod wasi;

pub use abi::{Attribute, Callback, LogLevel};
pub use effect::{Effect, EffectKind, Effects};
pub use error::Error;
pub use event::{Action, Event};
pub use guest::Output;
pub use ports::{
    Clock, ForeignError, ForeignKind, Hint, Host, Jobs, Listening, Log, Phase, RequestId,
    RequestSummary, Requests, SetPropertyError, Stores,
};
pub use snapshot::HeaderMap;
pub use store::{MemoryStore, Store};
pub use vm::{
    CallRef, Code, Context, Module, Options, Outcome, Plugin, StreamRef, TimeLimits, Vm, Work,
};
