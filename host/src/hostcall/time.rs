//! Clocks.

use wasmtime::Caller;

use super::memory::{Answer, split, write_u64};
use crate::guest::State;

pub(super) fn proxy_get_current_time_nanoseconds(
    caller: &mut Caller<'_, State>,
    return_time: u32,
) -> Answer {
    let (memory, state) = split(caller)?;
    Ok(write_u64(memory, return_time, state.host.wall_clock())?)
}
