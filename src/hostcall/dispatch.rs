//! Calls to other services: not built yet. Addresses are checked, so that a guest's mistake shows now and
//! not later. INTERNAL_FAILURE is what SDKs turn into an error value; UNIMPLEMENTED makes them panic.

use wasmtime::Caller;

use super::memory::{Answer, Return, give, slice, split, write_u32};
use crate::abi::Status;
use crate::codec::header_map;
use crate::guest::State;

pub fn proxy_http_call(
    caller: &mut Caller<'_, State>,
    upstream: u32,
    upstream_size: u32,
    headers: u32,
    headers_size: u32,
    body: u32,
    body_size: u32,
    trailers: u32,
    trailers_size: u32,
    timeout_ms: u32,
    return_token: u32,
) -> Answer {
    let (memory, state) = split(caller)?;
    let upstream = slice(memory, upstream, upstream_size)?;
    let headers = slice(memory, headers, headers_size)?;
    slice(memory, body, body_size)?;
    let trailers = slice(memory, trailers, trailers_size)?;
    slice(memory, return_token, 4)?;
    let maps_are_sound = [headers, trailers].iter().all(|map| header_map::decode(map).is_ok());
    if upstream.is_empty() || timeout_ms > i32::MAX as u32 || !maps_are_sound {
        return Err(Status::BadArgument.into());
    }
    state.warn_once("HTTP calls are not built yet in this version");
    Err(Status::InternalFailure.into())
}

pub fn proxy_grpc_call(
    caller: &mut Caller<'_, State>,
    upstream: u32,
    upstream_size: u32,
    service: u32,
    service_size: u32,
    method: u32,
    method_size: u32,
    metadata: u32,
    metadata_size: u32,
    message: u32,
    message_size: u32,
    _timeout_ms: u32,
    return_id: u32,
) -> Answer {
    let (memory, _) = split(caller)?;
    slice(memory, message, message_size)?;
    let (upstream, service) = ((upstream, upstream_size), (service, service_size));
    refuse_grpc(
        caller,
        [upstream, service, (method, method_size), (metadata, metadata_size)],
        return_id,
    )
}

pub fn proxy_grpc_stream(
    caller: &mut Caller<'_, State>,
    upstream: u32,
    upstream_size: u32,
    service: u32,
    service_size: u32,
    method: u32,
    method_size: u32,
    metadata: u32,
    metadata_size: u32,
    return_id: u32,
) -> Answer {
    let (upstream, service) = ((upstream, upstream_size), (service, service_size));
    refuse_grpc(
        caller,
        [upstream, service, (method, method_size), (metadata, metadata_size)],
        return_id,
    )
}

pub fn proxy_grpc_send(
    caller: &mut Caller<'_, State>,
    _id: u32,
    message: u32,
    message_size: u32,
    _end_of_stream: u32,
) -> Answer {
    let (memory, _) = split(caller)?;
    slice(memory, message, message_size)?;
    Err(Status::NotFound.into())
}

pub fn proxy_grpc_cancel(_: &mut Caller<'_, State>, _id: u32) -> Answer {
    Err(Status::NotFound.into())
}

pub fn proxy_grpc_close(_: &mut Caller<'_, State>, _id: u32) -> Answer {
    Err(Status::NotFound.into())
}

/// The status of the call whose callback is running; outside such a callback 0 and no message.
pub fn proxy_get_status(
    caller: &mut Caller<'_, State>,
    return_code: u32,
    return_data: u32,
    return_size: u32,
) -> Answer {
    let (memory, _) = split(caller)?;
    Return { data: return_data, size: return_size }.check(memory)?;
    write_u32(memory, return_code, 0)?;
    give(caller, Return { data: return_data, size: return_size }, |_| Ok(&[]))
}

fn refuse_grpc(caller: &mut Caller<'_, State>, parts: [(u32, u32); 4], return_id: u32) -> Answer {
    let (memory, state) = split(caller)?;
    for (pointer, size) in parts {
        slice(memory, pointer, size)?;
    }
    slice(memory, return_id, 4)?;
    state.warn_once("gRPC calls are not built yet in this version");
    Err(Status::InternalFailure.into())
}
