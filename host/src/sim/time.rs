//! Time for the limits of guests.

use crate::vm::deadline;
use parking_lot::{Mutex, MutexGuard, const_mutex};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A thread that counts the time of guests as long as this lives. The engine is one for the process, so there is one
/// ticker at a time, at the pace of the clock: guests that run meanwhile have their full limits.
pub struct Ticker {
    _only: MutexGuard<'static, ()>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Waits until there is no other one, and starts.
    #[allow(clippy::disallowed_methods, reason = "embedders start this thread")]
    pub fn start() -> Self {
        static ONLY: Mutex<()> = const_mutex(());
        let only = ONLY.lock();
        let over = Arc::new(AtomicBool::new(false));
        let watched = over.clone();
        let work = move || {
            while !watched.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(deadline::TICK_MS.into()));
                deadline::tick();
            }
        };
        Self { _only: only, over, thread: Some(std::thread::spawn(work)) }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
