//! Shared data: values by key, for all workers, in a space of keys that all filters of one vm_id share.

use wasmtime::Caller;

use super::memory::{Answer, give_current, slice, split};
use crate::abi::Status;
use crate::guest::{Return, State};
use crate::ports::Hint;
use crate::store::Refusal;

pub(super) fn proxy_get_shared_data(
    caller: &mut Caller<'_, State>,
    key: u32,
    key_size: u32,
    return_data: u32,
    return_size: u32,
    return_cas: u32,
) -> Answer {
    let (memory, state) = split(caller)?;
    let key = slice(memory, key, key_size)?;
    let to = Return { data: return_data, size: return_size };
    to.check(memory)?;
    slice(memory, return_cas, 4)?;
    let shared = state.host.shared().ok_or(Status::InternalFailure)?;
    let value = &mut state.handovers.current().value;
    let cas = shared.get(state.plugin.vm_id.as_bytes(), key, value);
    let cas = cas.map_err(|_| Status::InternalFailure)?.ok_or(Status::NotFound)?;
    give_current(state, to, Some((return_cas, cas)))
}

pub(super) fn proxy_set_shared_data(
    caller: &mut Caller<'_, State>,
    key: u32,
    key_size: u32,
    value: u32,
    value_size: u32,
    cas: u32,
) -> Answer {
    let (memory, state) = split(caller)?;
    let key = slice(memory, key, key_size)?;
    let value = slice(memory, value, value_size)?;
    let shared = state.host.shared().ok_or(Status::InternalFailure)?;
    match shared.set(state.plugin.vm_id.as_bytes(), key, value, cas) {
        Ok(_) => Ok(()),
        Err(Refusal::Mismatch) => Err(Status::CasMismatch.into()),
        Err(refusal) => Err(refused(state, refusal)),
    }
}

/// A guest cannot tell these from one another, so a warning does.
pub(super) fn refused(state: &mut State, refusal: Refusal) -> super::memory::Stop {
    match refusal {
        Refusal::Full => state.warn_once_with("the shared memory is full", Hint::SharedMemoryFull),
        Refusal::TooLarge => {
            state.warn_once("a key or a value is larger than the shared memory takes");
        }
        Refusal::TooMany => {
            state.warn_once("the filter has more queues or metrics than the host keeps");
        }
        Refusal::Mismatch | Refusal::TooManyProcesses => {
            state.warn_once("more processes use the shared memory than it has room for");
        }
    }
    Status::InternalFailure.into()
}
