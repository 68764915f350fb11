//! What the lock is made of. `loom/` has the same by another name: there these files run in all orders that the memory model
//! allows.

use std::time::Duration;

pub(super) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, fence};

/// Waits for a moment, by that many turns.
#[inline]
pub(super) fn spin(turns: u32) {
    (0..turns).for_each(|_| std::hint::spin_loop());
}

/// Waits for so long.
#[allow(clippy::disallowed_methods, reason = "this thread waits, and continues by itself")]
pub(super) fn sleep(time: Duration) {
    std::thread::sleep(time);
}
