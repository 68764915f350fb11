//! Reading attributes and properties of the host for a guest, and the account of what that costs.

use crate::abi::Attribute;
use crate::effect::{EffectKind, Effects};
use crate::guest::{State, Stream};
use crate::limits;
use crate::ports::{Host, RequestId};

/// The warning when [`limits::VARIABLE_BYTES`] would be passed.
pub(super) const TOO_MANY: &str =
    "a filter read and set more of the properties of one request than the host keeps";

/// Whether the guest may read or set a value of that size.
pub(super) fn has_room(stream: &Stream, more: usize) -> bool {
    stream.variable_bytes.get() + more <= limits::VARIABLE_BYTES
}

/// Counts a value, for which the host may have taken memory of the request.
pub(super) fn charge(state: &State, value: &[u8]) {
    const OVERHEAD: usize = 32;
    if let Some(stream) = state.stream() {
        stream.variable_bytes.set(stream.variable_bytes.get() + value.len() + OVERHEAD);
    }
}

/// An attribute of the effective stream's request.
pub(super) fn attribute(state: &State, attribute: Attribute<'_>) -> Option<Vec<u8>> {
    let stream = state.stream().filter(|s| has_room(s, 0))?;
    let mut value = Vec::new();
    let found = state.host.attribute(stream.request, attribute, &mut value);
    charge(state, &value);
    found.then_some(value)
}

/// A property of the host's own.
pub(super) fn property(state: &State, path: &[u8]) -> Option<Vec<u8>> {
    let stream = state.stream().filter(|s| has_room(s, 0) && state.host.has_property(path))?;
    let mut value = Vec::new();
    let found = state.host.property(stream.request, path, &mut value);
    charge(state, &value);
    found.then_some(value)
}

/// The path and the query of the request, as the guest sees them now.
pub(super) fn request_path(state: &State) -> Option<Vec<u8>> {
    let stream = state.stream().filter(|s| has_room(s, 0))?;
    let mut path = Vec::new();
    path_now(&*state.host, &stream.effects, stream.request, &mut path);
    charge(state, &path);
    Some(path)
}

/// Path and query of a request. The host does what a callback wrote when the callback has returned.
pub(super) fn path_now(host: &dyn Host, effects: &Effects, request: RequestId, out: &mut Vec<u8>) {
    let written = effects.iter().filter(|effect| effect.kind == EffectKind::SetPath).last();
    match written {
        Some(effect) => {
            out.clear();
            out.extend_from_slice(effect.value);
        }
        None => {
            if !host.attribute(request, Attribute::RequestPath, out) {
                out.clear();
            }
        }
    }
}
