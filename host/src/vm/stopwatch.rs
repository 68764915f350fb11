//! The time that callbacks take, at hardly any cost: a clock is read for one in some, which stands for all of them. One
//! that takes long is seen by the ticks that pass meanwhile, and stands for itself.

use super::deadline::TICK_MS;
use crate::guest::{State, deadline};

/// One callback in so many is timed.
const SAMPLE: u32 = 16;

/// Whoever took so long is seen without being timed.
const LONG: u64 = TICK_MS as u64 * 1_000_000;

/// Runs while a callback does.
pub(super) struct Stopwatch {
    /// On the host's monotonic clock.
    started: Option<u64>,
    ticks: u64,
}

impl Stopwatch {
    /// `calls` counts the callbacks.
    pub fn start(calls: &mut u32, state: &State) -> Self {
        let timed = calls.is_multiple_of(SAMPLE);
        *calls = calls.wrapping_add(1);
        let started = timed.then(|| state.host.monotonic_clock());
        Self { started, ticks: deadline::passed() }
    }

    pub fn stop(self, state: &State) {
        let ticks = deadline::passed().wrapping_sub(self.ticks);
        if let Some(started) = self.started {
            let taken = state.host.monotonic_clock().saturating_sub(started);
            let weight = if taken < LONG && ticks == 0 { SAMPLE } else { 1 };
            state.own.time(taken, weight.into());
        } else if ticks > 0 {
            // Half of a tick passed before the first one, as a rule, and as much after the last one.
            state.own.time(ticks * LONG, 1);
        }
    }
}
