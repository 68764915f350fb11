//! The core without nginx: loading, contexts, events and host functions, on a simulated host, see [`world`].
//!
//! The scriptable guest of `t/guests` does most of the asking; `world/probe.rs` runs its scripts. Tests against a real
//! nginx are in `t/`.
#![allow(
    clippy::disallowed_methods,
    reason = "the bans keep I/O and the environment out of the core; tests read filters and documents"
)]

mod abuse;
mod alone;
mod bodies;
mod bodies_elsewhere;
mod caching;
mod callouts;
mod caps;
mod caps_bodies;
mod cases;
mod codecs;
mod corpus;
mod docs;
mod faults;
mod foreign;
#[path = "../fuzz/bodies/mod.rs"]
mod fuzz;
#[cfg(feature = "grpc")]
mod grpc;
#[cfg(feature = "grpc")]
mod grpc_pool;
#[cfg(feature = "grpc")]
mod h2_frames;
mod handover;
mod header_look_up;
mod headers;
mod hostile;
mod lifecycle;
mod linking;
mod loading;
mod metrics;
mod pausing;
mod properties;
mod proposals;
mod queues;
mod random;
mod recovery;
mod redis;
mod responses;
mod sequences;
mod shared;
mod shared_kills;
mod straight_line;
mod ticks;
mod time_limits;
mod trailers;
mod world;
