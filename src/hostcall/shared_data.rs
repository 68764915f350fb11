//! Shared data: not built yet. Addresses are checked, so that a guest's mistake shows now and not later.

use wasmtime::Caller;

use super::memory::{Answer, Return, slice, split};
use crate::abi::Status;
use crate::guest::State;

pub fn proxy_get_shared_data(
    caller: &mut Caller<'_, State>,
    key: u32,
    key_size: u32,
    return_data: u32,
    return_size: u32,
    return_cas: u32,
) -> Answer {
    let (memory, _) = split(caller)?;
    slice(memory, key, key_size)?;
    Return { data: return_data, size: return_size }.check(memory)?;
    slice(memory, return_cas, 4)?;
    Err(Status::NotFound.into())
}

pub fn proxy_set_shared_data(
    caller: &mut Caller<'_, State>,
    key: u32,
    key_size: u32,
    value: u32,
    value_size: u32,
    _cas: u32,
) -> Answer {
    let (memory, state) = split(caller)?;
    slice(memory, key, key_size)?;
    slice(memory, value, value_size)?;
    state.warn_once("shared data is not built yet in this version");
    Err(Status::InternalFailure.into())
}
