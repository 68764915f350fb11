//! Properties.

use std::sync::LazyLock;

use base64::Engine as _;
use rustc_hash::FxHashMap;
use sha2::{Digest, Sha256};
use wasmtime::Caller;

use super::attribute::{self, attribute, charge, has_room, request_path};
use super::headers;
use super::memory::{Answer, build_current, give_current, slice, split};
use super::trailers;
use super::vendor;
use crate::abi::{Attribute, MapType, PROPERTIES, Property, Source, Status, ValueType};
use crate::codec::{header_map, hex, path};
use crate::guest::{Return, State};
use crate::limits;
use crate::ports::SetPropertyError;

pub(super) fn proxy_get_property(
    caller: &mut Caller<'_, State>,
    path: u32,
    path_size: u32,
    return_data: u32,
    return_size: u32,
) -> Answer {
    let to = Return { data: return_data, size: return_size };
    let (memory, state) = split(caller)?;
    to.check(memory)?;
    let path = path::trim(slice(memory, path, path_size)?);
    if path.len() > limits::PROPERTY_PATH {
        return Err(Status::NotFound.into());
    }
    let found = build_current(state, |state, out| {
        let found = read(state, path, out);
        if found.is_none() {
            out.clear();
        }
        found
    });
    match found {
        Some(()) => give_current(state, to, None),
        None if state.stream().is_some_and(|s| !has_room(s, 0)) => {
            state.warn_once(attribute::TOO_MANY);
            Err(Status::InternalFailure.into())
        }
        None => Err(Status::NotFound.into()),
    }
}

pub(super) fn proxy_set_property(
    caller: &mut Caller<'_, State>,
    path: u32,
    path_size: u32,
    value: u32,
    value_size: u32,
) -> Answer {
    let (memory, state) = split(caller)?;
    let path = path::trim(slice(memory, path, path_size)?);
    let value = slice(memory, value, value_size)?;
    if path.len() > limits::PROPERTY_PATH {
        state.warn_once("a property's path is longer than the host keeps");
        return Err(Status::InternalFailure.into());
    }
    if state.plugin.vendor {
        vendor::command(state, path, value);
    }
    let tag = path.strip_prefix(vendor::SPAN_TAG).map(vendor::variable_of_tag);
    let at = tag.as_deref().unwrap_or(path);
    if let Some(request) = state.request().filter(|_| state.host.has_property(at)) {
        if state.stream().is_some_and(|s| !has_room(s, value.len())) {
            state.warn_once(attribute::TOO_MANY);
            return Err(Status::InternalFailure.into());
        }
        match state.host.set_property(request, at, value) {
            Ok(()) => {
                charge(state, value);
                return Ok(());
            }
            Err(SetPropertyError::NotFound) => {}
            Err(SetPropertyError::ReadOnly(why)) => {
                state.warn(&why);
                return Err(Status::InternalFailure.into());
            }
            Err(SetPropertyError::BadValue(why)) => {
                state.warn(&why);
                return Err(Status::BadArgument.into());
            }
        }
    }
    let effective = state.call.effective;
    let kept = state.contexts.keep_property(effective, path, value);
    if kept.ok_or(Status::NotFound)? {
        return Ok(());
    }
    state.warn_once("a filter kept more properties than the host holds for it");
    Err(Status::InternalFailure.into())
}

static BY_PATH: LazyLock<FxHashMap<Vec<u8>, &'static Property>> = LazyLock::new(|| {
    PROPERTIES.iter().map(|p| (p.path.replace('.', "\0").into_bytes(), p)).collect()
});

/// Puts the value of a property into `out`.
fn read(state: &mut State, path: &[u8], out: &mut Vec<u8>) -> Option<()> {
    if let Some(kept) = kept(state, path) {
        return put(out, kept);
    }
    if let Some(property) = BY_PATH.get(path) {
        return builtin(state, property, out);
    }
    if let Some(name) = path.strip_prefix(b"request\0headers\0") {
        return put(out, headers::value(state, MapType::RequestHeaders, name)?);
    }
    if let Some(name) = path.strip_prefix(b"response\0headers\0") {
        return response_header(state, name, out);
    }
    attribute::property(state, path, out)
}

/// Puts a value in place of what is in `out`.
fn put(out: &mut Vec<u8>, value: &[u8]) -> Option<()> {
    out.clear();
    out.extend_from_slice(value);
    Some(())
}

fn kept<'a>(state: &'a State, path: &[u8]) -> Option<&'a [u8]> {
    match state.stream() {
        Some(stream) => stream.properties.get(path),
        None => state.contexts.roots.get(&state.call.effective)?.properties.get(path),
    }
}

