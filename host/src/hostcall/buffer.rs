//! Buffers: bodies and configurations.

use wasmtime::Caller;

use super::memory::{Answer, give, slice, split, write_u32};
use crate::abi::{BufferType, Callback, Status};
use crate::grpc::Event;
use crate::guest::{Body, CallResult, Return, State, Stream};

pub(super) fn proxy_get_buffer_bytes(
    caller: &mut Caller<'_, State>,
    buffer: u32,
    start: u32,
    max_size: u32,
    return_data: u32,
    return_size: u32,
) -> Answer {
    let buffer = BufferType::try_from(buffer).map_err(|_| Status::BadArgument)?;
    if start.checked_add(max_size).is_none()
        && start as usize <= content(caller.data(), buffer)?.len()
    {
        return Err(Status::BadArgument.into());
    }
    give(caller, Return { data: return_data, size: return_size }, move |state| {
        let bytes = content(state, buffer)?;
        let rest = bytes.get(start as usize..).unwrap_or_default();
        Ok(&rest[..rest.len().min(max_size as usize)])
    })
}

pub(super) fn proxy_get_buffer_status(
    caller: &mut Caller<'_, State>,
    buffer: u32,
    return_size: u32,
    return_flags: u32,
) -> Answer {
    let buffer = BufferType::try_from(buffer).map_err(|_| Status::BadArgument)?;
    let (memory, state) = split(caller)?;
    let size = content(state, buffer)?.len() as u32;
    slice(memory, return_flags, 4)?;
    write_u32(memory, return_size, size)?;
    Ok(write_u32(memory, return_flags, 0)?)
}

pub(super) fn proxy_set_buffer_bytes(
    caller: &mut Caller<'_, State>,
    buffer: u32,
    start: u32,
    size: u32,
    data: u32,
    data_size: u32,
) -> Answer {
    let buffer = BufferType::try_from(buffer).map_err(|_| Status::BadArgument)?;
    let (memory, state) = split(caller)?;
    let value = slice(memory, data, data_size)?;
    let body = writable(state, buffer)?;
    if body.splice(start as usize, size as usize, value) {
        if !is_event_of(state, buffer) {
            let stream = state.call.effective;
            state.contexts.count_held(stream);
        }
        return Ok(());
    }
    state.warn("the body would pass the limit of what a filter may make of it");
    Err(Status::InternalFailure.into())
}

/// ABI 0.1.0: the plugin configuration, or the VM's while `proxy_on_vm_start` runs.
pub(super) fn proxy_get_configuration(
    caller: &mut Caller<'_, State>,
    return_data: u32,
    return_size: u32,
) -> Answer {
    let buffer = if caller.data().call.callback == Callback::VmStart {
        BufferType::VmConfiguration
    } else {
        BufferType::PluginConfiguration
    };
    give(caller, Return { data: return_data, size: return_size }, move |state| {
        content(state, buffer)
    })
}

fn content(state: &State, buffer: BufferType) -> Result<&[u8], Status> {
    let body = |of: fn(&Stream) -> &Body| {
        state.stream().and_then(|s| of(s).readable()).ok_or(Status::NotFound)
    };
    match buffer {
        BufferType::RequestBody => body(|s| &s.request_body),
        BufferType::ResponseBody => body(|s| &s.response_body),
        BufferType::VmConfiguration => Ok(&state.plugin.vm_config),
        BufferType::PluginConfiguration => state
            .contexts
            .root_of(state.call.effective)
            .map(|root| &*root.configuration)
            .ok_or(Status::NotFound),
        BufferType::CallResponseBody => {
            state.calls.response().map(|response| &*response.body).ok_or(Status::NotFound)
        }
        BufferType::ForeignArguments => match &state.calls.answer {
            Some(CallResult::Foreign(result, _)) => Ok(result),
            _ => Err(Status::NotFound),
        },
        BufferType::GrpcMessage => match &state.calls.answer {
            Some(CallResult::Grpc(Event::Message(message))) => Ok(message),
            _ => Err(Status::NotFound),
        },
        BufferType::RedisAnswer => match &state.calls.answer {
            Some(CallResult::Redis(Ok(answer))) => Ok(answer),
            _ => Err(Status::NotFound),
        },
        BufferType::DownstreamData | BufferType::UpstreamData => Err(Status::NotFound),
    }
}

fn writable(state: &mut State, buffer: BufferType) -> Result<&mut Body, Status> {
    let in_event = is_event_of(state, buffer);
    let room = state.stream().map_or(0, |stream| state.contexts.hold_room(stream));
    let stream = state.stream_mut().ok_or(Status::BadArgument)?;
    let (body, grown) = match buffer {
        BufferType::RequestBody => (&mut stream.request_body, stream.request_passed.len()),
        BufferType::ResponseBody => {
            let (taken, given) = stream.response_bytes;
            let grown = usize::try_from(given.saturating_sub(taken)).unwrap_or(usize::MAX);
            (&mut stream.response_body, grown)
        }
        _ => return Err(Status::BadArgument),
    };
    if body.readable().is_none() {
        return Err(Status::BadArgument);
    }
    if !in_event {
        body.leave_room_between(room, grown);
    }
    Ok(body)
}

/// Whether the callback that runs is the one that shows this body; else the body is held.
fn is_event_of(state: &State, buffer: BufferType) -> bool {
    let callback = match buffer {
        BufferType::RequestBody => Callback::RequestBody,
        _ => Callback::ResponseBody,
    };
    state.call.callback == callback && state.call.context == state.call.effective
}
