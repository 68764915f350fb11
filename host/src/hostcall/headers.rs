//! Header maps: reading them.

use wasmtime::Caller;

use super::memory::{Answer, Short, Stop, give, give_bytes, give_copy, slice, split, write_u32};
use super::{attribute, trailers};
use crate::abi::{Attribute, MapType, Status, Version};
use crate::codec::header_map;
use crate::grpc::Event;
use crate::guest::{Return, State, Stream};
use crate::snapshot::HeaderMap;

pub(super) use self::write::{
    proxy_add_header_map_value, proxy_remove_header_map_value, proxy_replace_header_map_value,
    proxy_set_header_map_pairs,
};

#[path = "headers_pseudo.rs"]
mod pseudo;
#[path = "headers_write.rs"]
mod write;

/// `Host` and `:authority` are one header, as in Envoy.
const HOST: &[u8] = b"host";
const AUTHORITY: &[u8] = b":authority";

pub(super) fn proxy_get_header_map_size(
    caller: &mut Caller<'_, State>,
    map: u32,
    return_size: u32,
) -> Answer {
    let map = MapType::try_from(map).map_err(|_| Status::BadArgument)?;
    let (memory, state) = split(caller)?;
    let size = load(state, map).map_or(0, |headers| headers.byte_size() as u32);
    Ok(write_u32(memory, return_size, size)?)
}

pub(super) fn proxy_get_header_map_pairs(
    caller: &mut Caller<'_, State>,
    map: u32,
    return_data: u32,
    return_size: u32,
) -> Answer {
    let map = MapType::try_from(map).map_err(|_| Status::BadArgument)?;
    let to = Return { data: return_data, size: return_size };
    let (memory, state) = split(caller)?;
    to.check(memory)?;
    give_copy(state, to, |state, out| {
        if let Some(headers) = load(state, map) {
            header_map::encode(headers, out);
        }
    })
}

pub(super) fn proxy_get_header_map_value(
    caller: &mut Caller<'_, State>,
    map: u32,
    key: u32,
    key_size: u32,
    return_data: u32,
    return_size: u32,
) -> Answer {
    let map = MapType::try_from(map).map_err(|_| Status::BadArgument)?;
    let to = Return { data: return_data, size: return_size };
    let (memory, state) = split(caller)?;
    to.check(memory)?;
    let key = slice(memory, key, key_size)?;
    if state.shown.ask(map) {
        show_headers(state, map);
    }
    if let Some(found) = value(state, map, key) {
        return match Short::pack(found) {
            Some(short) => Err(Stop::ShortNeedsAllocation(short, to)),
            None => give_copy(state, to, |state, out| {
                out.extend_from_slice(value(state, map, key).unwrap_or_default());
            }),
        };
    }
    match trailers::one(state, map, key) {
        Some(value) => give_bytes(caller, to, value),
        // The first ABI had no way to say "missing".
        None if state.plugin.version == Version::V0_1_0 && load(state, map).is_some() => {
            give(caller, to, |_| Ok(&[]))
        }
        None => Err(Status::NotFound.into()),
    }
}

/// Has the guest look headers up without the host from now on, until something changes.
#[inline(never)]
pub fn show_headers(state: &mut State, map: MapType) {
    let missing = match state.plugin.version {
        // See `proxy_get_header_map_value`: that answers an empty value.
        Version::V0_1_0 => -1,
        _ => Status::NotFound as i32,
    };
    if load(state, map).is_none() {
        return;
    }
    let State { shown, contexts, call, limits, .. } = state;
    let Some(stream) = contexts.streams.get_mut(&call.effective) else { return };
    let headers = match map {
        MapType::RequestHeaders => &stream.request_headers,
        _ => &stream.response_headers,
    };
    shown.show(map, headers, missing, limits.memory_size());
}

/// The first value of a header.
pub(super) fn value<'a>(state: &'a mut State, map: MapType, key: &[u8]) -> Option<&'a [u8]> {
    let is_host = map == MapType::RequestHeaders && key.eq_ignore_ascii_case(HOST);
    load(state, map)?.get(if is_host { AUTHORITY } else { key })
}

/// The map as the effective context sees it now; `None` when it is not there.
#[inline]
pub(super) fn load(state: &mut State, map: MapType) -> Option<&mut HeaderMap> {
    match map {
        MapType::RequestHeaders => request_headers(state),
        MapType::ResponseHeaders => response_headers(state.stream_mut()?),
        _ => load_other(state, map),
    }
}

fn response_headers(stream: &mut Stream) -> Option<&mut HeaderMap> {
    stream.response_headers_loaded.then_some(&mut stream.response_headers)
}

fn load_other(state: &mut State, map: MapType) -> Option<&mut HeaderMap> {
    match map {
        MapType::CallResponseHeaders => state.calls.response_mut().map(|r| &mut r.headers),
        MapType::CallResponseTrailers => state.calls.response_mut().map(|r| &mut r.trailers),
        MapType::ResponseTrailers => trailers::response_trailers(state),
        MapType::GrpcInitialMetadata => match state.calls.grpc_event() {
            Some(Event::InitialMetadata(map)) => Some(map),
            _ => None,
        },
        MapType::GrpcTrailingMetadata => match state.calls.grpc_event() {
            Some(Event::TrailingMetadata(map)) => Some(map),
            _ => None,
        },
        // Hosts show no trailers of requests.
        _ => None,
    }
}

/// Read on first use in each callback: most filters look at few headers, many at none.
fn request_headers(state: &mut State) -> Option<&mut HeaderMap> {
    if !state.stream()?.request_headers_loaded {
        load_request_headers(state);
    }
    Some(&mut state.stream_mut()?.request_headers)
}

fn load_request_headers(state: &mut State) {
    let State { host, contexts, call, .. } = state;
    contexts.loads_request_headers = true;
    if let Some(stream) = contexts.streams.get_mut(&call.effective) {
        stream.request_headers_loaded = true;
        let request = stream.request;
        let headers = &mut stream.request_headers;
        let given = headers.given();
        headers.clear();
        let mut value = Vec::new();
        if host.attribute(request, Attribute::RequestMethod, &mut value) {
            headers.push(b":method", &value);
        }
        if host.attribute(request, Attribute::RequestScheme, &mut value) {
            headers.push(b":scheme", &value);
        }
        if host.attribute(request, Attribute::RequestAuthority, &mut value) {
            headers.push(AUTHORITY, &value);
        }
        attribute::path_now(&**host, &stream.effects, request, &mut value);
        let headers = &mut stream.request_headers;
        headers.push(b":path", &value);
        host.request_headers(request, headers);
        if given == (0, 0) {
            headers.mark_given();
        } else {
            // What the guest has added since is its own.
            headers.set_given(given);
        }
    }
}
