//! Handles: the only place where ownership crosses the C ABI.

use std::rc::Rc;

/// Gives one reference away to the caller.
pub(super) fn give<T>(object: Rc<T>) -> *mut T {
    Rc::into_raw(object).cast_mut()
}

/// Takes back a reference that was given away; `None` for NULL.
///
/// # Safety
/// `handle` is NULL or came from [`give`], and is not used again.
pub(super) unsafe fn take<T>(handle: *mut T) -> Option<Rc<T>> {
    // SAFETY: as promised by the caller.
    (!handle.is_null()).then(|| unsafe { Rc::from_raw(handle) })
}

/// A reference of our own beside the caller's; `None` for NULL.
///
/// # Safety
/// `handle` is NULL or came from [`give`], and was not taken back.
pub(super) unsafe fn share<T>(handle: *const T) -> Option<Rc<T>> {
    if handle.is_null() {
        return None;
    }
    // SAFETY: as promised by the caller.
    unsafe {
        Rc::increment_strong_count(handle);
        Some(Rc::from_raw(handle))
    }
}

/// The object behind a handle, for the time of a call; `None` for NULL.
///
/// # Safety
/// As for [`share`].
pub(super) unsafe fn lend<'a, T>(handle: *const T) -> Option<&'a T> {
    // SAFETY: as promised by the caller.
    unsafe { handle.as_ref() }
}
