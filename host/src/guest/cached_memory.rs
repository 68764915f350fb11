//! Where a guest's memory lies, kept from one host function to the next: to ask wasmtime takes longer than most of what
//! they do with it.

use std::ptr::NonNull;

/// See the module. Nothing at first.
#[derive(Default)]
pub struct CachedMemory(Option<NonNull<[u8]>>);

// SAFETY: the memory belongs to the store that this is part of, and goes where that goes.
unsafe impl Send for CachedMemory {}
// SAFETY: there is no way to the memory by a shared one that does not need the store as well, see `CachedMemory::bytes`.
unsafe impl Sync for CachedMemory {}

impl CachedMemory {
    /// Keeps where it is.
    pub fn keep(&mut self, bytes: &mut [u8]) {
        self.0 = Some(NonNull::from(bytes));
    }

    /// Whether that is known.
    #[inline]
    pub fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// It is about to grow, and may move.
    pub fn forget(&mut self) {
        self.0 = None;
    }

    /// The memory.
    ///
    /// # Safety
    /// The caller holds the store for `'a`, takes nothing else out of the memory meanwhile, and has told this each time
    /// before the memory grew.
    pub unsafe fn bytes<'a>(&self) -> Option<&'a mut [u8]> {
        // SAFETY: it is where it was, as the caller vouches.
        self.0.map(|mut bytes| unsafe { bytes.as_mut() })
    }
}
