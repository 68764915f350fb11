//! The time that callbacks take, at hardly any cost: a clock is read for one in some, which stands for all of them. One
//! that takes long is seen by the ticks that pass meanwhile, and stands for itself.

use super::deadline::TICK_MS;
use crate::guest::{State, deadline};

/// One callback in so many is timed.
const SAMPLE: u32 = 16;

/// A callback that takes so long is seen without being timed.
const LONG: u64 = TICK_MS as u64 * 1_000_000;

/// A callback begins.
#[inline]
pub(super) fn start(state: &mut State) {
    let call = &mut state.call;
    call.ticks = deadline::passed();
    call.timed_from = None;
    if call.count.is_multiple_of(SAMPLE) {
        time_this(state);
    }
    state.call.count = state.call.count.wrapping_add(1);
}

#[cold]
fn time_this(state: &mut State) {
    state.call.timed_from = Some(state.host.monotonic_clock());
}

/// The callback has ended.
#[inline]
pub(super) fn stop(state: &State) {
    if state.call.timed_from.is_some() || deadline::passed() != state.call.ticks {
        count(state);
    }
}

#[cold]
fn count(state: &State) {
    let ticks = deadline::passed().wrapping_sub(state.call.ticks);
    if let Some(started) = state.call.timed_from {
        let taken = state.host.monotonic_clock().saturating_sub(started);
        let weight = if taken < LONG && ticks == 0 { SAMPLE } else { 1 };
        state.own.time(taken, weight.into());
    } else {
        // Half of a tick passed before the first one, as a rule, and as much after the last one.
        state.own.time(ticks * LONG, 1);
    }
}
