//! A server without sockets, in which filters run by the core that runs them in nginx.
//!
//! [`loader`] makes filters of bytes, [`server`] answers what the core asks of its host, [`request`] is a request as nginx
//! would show it. A [`chain`] is filters that are configured, [`flow`] is one request on its way through them, [`calls`] says
//! what answers the calls that they make, [`trace`] keeps what happened, and [`meter`] what it cost.

mod attributes;
mod body;
pub mod calls;
pub mod chain;
pub mod counter;
pub mod flow;
pub mod headers;
pub mod loader;
pub mod local;
pub mod meter;
pub mod properties;
mod recorder;
pub mod request;
pub mod server;
mod show;
mod ticker;
pub mod trace;
