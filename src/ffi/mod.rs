//! The C ABI.
//!
//! Conventions, for every export:
//! - The caller is one thread of one nginx process; nothing here may be called from another thread.
//! - Strings are (pointer, length), never end in NUL, and (NULL, 0) is an empty one.
//! - A fallible function returns a negative number and writes a text into the caller's `rpw_error_t`; its
//!   other outputs are written on success only.
//! - Handles are opaque. `rpw_plugin_free` and `rpw_context_free` take each handle once; they never run a
//!   guest and can be called from a finalizer.
//! - What an `rpw_outcome_t` points to belongs to the library and is valid until the next call of
//!   `rpw_stream_run` or `rpw_stream_resume`.
//! - A panic is caught at the boundary: the call fails, the VM that it happened in is given up, the worker
//!   lives.
//!
//! `include/resty_proxy_wasm.h` and `lib/resty/proxy-wasm/cdef.lua` are generated from this module.

mod attributes;
mod cache;
mod call;
mod cleanup;
mod connection;
mod context;
mod desk;
mod effects;
mod ending;
mod entries;
mod failures;
mod foreign;
mod functions;
mod grpc;
mod handle;
mod header_fields;
mod header_lines;
mod images;
mod listen;
mod loading;
mod lua_vm;
mod metrics;
mod nginx;
mod outcome;
mod plans;
mod plugin;
mod process;
mod redis;
mod replace;
mod request;
mod request_line;
mod resolved;
mod server_flag;
mod shared;
mod sockets;
mod stream;
mod threads;
mod ticker;
mod trust;
mod types;
mod upstreams;
mod variables;
mod version;
mod wakers;
mod work;
mod worker;

use std::panic::{AssertUnwindSafe, catch_unwind};

use entries::Caller;
use worker::Worker;

pub use cache::{rpw_cache_dir, rpw_compile_threads};
pub use context::*;
pub use foreign::{rpw_caller_t, rpw_foreign_caller, rpw_foreign_function, rpw_result_t};
pub use functions::{rpw_nginx_t, rpw_setup};
pub use grpc::{
    rpw_grpc_connected, rpw_grpc_end_soon, rpw_grpc_failed, rpw_grpc_next, rpw_grpc_receive,
};
pub use header_lines::*;
pub use listen::{
    rpw_listen_begin, rpw_listen_end, rpw_listen_failed, rpw_listen_heard, rpw_listen_wake,
};
pub use loading::{rpw_loading_begin, rpw_loading_free, rpw_loading_state, rpw_loading_t};
pub use metrics::{rpw_metrics, rpw_presences, rpw_prometheus, rpw_sha256};
pub use plugin::*;
pub use redis::{
    rpw_redis_connected, rpw_redis_end_soon, rpw_redis_failed, rpw_redis_next, rpw_redis_receive,
};
pub use replace::{rpw_plan_next, rpw_plugin_follow, rpw_plugin_replace, rpw_replacements};
pub use request_line::{rpw_flags_t, rpw_request_flags, rpw_request_method, rpw_request_target};
pub use shared::{
    rpw_lua_vm, rpw_shared_delete, rpw_shared_eviction, rpw_shared_get, rpw_shared_keys,
    rpw_shared_memory, rpw_shared_set,
};
pub use stream::*;
pub use trust::{rpw_trust, rpw_upstream_tls};
pub use types::*;
pub use upstreams::rpw_upstreams;
pub use version::{rpw_version, rpw_version_t};
pub use wakers::rpw_semaphore_gone;
pub use work::{
    rpw_call_advance, rpw_call_connected, rpw_call_end, rpw_call_kept, rpw_call_restart,
    rpw_foreign_begin, rpw_foreign_end, rpw_init_worker, rpw_work_listen, rpw_work_next,
    rpw_work_waits,
};

/// The number of this C ABI. It changes whenever a declaration of the header does; the Lua module refuses a
/// library of another number.
pub const RPW_ABI: i32 = 4;

/// Returns `RPW_ABI` as the library was built with.
#[unsafe(no_mangle)]
pub extern "C" fn rpw_abi() -> i32 {
    RPW_ABI
}

/// Runs an export's body; a panic becomes an error of that call.
fn boundary(error: *mut rpw_error_t, body: impl FnOnce() -> Result<i32, Failure>) -> i32 {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(code)) => code,
        Ok(Err(Failure(failure))) => {
            let (code, text) = *failure;
            types::write_error(error, &text);
            code
        }
        Err(panic) => {
            let text = panic_text(&panic);
            types::write_error(
                error,
                &format!("the host panicked: {text}; this is a bug of the host"),
            );
            RPW_ERROR
        }
    }
}

/// Like [`boundary`], for a body that may enter guests: their time runs, and endings that waited come first. `lua` is true
/// when LuaJIT cannot have compiled the call, so that guests may call Lua.
fn guest_boundary(
    entry: ticker::Entry,
    lua: bool,
    error: *mut rpw_error_t,
    body: impl FnOnce(&Worker) -> Result<i32, Failure>,
) -> i32 {
    boundary(error, || {
        worker::with(|worker| {
            let caller = if lua { Caller::Interpreter } else { Caller::Lua };
            let _below = worker.entries.enter(caller)?;
            let _running = ticker::enter(entry)?;
            worker.endings.run();
            body(worker)
        })
    })
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "no text",
    }
}

/// Why an export fails. In a box, so that what does not fail moves less.
struct Failure(Box<(i32, String)>);

impl Failure {
    #[cold]
    fn new(text: impl Into<String>) -> Self {
        Self::with_code(RPW_ERROR, text)
    }

    /// Why.
    fn text(&self) -> &str {
        &self.0.1
    }

    #[cold]
    fn with_code(code: i32, text: impl Into<String>) -> Self {
        Self(Box::new((code, text.into())))
    }
}

impl From<crate::error::Error> for Failure {
    fn from(error: crate::error::Error) -> Self {
        use crate::error::Error;
        let code = match error {
            Error::BodyTooLarge { .. } | Error::ChangedTooLarge { .. } => RPW_TOO_LARGE,
            Error::Cut(_) => RPW_CUT,
            _ => RPW_ERROR,
        };
        Self::with_code(code, error.to_string())
    }
}
