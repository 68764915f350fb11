//! Trailers of a response, as far as the host knows them.

use super::attribute::{charge, has_room};
use crate::abi::{Callback, MapType};
use crate::codec::header;
use crate::guest::State;
use crate::limits;
use crate::snapshot::HeaderMap;

/// The trailers of the effective stream's response; `None` before its body has come to its end.
pub fn response_trailers(state: &mut State) -> Option<&mut HeaderMap> {
    let ended = matches!(state.call.callback, Callback::Done | Callback::Log);
    let stream = state.stream_mut()?;
    if !stream.response_ended && !ended {
        return None;
    }
    if !std::mem::replace(&mut stream.response_trailers_loaded, true) {
        let mut trailers = HeaderMap::new();
        let request = state.stream().filter(|s| has_room(s, 0)).map(|s| s.request);
        if let Some(request) = request {
            state.host.response_trailers(request, &mut trailers);
        }
        trailers.iter().for_each(|(_, value)| charge(state, value));
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

fn trailer(state: &State, name: &[u8]) -> Option<Vec<u8>> {
    if name.len() > limits::SHOWN_BYTES || !header::is_token(name) {
        return None;
    }
    let stream = state.stream().filter(|s| has_room(s, 0))?;
    let mut value = Vec::new();
    let found = state.host.response_trailer(stream.request, name, &mut value);
    charge(state, &value);
    (found && !value.is_empty()).then_some(value)
}
