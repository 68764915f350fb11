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

/// Puts an attribute of the effective stream's request into `out`.
pub(super) fn attribute(state: &State, attribute: Attribute<'_>, out: &mut Vec<u8>) -> Option<()> {
    let stream = state.stream().filter(|s| has_room(s, 0))?;
    let found = state.host.attribute(stream.request, attribute, out);
    charge(state, out);
    found.then_some(())
}

/// Puts a property of the host's own into `out`.
pub(super) fn property(state: &State, path: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let stream = state.stream().filter(|s| has_room(s, 0) && state.host.has_property(path))?;
    let found = state.host.property(stream.request, path, out);
    charge(state, out);
    found.then_some(())
}

/// Puts the path and the query of the request, as the guest sees them now, into `out`.
pub(super) fn request_path(state: &State, out: &mut Vec<u8>) -> Option<()> {
    let stream = state.stream().filter(|s| has_room(s, 0))?;
    path_now(&*state.host, &stream.effects, stream.request, out);
    charge(state, out);
    Some(())
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
