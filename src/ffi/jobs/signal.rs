//! Says that there is work, and wakes the light thread that does it. The work itself is in `work.rs`.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicI32, Ordering};

use super::super::{forks, nginx};

/// See the module.
#[derive(Default)]
pub(crate) struct Signal {
    /// 1 while some plugin has work. Lua looks at it after each call of the library.
    waits: AtomicI32,
    /// Callbacks are among the work: ticks, queues, contexts to make again or to end.
    callbacks: Cell<bool>,
    /// The semaphore to post when work comes, and in which process.
    listener: Cell<Option<(NonZeroUsize, u64)>>,
}

impl Signal {
    /// Some plugin has work. `is_below_lua`: Lua called, and looks when its call returns.
    pub(crate) fn set(&self, is_below_lua: bool) {
        self.waits.store(1, Ordering::Relaxed);
        if is_below_lua {
            return;
        }
        if let Some(semaphore) = self.listener_of_this_process() {
            nginx::post(semaphore);
        }
    }

    /// The work that was announced is callbacks, too.
    pub(crate) fn set_callbacks(&self) {
        self.callbacks.set(true);
    }

    /// Whether there is work; false the next time.
    pub(crate) fn take(&self) -> bool {
        self.waits.swap(0, Ordering::Relaxed) != 0
    }

    /// Whether there are callbacks among the work; false the next time.
    pub(crate) fn take_callbacks(&self) -> bool {
        self.callbacks.take()
    }

    /// Whether a light thread waits for work.
    pub(crate) fn has_listener(&self) -> bool {
        self.listener_of_this_process().is_some()
    }

    /// The semaphore to post from now on.
    pub(crate) fn listen(&self, semaphore: Option<NonZeroUsize>) {
        self.listener.set(semaphore.map(|semaphore| (semaphore, forks::process())));
    }

    /// The semaphore is about to be freed.
    pub(crate) fn forget(&self, semaphore: NonZeroUsize) {
        if self.listener.get().is_some_and(|(listener, _)| listener == semaphore) {
            self.listener.set(None);
        }
    }

    /// A request may bring calls when no Lua runs any more that would look for them, in on_log: so a light thread must wait.
    pub(crate) fn expect_calls(&self) {
        if !self.has_listener() {
            self.waits.store(1, Ordering::Relaxed);
        }
    }

    /// Where Lua looks.
    pub(crate) fn address(&self) -> *const i32 {
        self.waits.as_ptr()
    }

    fn listener_of_this_process(&self) -> Option<NonZeroUsize> {
        self.listener
            .get()
            .filter(|(_, of)| *of == forks::process())
            .map(|(semaphore, _)| semaphore)
    }
}
