//! Contexts: which one hostcalls work on, and the late end of one.

use wasmtime::Caller;

use super::memory::Answer;
use crate::abi::Status;
use crate::guest::State;

pub(super) fn proxy_set_effective_context(caller: &mut Caller<'_, State>, id: u32) -> Answer {
    let state = caller.data_mut();
    if !state.contexts.streams.contains_key(&id) && !state.contexts.roots.contains_key(&id) {
        return Err(Status::BadArgument.into());
    }
    state.call.effective = id;
    Ok(())
}

/// Only roots wait: the answer of a stream's `proxy_on_done` is not waited for.
pub(super) fn proxy_done(caller: &mut Caller<'_, State>) -> Answer {
    let state = caller.data_mut();
    let id = state.call.effective;
    match state.contexts.roots.get_mut(&id) {
        Some(root) if root.awaits_done => {
            root.awaits_done = false;
            state.call.finished.push(id);
            Ok(())
        }
        _ => Err(Status::NotFound.into()),
    }
}
