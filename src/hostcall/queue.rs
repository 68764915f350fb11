//! Shared queues: not built yet. Addresses are checked, so that a guest's mistake shows now and not later.

use wasmtime::Caller;

use super::memory::{Answer, Return, slice, split};
use crate::abi::Status;
use crate::guest::State;

pub fn proxy_register_shared_queue(
    caller: &mut Caller<'_, State>,
    name: u32,
    name_size: u32,
    return_id: u32,
) -> Answer {
    let (memory, state) = split(caller)?;
    slice(memory, name, name_size)?;
    slice(memory, return_id, 4)?;
    state.warn_once("shared queues are not built yet in this version");
    Err(Status::InternalFailure.into())
}

pub fn proxy_resolve_shared_queue(
    caller: &mut Caller<'_, State>,
    vm_id: u32,
    vm_id_size: u32,
    name: u32,
    name_size: u32,
    return_id: u32,
) -> Answer {
    let (memory, _) = split(caller)?;
    slice(memory, vm_id, vm_id_size)?;
    slice(memory, name, name_size)?;
    slice(memory, return_id, 4)?;
    Err(Status::NotFound.into())
}

pub fn proxy_enqueue_shared_queue(
    caller: &mut Caller<'_, State>,
    _id: u32,
    data: u32,
    data_size: u32,
) -> Answer {
    let (memory, _) = split(caller)?;
    slice(memory, data, data_size)?;
    Err(Status::NotFound.into())
}

pub fn proxy_dequeue_shared_queue(
    caller: &mut Caller<'_, State>,
    _id: u32,
    return_data: u32,
    return_size: u32,
) -> Answer {
    let (memory, _) = split(caller)?;
    Return { data: return_data, size: return_size }.check(memory)?;
    Err(Status::NotFound.into())
}
