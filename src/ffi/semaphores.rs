//! Semaphores of ngx_lua that Lua lets go of.

use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::worker;

/// Says that a semaphore which the library may know is about to be freed.
///
/// # Returns
/// Nothing.
/// # Safety
/// None: the pointer is only compared.
#[unsafe(no_mangle)]
pub extern "C" fn rpw_semaphore_gone(semaphore: *mut c_void) {
    let Some(known) = NonZeroUsize::new(semaphore as usize) else { return };
    // Removing from a table does not panic; a finalizer has no caller to tell if it ever did.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        worker::with(|worker| {
            worker.wakers.forget(semaphore);
            worker.signal.forget(known);
        });
    }));
}
