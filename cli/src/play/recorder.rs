//! Which callbacks of a filter ran, and what memory it has: what the core counts of it anyway.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::core::abi::Callback;
use crate::core::store::{Count, Counters};

/// See the module.
pub struct Recorder {
    /// Where the store counts.
    counters: Arc<dyn Counters>,
    /// The callbacks since the last look, in order.
    callbacks: Mutex<Vec<Callback>>,
    memory: AtomicUsize,
}

/// So many are kept between two looks.
const MOST: usize = 10_000;

impl Recorder {
    pub fn new(counters: Arc<dyn Counters>) -> Self {
        Self { counters, callbacks: Mutex::default(), memory: AtomicUsize::new(0) }
    }

    /// The callbacks since the last look.
    pub fn take(&self) -> Vec<Callback> {
        std::mem::take(&mut self.callbacks.lock())
    }

    /// Bytes of memory.
    pub fn memory(&self) -> u64 {
        self.memory.load(Ordering::Relaxed) as u64
    }
}

impl Counters for Recorder {
    fn callback(&self, callback: Callback) {
        self.counters.callback(callback);
        let mut callbacks = self.callbacks.lock();
        if callbacks.len() < MOST {
            callbacks.push(callback);
        }
    }

    fn time(&self, nanoseconds: u64, weight: u64) {
        self.counters.time(nanoseconds, weight);
    }

    fn count(&self, count: Count) {
        self.counters.count(count);
    }

    fn memory_grows(&self, bytes: usize) {
        self.counters.memory_grows(bytes);
        self.memory.fetch_add(bytes, Ordering::Relaxed);
    }

    fn memory_goes(&self, bytes: usize) {
        self.counters.memory_goes(bytes);
        self.memory.fetch_sub(bytes.min(self.memory.load(Ordering::Relaxed)), Ordering::Relaxed);
    }
}
