//! Trailers of a response, as far as nginx shows them: each in a variable of its name, and none of them as a list. So the
//! names are those that the response announces, and those that gRPC has.

use super::property::variable;
use crate::abi::{Callback, MapType};
use crate::codec::header;
use crate::guest::State;
use crate::limits;
use crate::snapshot::HeaderMap;

/// Where names of trailers are announced: as it came, and as it goes out.
const ANNOUNCED: [&[u8]; 2] = [b"upstream_http_trailer", b"sent_http_trailer"];

/// What gRPC sends without announcing it.
const OF_GRPC: [&[u8]; 3] = [b"grpc-status", b"grpc-message", b"grpc-status-details-bin"];

/// The trailers of the effective stream's response; `None` before its body has come to its end.
pub fn response_trailers(state: &mut State) -> Option<&mut HeaderMap> {
    let ended = matches!(state.call.callback, Callback::Done | Callback::Log);
    let stream = state.stream_mut()?;
    if !stream.response_ended && !ended {
        return None;
    }
    if !std::mem::replace(&mut stream.response_trailers_loaded, true) {
        let mut trailers = HeaderMap::new();
        for name in names(state) {
            if let Some(value) = trailer(state, &name) {
                trailers.push(&name, &value);
            }
        }
        state.stream_mut()?.response_trailers = trailers;
    }
    Some(&mut state.stream_mut()?.response_trailers)
}

/// A trailer that a guest asks for by its name, announced or not.
pub fn one(state: &mut State, map: MapType, name: &[u8]) -> Option<Vec<u8>> {
    if map != MapType::ResponseTrailers || response_trailers(state).is_none() {
        return None;
    }
    trailer(state, name)
}

fn names(state: &State) -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    let mut add = |name: &[u8]| {
        let name = name.trim_ascii().to_ascii_lowercase();
        if names.len() < limits::TRAILERS && !names.contains(&name) {
            names.push(name);
        }
    };
    if variable(state, b"content_type").is_some_and(|value| value.starts_with(b"application/grpc"))
    {
        OF_GRPC.iter().for_each(|name| add(name));
    }
    for list in ANNOUNCED {
        let announced = variable(state, list).unwrap_or_default();
        announced.split(|&byte| byte == b',').for_each(&mut add);
    }
    names
}

fn trailer(state: &State, name: &[u8]) -> Option<Vec<u8>> {
    if name.len() > limits::SHOWN_BYTES || !header::is_token(name) {
        return None;
    }
    let name: Vec<u8> = name.iter().map(|&byte| if byte == b'-' { b'_' } else { byte }).collect();
    [&b"upstream_trailer_"[..], b"sent_trailer_"]
        .iter()
        .find_map(|prefix| variable(state, &[prefix, &name[..]].concat()))
        .filter(|value| !value.is_empty())
}
