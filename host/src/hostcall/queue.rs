//! Shared queues: messages for all workers. The one that registered a queue last is notified of each that comes.

use wasmtime::Caller;

use super::memory::{Answer, Stop, give_bytes, slice, split, write_u32};
use super::shared_data::refused;
use crate::abi::Status;
use crate::guest::{Return, State};
use crate::limits;
use crate::store::Refusal;

pub(super) fn proxy_register_shared_queue(
    caller: &mut Caller<'_, State>,
    name: u32,
    name_size: u32,
    return_id: u32,
) -> Answer {
    let (memory, state) = split(caller)?;
    let name = slice(memory, name, name_size)?;
    slice(memory, return_id, 4)?;
    let host = state.host.clone();
    let shared = host.shared().ok_or(Status::InternalFailure)?;
    let id = match shared.queue(state.plugin.vm_id.as_bytes(), name) {
        Ok(id) => id,
        Err(refusal) => return Err(refused(state, refusal)),
    };
    let effective = state.call.effective;
    state.contexts.listen(effective, id);
    host.callbacks_wait();
    Ok(write_u32(memory, return_id, id)?)
}

pub(super) fn proxy_resolve_shared_queue(
    caller: &mut Caller<'_, State>,
    vm_id: u32,
    vm_id_size: u32,
    name: u32,
    name_size: u32,
    return_id: u32,
) -> Answer {
    let (memory, state) = split(caller)?;
    let vm_id = slice(memory, vm_id, vm_id_size)?;
    let name = slice(memory, name, name_size)?;
    slice(memory, return_id, 4)?;
    if vm_id.len() > limits::SHARED_KEY {
        return Err(Status::NotFound.into());
    }
    let vm_id = if vm_id.is_empty() { state.plugin.vm_id.as_bytes() } else { vm_id };
    let shared = state.host.shared().ok_or(Status::NotFound)?;
    // An SDK knows no other failure here.
    let id = shared.find_queue(vm_id, name).ok().flatten().ok_or(Status::NotFound)?;
    Ok(write_u32(memory, return_id, id)?)
}

pub(super) fn proxy_enqueue_shared_queue(
    caller: &mut Caller<'_, State>,
    id: u32,
    data: u32,
    data_size: u32,
) -> Answer {
    let (memory, state) = split(caller)?;
    let message = slice(memory, data, data_size)?;
    let host = state.host.clone();
    let shared = host.shared().ok_or(Status::NotFound)?;
    match shared.enqueue(id, message) {
        Ok(Some(address)) => {
            host.wake_listener(address);
            Ok(())
        }
        Ok(None) => Err(Status::NotFound.into()),
        Err(Refusal::TooMany) => {
            state.warn_once("a queue is full: no filter takes its messages out");
            Err(Status::InternalFailure.into())
        }
        Err(refusal) => Err(refused(state, refusal)),
    }
}

pub(super) fn proxy_dequeue_shared_queue(
    caller: &mut Caller<'_, State>,
    id: u32,
    return_data: u32,
    return_size: u32,
) -> Answer {
    let (memory, state) = split(caller)?;
    let to = Return { data: return_data, size: return_size };
    to.check(memory)?;
    let mut message = Vec::new();
    let shared = state.host.shared().ok_or(Status::NotFound)?;
    match shared.dequeue(id, &mut message) {
        Ok(Some(true)) => give_bytes(caller, to, message),
        Ok(Some(false)) => Err(Stop::Status(Status::Empty)),
        Ok(None) => Err(Status::NotFound.into()),
        Err(refusal) => Err(refused(state, refusal)),
    }
}
