//! Bytes that the embedder lends for one event, kept without a lifetime in the data of a VM's store.

use std::ptr::NonNull;

/// See the module. Nothing at first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lent(Option<NonNull<[u8]>>);

// SAFETY: these are shared bytes, which may be read on any thread.
unsafe impl Send for Lent {}
// SAFETY: as above.
unsafe impl Sync for Lent {}

impl Lent {
    /// Keeps where they are.
    ///
    /// # Safety
    /// The value is dropped or overwritten before the bytes are gone.
    pub(super) unsafe fn new(bytes: &[u8]) -> Self {
        Self(Some(NonNull::from(bytes)))
    }

    /// The bytes; none when nothing is lent.
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: they live, as the caller of `new` vouches.
        self.0.map_or(&[], |bytes| unsafe { bytes.as_ref() })
    }
}
