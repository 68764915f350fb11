//! Words for what a filter answered and asked for.

use crate::core::effect::{Effect, EffectKind, Effects};
use crate::core::event::Action;
use crate::core::guest::Output;

/// The word for an action.
pub fn action(action: Action) -> &'static str {
    match action {
        Action::Continue => "continue",
        Action::Pause => "pause",
        Action::Respond => "respond",
        Action::Close => "close",
    }
}

/// Each effect in words.
pub fn effects(effects: &Effects) -> Vec<String> {
    effects.iter().map(effect).collect()
}

fn effect(effect: Effect<'_>) -> String {
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    let (name, value) = (text(effect.name), text(effect.value));
    match effect.kind {
        EffectKind::SetRequestHeader => format!("set request header {name}: {value}"),
        EffectKind::AddRequestHeader => format!("add request header {name}: {value}"),
        EffectKind::RemoveRequestHeader => format!("remove request header {name}"),
        EffectKind::SetResponseHeader => format!("set response header {name}: {value}"),
        EffectKind::AddResponseHeader => format!("add response header {name}: {value}"),
        EffectKind::RemoveResponseHeader => format!("remove response header {name}"),
        EffectKind::SetMethod => format!("set method {value}"),
        EffectKind::SetPath => format!("set path {value}"),
        EffectKind::SetStatus => format!("set status {}", effect.number),
        EffectKind::LocalResponse => {
            format!("answer {} with {} bytes", effect.number, effect.value.len())
        }
        EffectKind::LocalResponseHeader => format!("answer with header {name}: {value}"),
    }
}

/// What becomes of a piece of a body.
pub fn body(output: &Output, piece: &[u8]) -> Option<String> {
    match output {
        Output::Unchanged | Output::Pass(_) => None,
        Output::Hold => Some(format!("hold {} bytes", piece.len())),
        Output::Replace(bytes) => {
            Some(format!("pass {} bytes in place of {}", bytes.len(), piece.len()))
        }
    }
}
