//! What a module's bytes show before it runs.

mod call_graph;
pub(super) mod profile;
pub mod proposals;
