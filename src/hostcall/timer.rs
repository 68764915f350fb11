//! Ticks.

use wasmtime::Caller;

use super::memory::Answer;
use crate::abi::Status;
use crate::guest::State;

/// The period belongs to the root of the effective context.
pub fn proxy_set_tick_period_milliseconds(caller: &mut Caller<'_, State>, period: u32) -> Answer {
    let state = caller.data_mut();
    let effective = state.call.effective;
    let root = state.contexts.root_of_mut(effective).ok_or(Status::BadArgument)?;
    root.tick_period = period;
    if period != 0 {
        state.warn_once("a tick was asked for, and this version does not call proxy_on_tick yet");
    }
    Ok(())
}
