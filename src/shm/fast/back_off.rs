//! Waiting after a set that came too late.
//!
//! A worker that makes many changes in a row has in its cache what it needs for them. Two workers that take turns wait for
//! each other's caches all the time. So the one that came too late waits for a moment. While that continues the wait grows
//! to some 50 µs, in which the other one makes a few hundred changes.

use std::sync::atomic::Ordering::Relaxed;

use super::super::sync::{AtomicU32, spin};

/// What a set that came too late counts for; one that did not takes 1 away.
const MISS: u32 = 256;

/// Turns of the shortest wait.
const SHORTEST: u32 = 64;

/// How often it is doubled.
const DOUBLINGS: u32 = 5;

/// How often an entry had another version, in the last sets, than the one that a set was for.
#[derive(Default)]
pub(in super::super) struct BackOff {
    misses: AtomicU32,
}

impl BackOff {
    /// A set came in time.
    pub(in super::super) fn hit(&self) {
        self.misses.store(self.misses.load(Relaxed).saturating_sub(1), Relaxed);
    }

    /// A set came too late: waits.
    pub(in super::super) fn miss(&self) {
        let misses = self.misses.load(Relaxed);
        self.misses.store((misses + MISS).min(DOUBLINGS * MISS), Relaxed);
        spin(SHORTEST << (misses / MISS));
    }
}
