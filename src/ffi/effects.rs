//! The numbers of effects in the C ABI, and the effects that need no Lua.

use super::types::{
    RPW_ADD_REQUEST_HEADER, RPW_ADD_RESPONSE_HEADER, RPW_LOCAL_RESPONSE, RPW_LOCAL_RESPONSE_HEADER,
    RPW_REMOVE_REQUEST_HEADER, RPW_REMOVE_RESPONSE_HEADER, RPW_SET_METHOD, RPW_SET_PATH,
    RPW_SET_REQUEST_HEADER, RPW_SET_RESPONSE_HEADER, RPW_SET_STATUS,
};
use super::{header_fields, nginx};
use crate::codec::header;
use crate::effect::{Effect, EffectKind};
use crate::ports::RequestId;

/// The number by which Lua knows an effect.
pub fn code(kind: EffectKind) -> i32 {
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
pub fn number(effect: &Effect<'_>) -> i32 {
    let is_of_response =
        || effect.name.contains(&b'_') || header_fields::is_of_response(effect.name);
    match effect.kind {
        EffectKind::SetRequestHeader
        | EffectKind::AddRequestHeader
        | EffectKind::RemoveRequestHeader => header_fields::is_of_request(effect.name).into(),
        EffectKind::SetResponseHeader | EffectKind::AddResponseHeader => {
            let is_special = effect.value.is_empty() || header::is_of_http1(effect.name);
            (is_special || is_of_response()).into()
        }
        EffectKind::RemoveResponseHeader => is_of_response().into(),
        EffectKind::SetMethod
        | EffectKind::SetPath
        | EffectKind::SetStatus
        | EffectKind::LocalResponse
        | EffectKind::LocalResponseHeader => effect.number,
    }
}

/// Does what an effect says, when ngx_lua has a function that does it all; false when it is left to Lua.
pub fn apply(request: RequestId, effect: &Effect<'_>) -> bool {
    let (value, alone) = match effect.kind {
        EffectKind::SetResponseHeader => (Some(effect.value), true),
        EffectKind::AddResponseHeader => (Some(effect.value), false),
        EffectKind::RemoveResponseHeader => (None, true),
        _ => return false,
    };
    number(effect) == 0 && nginx::set_response_header(request, effect.name, value, alone)
}
