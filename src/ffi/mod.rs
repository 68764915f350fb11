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

mod abi_number;
mod async_functions;
mod attributes;
mod boundary;
mod cache;
mod calls;
mod cleanup;
mod connection;
mod connections;
mod context;
mod effects;
mod ending;
mod entries;
mod failure;
mod failures;
mod foreign;
mod forks;
mod functions;
mod handle;
mod header_fields;
mod header_lines;
mod header_lists;
mod host;
mod images;
mod jobs;
mod lent;
mod line_place;
mod listen;
mod loading;
mod lua_vm;
mod metrics;
mod nginx;
mod objects;
mod outcome;
mod plans;
mod plugin;
mod process;
mod replace;
mod request;
mod request_line;
mod resolved;
mod response_fields;
mod response_headers;
mod semaphores;
mod server_flag;
mod setup;
mod shared;
mod shared_memory;
mod stream;
mod telling;
mod threads;
mod ticker;
mod tls;
mod trust;
mod types;
mod upstreams;
mod variables;
mod version;
mod wake_socket;
mod wakers;
mod work;
mod worker;

pub use async_functions::{rpw_foreign_begin, rpw_foreign_end};
pub use cache::{rpw_cache_dir, rpw_compile_memory, rpw_compile_threads};
pub use calls::{
    rpw_call_advance, rpw_call_connected, rpw_call_end, rpw_call_kept, rpw_call_permits,
    rpw_call_restart,
};
pub use connections::{
    rpw_connection_connected, rpw_connection_end_soon, rpw_connection_failed, rpw_connection_next,
    rpw_connection_receive,
};
pub use context::*;
pub use foreign::{rpw_foreign_caller, rpw_foreign_function};
pub use functions::rpw_nginx_t;
pub use header_lines::*;
pub use listen::{
    rpw_listen_begin, rpw_listen_end, rpw_listen_failed, rpw_listen_received, rpw_listen_wake,
};
pub use loading::{rpw_loading_begin, rpw_loading_free, rpw_loading_state, rpw_loading_t};
pub use metrics::{rpw_metrics, rpw_presences, rpw_prometheus, rpw_sha256};
pub use objects::{rpw_context_t, rpw_plugin_t};
pub use plans::rpw_plan_t;
pub use plugin::*;
pub use replace::{rpw_plan_next, rpw_plugin_follow, rpw_plugin_replace, rpw_replacements};
pub use request_line::{rpw_flags_t, rpw_request_flags, rpw_request_method, rpw_request_target};
pub use semaphores::rpw_semaphore_gone;
pub use setup::rpw_setup;
pub use shared::{
    rpw_lua_vm, rpw_shared_delete, rpw_shared_eviction, rpw_shared_get, rpw_shared_keys,
    rpw_shared_memory, rpw_shared_set,
};
pub use stream::*;
pub use trust::{rpw_trust, rpw_upstream_tls};
pub use types::*;
pub use upstreams::rpw_upstreams;
pub use version::{rpw_version, rpw_version_t};
pub use work::{rpw_init_worker, rpw_work_listen, rpw_work_next, rpw_work_waits};

pub use abi_number::RPW_ABI;

/// Returns `RPW_ABI` as the library was built with.
#[unsafe(no_mangle)]
pub extern "C" fn rpw_abi() -> i32 {
    RPW_ABI
}
