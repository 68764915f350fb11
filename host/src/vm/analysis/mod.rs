//! What a module's bytes show before it runs.

mod call_graph;
pub mod profile;
pub mod proposals;
