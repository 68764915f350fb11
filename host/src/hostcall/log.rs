//! Logging.

use wasmtime::Caller;

use super::memory::{Answer, slice, split, write_u32};
use crate::abi::{LogLevel, Status};
use crate::guest::State;

pub(super) fn proxy_log(
    caller: &mut Caller<'_, State>,
    level: u32,
    message: u32,
    size: u32,
) -> Answer {
    let (memory, state) = split(caller)?;
    let level = LogLevel::try_from(level).map_err(|_| Status::BadArgument)?;
    let message = slice(memory, message, size)?;
    state.log(level, message);
    Ok(())
}

pub(super) fn proxy_get_log_level(caller: &mut Caller<'_, State>, return_level: u32) -> Answer {
    let (memory, state) = split(caller)?;
    let level = state.host.log_level(state.request());
    Ok(write_u32(memory, return_level, level as u32)?)
}
