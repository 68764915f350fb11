//! Properties.

use std::sync::LazyLock;

use base64::Engine as _;
use rustc_hash::FxHashMap;
use sha2::{Digest, Sha256};
use wasmtime::Caller;

use super::headers;
use super::memory::{Answer, give_bytes, slice, split};
use super::shown;
use super::trailers;
use crate::abi::{MapType, PROPERTIES, Property, Source, Status, ValueType};
use crate::codec::{header, header_map, path, target};
use crate::guest::{Return, State, Stream};
use crate::limits;
use crate::ports::SetVariableError;

pub fn proxy_get_property(
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
        None if state.stream().is_some_and(|s| !has_variable_room(s, 0)) => {
            state.warn_once(TOO_MANY_VARIABLES);
            Err(Status::InternalFailure.into())
        }
        None => Err(Status::NotFound.into()),
    }
}

pub fn proxy_set_property(
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
    if let (Some(request), Some(name)) = (state.request(), path::variable(path)) {
        if state.stream().is_some_and(|s| !has_variable_room(s, value.len())) {
            state.warn_once(TOO_MANY_VARIABLES);
            return Err(Status::InternalFailure.into());
        }
        // nginx writes variables into messages as they are.
        if !header::is_value(value) && variable(state, name).is_some() {
            state.warn(&format!(
                "nginx variable \"{}\" is not set: a value may hold no CR, LF or NUL",
                shown(name)
            ));
            return Err(Status::BadArgument.into());
        }
        if name.eq_ignore_ascii_case(QUERY) && !target::is_query(value) {
            state.warn(
                "nginx variable \"args\" is not set: a query may hold no white space, control character or #",
            );
            return Err(Status::BadArgument.into());
        }
        match state.host.set_variable(request, name, value) {
            Ok(()) => {
                charge(state, value);
                return Ok(());
            }
            Err(SetVariableError::NotFound) => {}
            Err(SetVariableError::ReadOnly) => {
                state.warn(&format!("nginx variable \"{}\" cannot be set", shown(name)));
                return Err(Status::InternalFailure.into());
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
    variable(state, path::variable(path)?)
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
        Source::Variable(names) => {
            names.iter().find_map(|name| variable(state, name.as_bytes()))?
        }
        Source::Size(name) => {
            state.request()?;
            variable(state, name.as_bytes())
                .filter(|v| !v.is_empty())
                .unwrap_or_else(|| b"0".to_vec())
        }
        Source::Protocol => {
            let protocol = variable(state, b"server_protocol")?;
            protocol
                .strip_suffix(b".0")
                .filter(|p| !p.ends_with(b"/1"))
                .unwrap_or(&protocol)
                .to_vec()
        }
        Source::StartTime => {
            return start_time(state).map(|(start, _)| start.to_le_bytes().to_vec());
        }
        Source::Duration => {
            return start_time(state).map(|(_, since)| since.to_le_bytes().to_vec());
        }
        Source::ResponseCode => {
            let code = state.host.response_status(state.request()?);
            return (code != 0).then(|| i64::from(code).to_le_bytes().to_vec());
        }
        Source::CodeDetails => code_details(state)?,
        Source::Address(address, port) => joined_address(state, address, port)?,
        Source::Upstream { port } => upstream(state, port)?,
        Source::Mtls => {
            let verified = variable(state, b"ssl_client_verify").is_some_and(|v| v == b"SUCCESS");
            state.request()?;
            return Some(vec![u8::from(verified)]);
        }
        Source::PeerDigest => peer_digest(&variable(state, b"ssl_client_raw_cert")?)?,
    };
    match property.value {
        ValueType::Int | ValueType::Uint => {
            let number: i64 = std::str::from_utf8(&text).ok()?.parse().ok()?;
            Some(number.to_le_bytes().to_vec())
        }
        _ => Some(text),
    }
}

pub(super) fn variable(state: &State, name: &[u8]) -> Option<Vec<u8>> {
    let stream = state.stream().filter(|s| has_variable_room(s, 0))?;
    let mut value = Vec::new();
    let found = state.host.variable(stream.request, name, &mut value);
    charge(state, &value);
    found.then_some(value)
}

/// nginx passes it on to upstreams as it is.
const QUERY: &[u8] = b"args";

const GRPC_STATUS: &[u8] = b"grpc-status";

const TOO_MANY_VARIABLES: &str =
    "a filter read and set more of nginx variables in one request than nginx can keep";

fn has_variable_room(stream: &Stream, more: usize) -> bool {
    stream.variable_bytes.get() + more <= limits::VARIABLE_BYTES
}

/// nginx may have made this value in the memory of the request.
fn charge(state: &State, value: &[u8]) {
    const OVERHEAD: usize = 32;
    if let Some(stream) = state.stream() {
        stream.variable_bytes.set(stream.variable_bytes.get() + value.len() + OVERHEAD);
    }
}

fn request_path(state: &State) -> Option<Vec<u8>> {
    let stream = state.stream().filter(|s| has_variable_room(s, 0))?;
    let mut path = Vec::new();
    headers::path_now(&*state.host, &stream.effects, stream.request, &mut path);
    charge(state, &path);
    Some(path)
}

fn serialized(state: &mut State, map: MapType) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    header_map::encode(headers::load(state, map)?, &mut out);
    Some(out)
}

/// From the snapshot, else from nginx's variable for a sent header (there is no snapshot in on_log when
/// the response's callbacks were not called).
fn response_header(state: &mut State, name: &[u8]) -> Option<Vec<u8>> {
    if headers::load(state, MapType::ResponseHeaders).is_some() {
        return headers::value(state, MapType::ResponseHeaders, name).map(<[u8]>::to_vec);
    }
    let mut sent = b"sent_http_".to_vec();
    sent.extend(name.iter().map(|&b| if b == b'-' { b'_' } else { b.to_ascii_lowercase() }));
    variable(state, &sent)
}

/// `(start, time since)` in nanoseconds; nginx counts milliseconds.
fn start_time(state: &State) -> Option<(i64, i64)> {
    let millis = |name: &[u8]| -> Option<i64> {
        let text = variable(state, name)?;
        let (seconds, rest) = std::str::from_utf8(&text).ok()?.split_once('.')?;
        seconds.parse::<i64>().ok()?.checked_mul(1000)?.checked_add(rest.parse().ok()?)
    };
    let since = millis(b"request_time")?;
    let start = millis(b"msec")?.checked_sub(since)?;
    Some((start.checked_mul(1_000_000)?, since.checked_mul(1_000_000)?))
}

fn code_details(state: &State) -> Option<Vec<u8>> {
    let stream = state.stream()?;
    if stream.responded {
        return Some(stream.response_details.clone());
    }
    let via_upstream = variable(state, b"upstream_status").is_some_and(|s| !s.is_empty());
    Some(if via_upstream { b"via_upstream".to_vec() } else { b"direct_response".to_vec() })
}

fn joined_address(state: &State, address: &str, port: &str) -> Option<Vec<u8>> {
    let mut address = variable(state, address.as_bytes())?;
    let port = variable(state, port.as_bytes()).filter(|p| !p.is_empty());
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

/// `$upstream_addr` lists every server that was tried, over commas and (for internal redirects) colons.
fn upstream(state: &State, port: bool) -> Option<Vec<u8>> {
    let all = variable(state, b"upstream_addr")?;
    let all = std::str::from_utf8(&all).ok()?;
    let last = all.rsplit([',', ' ']).find(|part| !part.is_empty() && *part != ":")?;
    if !port {
        return Some(last.as_bytes().to_vec());
    }
    if last.starts_with("unix:") {
        return None;
    }
    last.rsplit_once(':').map(|(_, port)| port.as_bytes().to_vec())
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
    Some(Sha256::digest(&der).iter().flat_map(|b| format!("{b:02x}").into_bytes()).collect())
}
