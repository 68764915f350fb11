//! Pseudo headers: what may be written, and what comes of it.

use super::write::queue;
use super::{AUTHORITY, HOST};
use crate::abi::{MapType, Status};
use crate::codec::authority::is_authority;
use crate::codec::target::{self, Target};
use crate::effect::EffectKind;
use crate::guest::State;

pub(super) const PATH: &[u8] = b":path";

/// Methods that servers know by number; they know others by name only.
const METHODS: &[&str] = &[
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "OPTIONS",
    "MKCOL",
    "COPY",
    "MOVE",
    "PROPFIND",
    "PROPPATCH",
    "LOCK",
    "UNLOCK",
    "PATCH",
    "TRACE",
];

/// Nothing to say but that it is not allowed.
const NOT_ALLOWED: &str = "";

/// The error continues after "its name or value is not allowed".
pub(super) fn check_pseudo(
    state: &State,
    map: MapType,
    name: &[u8],
    value: &[u8],
) -> Result<(), &'static str> {
    let sound = match (map, name) {
        (MapType::RequestHeaders, b":method") => return check_method(state, value),
        (MapType::RequestHeaders, PATH) => read_target(state, value).is_some(),
        (MapType::RequestHeaders, name) if name == AUTHORITY || name.eq_ignore_ascii_case(HOST) => {
            is_authority(value)
        }
        (MapType::RequestHeaders, b":scheme") => {
            value.first().is_some_and(u8::is_ascii_alphabetic)
                && value.iter().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b))
        }
        (MapType::ResponseHeaders, b":status") => return check_status(state, value),
        _ => false,
    };
    if sound { Ok(()) } else { Err(NOT_ALLOWED) }
}

fn is_known_method(value: &[u8]) -> bool {
    METHODS.iter().any(|method| method.as_bytes() == value)
}

/// Servers take methods of these characters from clients, but for CONNECT.
fn check_method(state: &State, value: &[u8]) -> Result<(), &'static str> {
    const HEAD: &[u8] = b"HEAD";
    let is_method = |b: &u8| b.is_ascii_uppercase() || b"_-".contains(b);
    if value.is_empty() || !value.iter().all(is_method) || value == b"CONNECT" {
        return Err(NOT_ALLOWED);
    }
    let request = state.request().ok_or(NOT_ALLOWED)?;
    let is_head = state.host.is_head(request);
    if value == HEAD && !is_head {
        return Err(": the client asked for a body, and a response to HEAD has none");
    }
    if goes_by_name(is_head, value) && value != HEAD && !state.host.names_methods(request) {
        return Err(": the host cannot pass on that method here");
    }
    Ok(())
}

/// Only the name of such a method is passed on: how the response is framed depends on what the client asked.
fn goes_by_name(is_head: bool, method: &[u8]) -> bool {
    is_head || !is_known_method(method)
}

/// A final status, for a response that is one.
fn check_status(state: &State, value: &[u8]) -> Result<(), &'static str> {
    status_code(value).ok_or(": a status is a number from 200 to 999")?;
    match state.request().map_or(0, |request| state.host.response_status(request)) {
        101 => Err(": the connection has changed its protocol"),
        10..=199 => Err(": the upstream's status is not that of a final response"),
        _ => Ok(()),
    }
}

fn status_code(value: &[u8]) -> Option<i32> {
    let digits = value.len() == 3 && value.iter().all(u8::is_ascii_digit);
    let code = std::str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()?;
    (200..=999).contains(&code).then_some(code)
}

/// A path that a server would take from a client.
fn read_target<'a>(state: &State, value: &'a [u8]) -> Option<Target<'a>> {
    let merge_slashes = state.host.merges_slashes(state.request()?);
    target::parse(value, merge_slashes)
}

/// Does what was checked.
pub(super) fn replace_pseudo(state: &mut State, name: &[u8], value: &[u8]) -> Result<(), Status> {
    match name {
        b":method" => {
            let is_head = state.request().is_some_and(|request| state.host.is_head(request));
            let by_name = i32::from(goes_by_name(is_head, value));
            queue(state, EffectKind::SetMethod, by_name, b"", value)
        }
        PATH => {
            let target = read_target(state, value).ok_or(Status::BadArgument)?;
            queue(state, EffectKind::SetPath, target.query_at as i32, &target.path, value)
        }
        b":authority" => queue(state, EffectKind::SetRequestHeader, 0, b"Host", value),
        b":scheme" => {
            if let Some(request) = state.request() {
                state.host.set_request_scheme(request, value);
            }
            Ok(())
        }
        b":status" => {
            let code = status_code(value).ok_or(Status::BadArgument)?;
            queue(state, EffectKind::SetStatus, code, b"", b"")
        }
        _ => Err(Status::BadArgument),
    }
}
