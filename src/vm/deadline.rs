//! Time limits: how long a guest may run before it is stopped.
//!
//! A guest compares the engine's epoch with its own deadline wherever it loops or enters a function. Deadlines are
//! counted in ticks from the start of a call; whoever runs guests calls [`tick`] every [`TICK_MS`] meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};

use super::engine::engine;
use crate::abi::Callback;
use crate::limits;

/// Milliseconds between two ticks.
pub const TICK_MS: u32 = 10;

/// Lets one tick pass for all guests of the process. Any thread may call it.
pub fn tick() {
    TICKS.fetch_add(1, Ordering::Relaxed);
    if let Ok(engine) = engine() {
        engine.increment_epoch();
    }
}

static TICKS: AtomicU64 = AtomicU64::new(0);

/// How many ticks there were: a clock that costs nothing to read, for what takes long.
pub(super) fn ticks_passed() -> u64 {
    TICKS.load(Ordering::Relaxed)
}

/// How long a guest may run, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLimits {
    /// One callback.
    pub callback: u32,
    /// All of the start code, and each of `proxy_on_vm_start` and `proxy_on_configure`.
    pub start: u32,
}

impl Default for TimeLimits {
    fn default() -> Self {
        Self { callback: limits::DEFAULT_TIME_MS, start: limits::DEFAULT_START_TIME_MS }
    }
}

impl TimeLimits {
    /// The limit of a callback, in milliseconds.
    pub fn of(self, callback: Callback) -> u32 {
        match callback {
            Callback::Start | Callback::VmStart | Callback::Configure => self.start,
            _ => self.callback,
        }
    }
}

/// The ticks after which that many milliseconds have passed for certain: the first one may come at once.
pub(super) fn ticks(milliseconds: u32) -> u64 {
    u64::from(milliseconds.div_ceil(TICK_MS)) + 1
}
