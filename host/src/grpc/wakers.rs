//! Which parts of a connection are to be looked at again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use parking_lot::Mutex;

/// Which parts must run.
#[derive(Default)]
pub(super) struct Woken {
    machine: AtomicBool,
    streams: Mutex<Vec<u32>>,
}

impl Woken {
    /// The machine must run.
    pub(super) fn wake_machine(&self) {
        self.machine.store(true, Ordering::Relaxed);
    }

    /// Whether the machine must run; once.
    pub(super) fn take_machine(&self) -> bool {
        self.machine.swap(false, Ordering::Relaxed)
    }

    /// Whether the machine must run.
    pub(super) fn is_machine_woken(&self) -> bool {
        self.machine.load(Ordering::Relaxed)
    }

    /// The streams that must run; once.
    pub(super) fn take_streams(&self) -> Vec<u32> {
        std::mem::take(&mut *self.streams.lock())
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_machine();
    }
}

/// Of one stream.
pub(super) struct StreamWaker {
    id: u32,
    waits: AtomicBool,
    woken: Arc<Woken>,
}

impl StreamWaker {
    /// For the stream of that number, which must run at once.
    pub(super) fn new(id: u32, woken: &Arc<Woken>) -> Arc<Self> {
        let waker = Arc::new(Self { id, waits: AtomicBool::new(false), woken: woken.clone() });
        waker.clone().wake();
        waker
    }

    /// The stream runs now; it can be woken again.
    pub(super) fn runs(&self) {
        self.waits.store(false, Ordering::Relaxed);
    }
}

impl Wake for StreamWaker {
    fn wake(self: Arc<Self>) {
        if !self.waits.swap(true, Ordering::Relaxed) {
            self.woken.streams.lock().push(self.id);
        }
    }
}
