//! Ticks.

use wasmtime::Caller;

use super::memory::Answer;
use crate::abi::Status;
use crate::guest::State;

/// The period belongs to the root of the effective context; setting it again begins it again.
pub(super) fn proxy_set_tick_period_milliseconds(
    caller: &mut Caller<'_, State>,
    period: u32,
) -> Answer {
    let state = caller.data_mut();
    let effective = state.call.effective;
    let due = state.host.monotonic_clock() + u64::from(period) * NANOS_PER_MS;
    let root = state.contexts.root_of_mut(effective).ok_or(Status::BadArgument)?;
    root.tick_period = period;
    root.tick_due = due;
    state.host.callbacks_wait();
    Ok(())
}

const NANOS_PER_MS: u64 = 1_000_000;
