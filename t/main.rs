//! Tests against a real nginx.
//!
//! Each test shows its nginx configuration, its request and what it expects in one place; [`support`] starts a fresh
//! nginx for it on a port of its own and, when the test ends, fails it for any warning or worse in the error log that
//! the test did not declare. They need `nginx` on PATH (or named by `RPW_NGINX`) with ngx_lua and lua-resty-core.
#![allow(
    clippy::disallowed_methods,
    reason = "the bans keep I/O, clocks and threads out of the core; tests drive a real server with them"
)]

mod ai_chain;
mod api;
mod bad_input;
mod body_held;
mod body_kinds;
mod body_length;
mod body_matrix;
mod body_memory;
mod body_none;
mod buffer;
mod cache;
mod calls_allow;
mod calls_hold;
mod chain;
mod chain_held;
mod content;
mod content_stream;
mod content_type;
mod context;
mod doc_configs;
mod ending;
mod escape;
mod examples;
mod filter_store;
mod finding;
mod foreign;
mod framing;
mod gateway;
mod gateway_apisix;
mod grpc;
#[cfg(feature = "grpc")]
mod grpc_allow;
#[cfg(feature = "grpc")]
mod grpc_blocked;
#[cfg(feature = "grpc")]
mod grpc_call;
#[cfg(feature = "grpc")]
mod grpc_examples;
#[cfg(feature = "grpc")]
mod grpc_jobs;
#[cfg(feature = "grpc")]
mod grpc_stream;
#[cfg(feature = "grpc")]
mod grpc_tls;
#[cfg(feature = "grpc")]
mod grpc_tonic;
#[cfg(feature = "grpc")]
#[path = "../tests/h2_frames.rs"]
mod h2_frames;
mod harness;
mod header_lines;
mod headers;
mod headers_connection;
mod headers_refused;
mod headers_snapshot;
mod headers_unknown;
mod headers_write;
mod http_call;
mod install;
mod jit;
mod jobs;
mod jobs_memory;
mod languages;
mod load;
mod loading;
mod local_response;
mod local_response_late;
mod log;
mod memory;
mod metrics;
mod ops;
mod path;
mod phases;
mod process;
mod process_limits;
mod property;
mod property_tls;
mod queue;
mod rate_limit;
mod redis;
mod redis_failures;
mod redis_rate_limit;
mod redis_tls;
mod reload;
mod replace;
mod request_body;
mod response_body;
mod scenarios;
mod shared;
mod smoke;
mod soundness;
mod status_page;
mod stream;
mod stubs;
mod subsystem;
mod support;
mod tick;
mod time;
mod time_limit;
#[cfg(feature = "grpc")]
mod tls_calls;
mod trap;
mod upgrade;
mod upstreams;
mod upstreams_lua;
mod vendor;
mod vendor_stream;
mod waiting;
mod word_guard;
