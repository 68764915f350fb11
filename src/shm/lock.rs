//! Holding the lock.

use std::io;
use std::ops::Deref;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::fence;

use super::region::Region;

/// The region under its lock, which goes when this is dropped.
pub(super) struct Locked<'a> {
    region: &'a Region,
}

impl<'a> Locked<'a> {
    pub fn take(region: &'a Region) -> io::Result<Self> {
        region.acquire()?;
        Ok(Self { region })
    }

    /// Whether a change was left half done, by a process that was killed in the middle of it or by a panic.
    pub fn is_torn(&self) -> bool {
        self.header().changes.load(Relaxed) % 2 == 1
    }

    /// A change begins: until [`Locked::end_change`] whoever finds it must repair.
    pub fn begin_change(&self) {
        let changes = &self.header().changes;
        changes.store(changes.load(Relaxed) | 1, Relaxed);
        // The stores of the change stay behind this one, for who reads without the lock and for who comes after this
        // process was killed.
        fence(Release);
    }

    /// See [`Locked::begin_change`].
    pub fn end_change(&self) {
        let changes = &self.header().changes;
        // And before this one.
        changes.store((changes.load(Relaxed) | 1).wrapping_add(1), Release);
    }

    /// Makes a change. A panic in it leaves it for the next one to repair.
    pub fn change<R>(&self, f: impl FnOnce() -> R) -> R {
        self.begin_change();
        let result = f();
        self.end_change();
        result
    }
}

impl Deref for Locked<'_> {
    type Target = Region;

    fn deref(&self) -> &Region {
        self.region
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.region.release();
    }
}

/// A small region without anything in it.
#[cfg(test)]
pub(super) fn test_region() -> Region {
    Region::new(crate::limits::MIN_SHARED_MEMORY).expect("a mapping")
}
