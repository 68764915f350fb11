//! Threads beside nginx's own.

use std::thread::{self, JoinHandle};

/// Spawns a thread that takes no signal: they are nginx's, whose handlers belong on its own thread. None of these may be
/// there when nginx forks.
#[allow(
    clippy::disallowed_methods,
    reason = "callers see to it that none is there when nginx forks"
)]
pub(super) fn spawn(
    name: &str,
    stack: usize,
    work: impl FnOnce() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    // SAFETY: both sets are valid, and a thread's mask is its own.
    let (blocked, old) = unsafe {
        let mut all = std::mem::zeroed();
        let mut old = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        (libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut old), old)
    };
    let spawned = thread::Builder::new().name(name.into()).stack_size(stack).spawn(work);
    if blocked == 0 {
        // SAFETY: `old` was written above.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const old, std::ptr::null_mut());
        }
    }
    spawned
}