fn builtin(state: &mut State, property: &Property, out: &mut Vec<u8>) -> Option<()> {
    match property.source {
        Source::PluginName => put(out, state.plugin.name.as_bytes()),
        Source::RootId => put(out, state.plugin.root_id.as_bytes()),
        Source::VmId => put(out, state.plugin.vm_id.as_bytes()),
        Source::Memory => {
            return put(out, &(state.limits.memory_size() as u64).to_le_bytes());
        }
        Source::Constant(number) => return put(out, &number.to_le_bytes()),
        Source::Missing => None,
        Source::Path => request_path(state, out),
        Source::UrlPath => request_path(state, out)
            .map(|()| out.truncate(out.iter().position(|&b| b == b'?').unwrap_or(out.len()))),
        Source::RequestHeader(name) => {
            put(out, headers::value(state, MapType::RequestHeaders, name.as_bytes())?)
        }
        Source::ResponseHeader(name) => response_header(state, name.as_bytes(), out),
        Source::RequestHeaders => return serialized(state, MapType::RequestHeaders, out),
        Source::ResponseHeaders => return serialized(state, MapType::ResponseHeaders, out),
        Source::ResponseTrailers => {
            state.request()?;
            serialized(state, MapType::ResponseTrailers, out);
            return Some(());
        }
        Source::GrpcStatus => match response_header(state, GRPC_STATUS, out) {
            Some(()) => Some(()),
            None => put(out, &trailers::one(state, MapType::ResponseTrailers, GRPC_STATUS)?),
        },
        Source::Attribute(name) => attribute(state, name, out),
        Source::Size(name) => {
            state.request()?;
            let size = attribute(state, name, out).filter(|()| !out.is_empty());
            size.or_else(|| put(out, b"0"))
        }
        Source::ResponseCode => {
            let code = state.host.response_status(state.request()?);
            return if code != 0 { put(out, &i64::from(code).to_le_bytes()) } else { None };
        }
        Source::CodeDetails => code_details(state, out),
        Source::Address(address, port) => joined_address(state, address, port, out),
        Source::Mtls => {
            let verified = attribute(state, Attribute::PeerVerified, out).is_some();
            state.request()?;
            return put(out, &[u8::from(verified)]);
        }
        Source::PeerDigest => {
            attribute(state, Attribute::PeerCertificate, out)?;
            let digest = peer_digest(out)?;
            put(out, digest.as_bytes())
        }
    }?;
    match property.value {
        ValueType::Int | ValueType::Uint | ValueType::Timestamp | ValueType::Duration => {
            let number: i64 = std::str::from_utf8(out).ok()?.parse().ok()?;
            put(out, &number.to_le_bytes())
        }
        _ => Some(()),
    }
}

const GRPC_STATUS: &[u8] = b"grpc-status";

fn serialized(state: &mut State, map: MapType, out: &mut Vec<u8>) -> Option<()> {
    header_map::encode(headers::load(state, map)?, out);
    Some(())
}

/// From the snapshot, else as it was sent: there is no snapshot in on_log when the response's callbacks were not called.
fn response_header(state: &mut State, name: &[u8], out: &mut Vec<u8>) -> Option<()> {
    if headers::load(state, MapType::ResponseHeaders).is_some() {
        return put(out, headers::value(state, MapType::ResponseHeaders, name)?);
    }
    attribute(state, Attribute::ResponseHeader(name), out)
}

fn code_details(state: &State, out: &mut Vec<u8>) -> Option<()> {
    let stream = state.stream()?;
    if stream.responded {
        return put(out, &stream.response_details);
    }
    // A caller that waits with the guest has the response of another server, which is no upstream of the request's.
    let via_upstream =
        stream.response_waits || attribute(state, Attribute::UpstreamAnswered, out).is_some();
    put(out, if via_upstream { b"via_upstream" } else { b"direct_response" })
}

fn joined_address(
    state: &State,
    address: Attribute<'_>,
    port: Attribute<'_>,
    out: &mut Vec<u8>,
) -> Option<()> {
    attribute(state, address, out)?;
    let mut number = Vec::new();
    let port = attribute(state, port, &mut number).filter(|()| !number.is_empty());
    if port.is_some() {
        if out.contains(&b':') && !out.starts_with(b"unix:") {
            out.insert(0, b'[');
            out.push(b']');
        }
        out.push(b':');
        out.extend_from_slice(&number);
    }
    Some(())
}

/// SHA-256 of the DER inside a PEM certificate.
fn peer_digest(pem: &[u8]) -> Option<String> {
    let pem = std::str::from_utf8(pem).ok()?;
    let text: String = pem
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .flat_map(|line| line.chars().filter(|c| !c.is_whitespace()))
        .collect();
    let der = base64::engine::general_purpose::STANDARD
        .decode(text)
        .ok()
        .filter(|der| !der.is_empty())?;
    Some(hex::encode(&Sha256::digest(&der)))
}
