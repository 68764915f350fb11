//! The numbers of effects in the C ABI, and the effects that need no Lua.

use super::types::{
    RPW_ADD_REQUEST_HEADER, RPW_ADD_RESPONSE_HEADER, RPW_LOCAL_RESPONSE, RPW_LOCAL_RESPONSE_HEADER,
    RPW_REMOVE_REQUEST_HEADER, RPW_REMOVE_RESPONSE_HEADER, RPW_SET_METHOD, RPW_SET_PATH,
    RPW_SET_REQUEST_HEADER, RPW_SET_RESPONSE_HEADER, RPW_SET_STATUS,
};
use super::{header_fields, header_lines, nginx};
use crate::codec::header;
use crate::effect::{Effect, EffectKind};
use crate::ports::{Phase, RequestId};

/// The number by which Lua knows an effect.
pub(super) fn code(kind: EffectKind) -> i32 {
    match kind {
        EffectKind::SetRequestHeader => RPW_SET_REQUEST_HEADER,
        EffectKind::AddRequestHeader => RPW_ADD_REQUEST_HEADER,
        EffectKind::RemoveRequestHeader => RPW_REMOVE_REQUEST_HEADER,
        EffectKind::SetResponseHeader => RPW_SET_RESPONSE_HEADER,
        EffectKind::AddResponseHeader => RPW_ADD_RESPONSE_HEADER,
        EffectKind::RemoveResponseHeader => RPW_REMOVE_RESPONSE_HEADER,
        EffectKind::SetMethod => RPW_SET_METHOD,
        EffectKind::SetPath => RPW_SET_PATH,
        EffectKind::SetStatus => RPW_SET_STATUS,
        EffectKind::LocalResponse => RPW_LOCAL_RESPONSE,
        EffectKind::LocalResponseHeader => RPW_LOCAL_RESPONSE_HEADER,
    }
}

/// The number that Lua gets with an effect: its own, or 1 for a change of a header that ngx_lua's functions would make in
/// another way (see `header_lines.rs`).
#[inline(always)]
pub(super) fn number(effect: &Effect<'_>) -> i32 {
    let is_of_response = || header_fields::is_of_response(effect.name);
    let has_underscore = || effect.name.contains(&b'_');
    match effect.kind {
        EffectKind::SetRequestHeader
        | EffectKind::AddRequestHeader
        | EffectKind::RemoveRequestHeader => header_fields::is_of_request(effect.name).into(),
        EffectKind::SetResponseHeader | EffectKind::AddResponseHeader => {
            let is_odd = !is_plain(effect) && (effect.value.is_empty() || has_underscore());
            (is_odd || header::is_of_http1(effect.name) || is_of_response()).into()
        }
        EffectKind::RemoveResponseHeader => (has_underscore() || is_of_response()).into(),
        EffectKind::SetMethod
        | EffectKind::SetPath
        | EffectKind::SetStatus
        | EffectKind::LocalResponse
        | EffectKind::LocalResponseHeader => effect.number,
    }
}

/// Does what an effect says, when nginx or ngx_lua has a function that does it all; false when it is left to Lua.
#[inline]
pub(super) fn apply(request: RequestId, phase: Option<Phase>, effect: &Effect<'_>) -> bool {
    let (value, alone) = match effect.kind {
        EffectKind::SetResponseHeader => (Some(effect.value), true),
        EffectKind::AddResponseHeader => (Some(effect.value), false),
        EffectKind::RemoveResponseHeader => (None, true),
        _ => return false,
    };
    if number(effect) != 0 {
        return false;
    }
    let adds = effect.kind == EffectKind::AddResponseHeader;
    adds && add_line(request, phase, effect)
        || nginx::set_response_header(request, effect.name, value, alone)
}

/// Adds a line as ngx_lua does, which looks for a field of nginx's first and for characters to escape, where there are none.
/// Before the headers' own phase ngx_lua must know that there are headers.
fn add_line(request: RequestId, phase: Option<Phase>, effect: &Effect<'_>) -> bool {
    (is_plain(effect) || !header::has_control(effect.value))
        && phase.or_else(|| nginx::phase_of_real(request)) == Some(Phase::ResponseHeaders)
        && header_lines::add_to_response(request, effect.name, effect.value, is_plain(effect))
}

/// Whether it is known to add a header that is [plain](header::is_plain).
fn is_plain(effect: &Effect<'_>) -> bool {
    effect.kind == EffectKind::AddResponseHeader && effect.number != 0
}
