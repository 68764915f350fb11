//! Properties.

use std::sync::LazyLock;

use base64::Engine as _;
use rustc_hash::FxHashMap;
use sha2::{Digest, Sha256};
use wasmtime::Caller;

use super::attribute::{self, attribute, charge, has_room, request_path};
use super::headers;
use super::memory::{Answer, give_bytes, slice, split};
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
    match read(state, path) {
        Some(value) => give_bytes(caller, to, value),
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

fn read(state: &mut State, path: &[u8]) -> Option<Vec<u8>> {
    if let Some(kept) = kept(state, path) {
        return Some(kept.to_vec());
    }
    if let Some(property) = BY_PATH.get(path) {
        return builtin(state, property);
    }
    if let Some(name) = path.strip_prefix(b"request\0headers\0") {
        return headers::value(state, MapType::RequestHeaders, name).map(<[u8]>::to_vec);
    }
    if let Some(name) = path.strip_prefix(b"response\0headers\0") {
        return response_header(state, name);
    }
    attribute::property(state, path)
}

fn kept<'a>(state: &'a State, path: &[u8]) -> Option<&'a [u8]> {
    match state.stream() {
        Some(stream) => stream.properties.get(path),
        None => state.contexts.roots.get(&state.call.effective)?.properties.get(path),
    }
}

fn builtin(state: &mut State, property: &Property) -> Option<Vec<u8>> {
    let text = match property.source {
        Source::PluginName => state.plugin.name.clone().into_bytes(),
        Source::RootId => state.plugin.root_id.clone().into_bytes(),
        Source::VmId => state.plugin.vm_id.clone().into_bytes(),
        Source::Memory => {
            return Some((state.limits.memory_size() as u64).to_le_bytes().to_vec());
        }
        Source::Constant(number) => return Some(number.to_le_bytes().to_vec()),
        Source::Missing => return None,
        Source::Path => request_path(state)?,
        Source::UrlPath => {
            let mut path = request_path(state)?;
            path.truncate(path.iter().position(|&b| b == b'?').unwrap_or(path.len()));
            path
        }
        Source::RequestHeader(name) => {
            headers::value(state, MapType::RequestHeaders, name.as_bytes())?.to_vec()
        }
        Source::ResponseHeader(name) => response_header(state, name.as_bytes())?,
        Source::RequestHeaders => return serialized(state, MapType::RequestHeaders),
        Source::ResponseHeaders => return serialized(state, MapType::ResponseHeaders),
        Source::ResponseTrailers => {
            state.request()?;
            return Some(serialized(state, MapType::ResponseTrailers).unwrap_or_default());
        }
        Source::GrpcStatus => {
            let of_trailers =
                |state: &mut State| trailers::one(state, MapType::ResponseTrailers, GRPC_STATUS);
            response_header(state, GRPC_STATUS).or_else(|| of_trailers(state))?
        }
        Source::Attribute(name) => attribute(state, name)?,
        Source::Size(name) => {
            state.request()?;
            attribute(state, name).filter(|v| !v.is_empty()).unwrap_or_else(|| b"0".to_vec())
        }
        Source::ResponseCode => {
            let code = state.host.response_status(state.request()?);
            return (code != 0).then(|| i64::from(code).to_le_bytes().to_vec());
        }
        Source::CodeDetails => code_details(state)?,
        Source::Address(address, port) => joined_address(state, address, port)?,
        Source::Mtls => {
            let verified = attribute(state, Attribute::PeerVerified).is_some();
            state.request()?;
            return Some(vec![u8::from(verified)]);
        }
        Source::PeerDigest => peer_digest(&attribute(state, Attribute::PeerCertificate)?)?,
    };
    match property.value {
        ValueType::Int | ValueType::Uint | ValueType::Timestamp | ValueType::Duration => {
            let number: i64 = std::str::from_utf8(&text).ok()?.parse().ok()?;
            Some(number.to_le_bytes().to_vec())
        }
        _ => Some(text),
    }
}

const GRPC_STATUS: &[u8] = b"grpc-status";

fn serialized(state: &mut State, map: MapType) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    header_map::encode(headers::load(state, map)?, &mut out);
    Some(out)
}

/// From the snapshot, else as it was sent: there is no snapshot in on_log when the response's callbacks were not called.
fn response_header(state: &mut State, name: &[u8]) -> Option<Vec<u8>> {
    if headers::load(state, MapType::ResponseHeaders).is_some() {
        return headers::value(state, MapType::ResponseHeaders, name).map(<[u8]>::to_vec);
    }
    attribute(state, Attribute::ResponseHeader(name))
}

fn code_details(state: &State) -> Option<Vec<u8>> {
    let stream = state.stream()?;
    if stream.responded {
        return Some(stream.response_details.clone());
    }
    // A caller that waits with the guest has the response of another server, which is no upstream of the request's.
    let waited = state.stream().is_some_and(|stream| stream.response_waits);
    let via_upstream = waited || attribute(state, Attribute::UpstreamAnswered).is_some();
    Some(if via_upstream { b"via_upstream".to_vec() } else { b"direct_response".to_vec() })
}

fn joined_address(state: &State, address: Attribute<'_>, port: Attribute<'_>) -> Option<Vec<u8>> {
    let mut address = attribute(state, address)?;
    let port = attribute(state, port).filter(|p| !p.is_empty());
    if let Some(port) = port {
        if address.contains(&b':') && !address.starts_with(b"unix:") {
            address.insert(0, b'[');
            address.push(b']');
        }
        address.push(b':');
        address.extend_from_slice(&port);
    }
    Some(address)
}

/// SHA-256 of the DER inside a PEM certificate.
fn peer_digest(pem: &[u8]) -> Option<Vec<u8>> {
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
    Some(hex::encode(&Sha256::digest(&der)).into_bytes())
}
