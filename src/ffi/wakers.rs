//! Semaphores of ngx_lua that the library posts.
//!
//! Lua frees a semaphore when nothing in Lua refers to it: after `ngx.thread.kill`, and when a request ends under the light
//! thread that waits. So a stream keeps a token, not a pointer. The semaphore's finalizer in Lua tells the library that the
//! semaphore goes, and from then on its token posts nothing. A token posts once.

use std::cell::RefCell;
use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustc_hash::FxHashMap;

use super::{nginx, work};

#[derive(Default)]
struct Wakers {
    last: usize,
    semaphores: FxHashMap<NonZeroUsize, NonZeroUsize>,
    tokens: FxHashMap<NonZeroUsize, NonZeroUsize>,
}

thread_local! {
    static WAKERS: RefCell<Wakers> = RefCell::default();
}

/// A token for a semaphore. An older token of the same semaphore posts nothing any more.
pub fn add(semaphore: *mut c_void) -> Option<NonZeroUsize> {
    let semaphore = NonZeroUsize::new(semaphore as usize)?;
    WAKERS.with_borrow_mut(|wakers| {
        wakers.last = wakers.last.wrapping_add(1).max(1);
        let token = NonZeroUsize::new(wakers.last)?;
        if let Some(before) = wakers.tokens.insert(semaphore, token) {
            wakers.semaphores.remove(&before);
        }
        wakers.semaphores.insert(token, semaphore);
        Some(token)
    })
}

/// Takes the semaphore of a token, when it is still there.
pub fn take(token: NonZeroUsize) -> Option<NonZeroUsize> {
    WAKERS.with_borrow_mut(|wakers| {
        let semaphore = wakers.semaphores.remove(&token)?;
        wakers.tokens.remove(&semaphore);
        Some(semaphore)
    })
}

/// Forgets a semaphore that is not waited on any more.
pub fn forget(semaphore: *mut c_void) {
    let Some(semaphore) = NonZeroUsize::new(semaphore as usize) else { return };
    WAKERS.with_borrow_mut(|wakers| {
        if let Some(token) = wakers.tokens.remove(&semaphore) {
            wakers.semaphores.remove(&token);
        }
    });
}

/// Whether a token still posts a semaphore.
pub fn is_known(token: NonZeroUsize) -> bool {
    WAKERS.with_borrow(|wakers| wakers.semaphores.contains_key(&token))
}

/// Posts the semaphore of a token.
pub fn post(token: NonZeroUsize) {
    if let Some(semaphore) = take(token) {
        nginx::post(semaphore);
    }
}

/// Says that a semaphore which the library may know is about to be freed.
///
/// # Returns
/// Nothing.
/// # Safety
/// None: the pointer is only compared.
#[unsafe(no_mangle)]
pub extern "C" fn rpw_semaphore_gone(semaphore: *mut c_void) {
    let Some(known) = NonZeroUsize::new(semaphore as usize) else { return };
    // Removing from a table does not panic, but a finalizer has nobody to tell if it ever did.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        forget(semaphore);
        work::forget_listener(known);
    }));
}
