//! Semaphores of ngx_lua that the library posts.
//!
//! Lua frees a semaphore when nothing in Lua refers to it: after `ngx.thread.kill`, and when a request ends under the light
//! thread that waits. So a stream keeps a token, not a pointer. The semaphore's finalizer in Lua tells the library that the
//! semaphore goes, and from then on its token posts nothing. A token posts once.

use std::cell::RefCell;
use std::ffi::c_void;
use std::num::NonZeroUsize;

use rustc_hash::FxHashMap;

use super::nginx;

/// See the module.
#[derive(Default)]
pub(super) struct Wakers(RefCell<Tokens>);

#[derive(Default)]
struct Tokens {
    last: usize,
    semaphores: FxHashMap<NonZeroUsize, NonZeroUsize>,
    tokens: FxHashMap<NonZeroUsize, NonZeroUsize>,
}

impl Wakers {
    /// A token for a semaphore. An older token of the same semaphore posts nothing any more.
    pub(super) fn add(&self, semaphore: *mut c_void) -> Option<NonZeroUsize> {
        let semaphore = NonZeroUsize::new(semaphore as usize)?;
        let mut wakers = self.0.borrow_mut();
        wakers.last = wakers.last.wrapping_add(1).max(1);
        let token = NonZeroUsize::new(wakers.last)?;
        if let Some(before) = wakers.tokens.insert(semaphore, token) {
            wakers.semaphores.remove(&before);
        }
        wakers.semaphores.insert(token, semaphore);
        Some(token)
    }

    /// Takes the semaphore of a token, when it is still there.
    pub(super) fn take(&self, token: NonZeroUsize) -> Option<NonZeroUsize> {
        let mut wakers = self.0.borrow_mut();
        let semaphore = wakers.semaphores.remove(&token)?;
        wakers.tokens.remove(&semaphore);
        Some(semaphore)
    }

    /// Forgets a semaphore that no request waits on any more.
    pub(super) fn forget(&self, semaphore: *mut c_void) {
        let Some(semaphore) = NonZeroUsize::new(semaphore as usize) else { return };
        let mut wakers = self.0.borrow_mut();
        if let Some(token) = wakers.tokens.remove(&semaphore) {
            wakers.semaphores.remove(&token);
        }
    }

    /// Whether a token still posts a semaphore.
    pub(super) fn is_known(&self, token: NonZeroUsize) -> bool {
        self.0.borrow().semaphores.contains_key(&token)
    }

    /// Posts the semaphore of a token.
    pub(super) fn post(&self, token: NonZeroUsize) {
        if let Some(semaphore) = self.take(token) {
            nginx::post(semaphore);
        }
    }
}
