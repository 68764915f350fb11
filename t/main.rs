//! Tests against a real nginx.
//!
//! Each test shows its nginx configuration, its request and what it expects in one place; [`support`] starts a fresh
//! nginx for it on a port of its own and, when the test ends, fails it for any warning or worse in the error log that
//! the test did not declare. They need `nginx` on PATH (or named by `RPW_NGINX`) with ngx_lua and lua-resty-core.
#![allow(
    clippy::disallowed_methods,
    reason = "the bans keep I/O, clocks and threads out of the core; tests drive a real server with them"
)]

mod api;
mod finding;
mod harness;
mod load;
mod phases;
mod smoke;
mod support;
