//! Holding the lock.

use std::io;
use std::ops::Deref;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::compiler_fence;

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
        self.header().dirty.load(Relaxed) != 0
    }

    /// A change begins: until [`Locked::end_change`] whoever finds it must repair.
    pub fn begin_change(&self) {
        self.header().dirty.store(1, Relaxed);
        // The stores of the change stay behind this one, and before the one that ends it: a killed process has done a
        // first part of what it was told, so the compiler's order is all that matters.
        compiler_fence(std::sync::atomic::Ordering::SeqCst);
    }

    /// See [`Locked::begin_change`].
    pub fn end_change(&self) {
        compiler_fence(std::sync::atomic::Ordering::SeqCst);
        self.header().dirty.store(0, Relaxed);
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
