//! Properties that are commands to filters of a vendor's ABI 0.2.100. They are kept like others, too.

use crate::guest::State;
use crate::limits;

/// What paths of tags begin with; the rest is the name of the tag.
pub(super) const SPAN_TAG: &[u8] = b"trace_span_tag.";

/// Does what the setting of a property commands.
pub(super) fn command(state: &mut State, path: &[u8], value: &[u8]) {
    match path {
        b"set_decoder_buffer_limit" => set_limit(state, 0, value),
        b"set_encoder_buffer_limit" => set_limit(state, 1, value),
        b"wasm_need_rebuild" if value == b"true" => state.wants_new_vm = true,
        _ => {}
    }
}

/// What may be held of a body of this stream, up to what the host holds of any.
fn set_limit(state: &mut State, direction: usize, value: &[u8]) {
    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<usize>().ok());
    let Some(number) = number else {
        state.warn("the limit of a body is no number: it stays as it is");
        return;
    };
    if let Some(stream) = state.stream_mut() {
        stream.own_limits[direction] = Some(number.min(limits::MAX_HELD_BODY));
    }
}

/// The variable of a tag, whose name may have what those of variables have not.
pub(super) fn variable_of_tag(tag: &[u8]) -> Vec<u8> {
    let word = |byte: &u8| if byte.is_ascii_alphanumeric() { *byte } else { b'_' };
    let mut name = b"trace_span_tag_".to_vec();
    name.extend(tag.iter().take(LONGEST_TAG).map(word));
    name
}

const LONGEST_TAG: usize = 200;
