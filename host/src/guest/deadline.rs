//! The end of a guest's time, as host functions see it.
//!
//! A guest itself compares wasmtime's epoch with the deadline of its store, wherever it loops or enters a function. Code
//! without loops does neither for as long as it only calls host functions. So these look, too, at a count of the same ticks.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::abi::Callback;
use crate::limits;

/// Milliseconds between two ticks.
pub const TICK_MS: u32 = 10;

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

/// The tick in which a guest's time is over.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(u64);

impl Deadline {
    /// None: of a guest that is not running.
    pub const NEVER: Self = Self(u64::MAX);

    /// After that many ticks from now.
    pub fn after(ticks: u64) -> Self {
        Self(passed().saturating_add(ticks))
    }

    /// Whether the time is over.
    #[inline]
    pub fn is_over(self) -> bool {
        passed() >= self.0
    }
}

/// Counts a tick. Any thread may call it.
pub fn tick() {
    TICKS.fetch_add(1, Ordering::Relaxed);
}

/// How many ticks there were: a clock that costs nothing to read.
#[inline]
pub fn passed() -> u64 {
    TICKS.load(Ordering::Relaxed)
}

static TICKS: AtomicU64 = AtomicU64::new(0);
