//! The numbers of effects in the C ABI.

use super::{
    RPW_ADD_REQUEST_HEADER, RPW_ADD_RESPONSE_HEADER, RPW_LOCAL_RESPONSE, RPW_LOCAL_RESPONSE_HEADER,
    RPW_REMOVE_REQUEST_HEADER, RPW_REMOVE_RESPONSE_HEADER, RPW_SET_METHOD, RPW_SET_PATH,
    RPW_SET_REQUEST_HEADER, RPW_SET_RESPONSE_HEADER, RPW_SET_STATUS,
};
use crate::effect::EffectKind;

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
