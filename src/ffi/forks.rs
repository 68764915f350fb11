//! Which process this is. nginx forks after init_by_lua, and forks again to go into the background, so what
//! was made before may belong to another process.

pub(super) use crate::shm::watch_forks as watch;

/// A number that differs between a process and its parent; as cheap to ask as a load. Never 0.
pub(super) fn process() -> u64 {
    u64::from(crate::shm::generation()) + 1
}
