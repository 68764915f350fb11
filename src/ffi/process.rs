//! Which process this is. nginx forks after init_by_lua, and forks again to go into the background, so what
//! was made before may belong to another process.

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

static PROCESS: AtomicU64 = AtomicU64::new(1);

/// A number that differs between a process and its parent; as cheap to ask as a load.
pub fn current() -> u64 {
    PROCESS.load(Ordering::Relaxed)
}

/// Starts counting forks.
pub fn watch_forks() {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        // SAFETY: the handler only adds to an atomic, which is safe in the child of a fork; the library is
        // never unloaded (it is linked with -z nodelete), so the address stays good.
        unsafe {
            libc::pthread_atfork(None, None, Some(in_child));
        }
    });
}

unsafe extern "C" fn in_child() {
    PROCESS.fetch_add(1, Ordering::Relaxed);
}
