//! Pieces of a response's body that a filter makes, as a vendor's ABI 0.2.100 has them.

use wasmtime::Caller;

use super::memory::{Answer, slice, split};
use crate::abi::{Callback, Status};
use crate::guest::State;
use crate::limits;

/// Has a piece continue to the filters behind and the client, before what becomes of the chunk that the guest is shown. One that
/// comes between two chunks continues with the next one: nothing else makes the server send.
pub(super) fn proxy_inject_encoded_data_to_filter_chain(
    caller: &mut Caller<'_, State>,
    body: u32,
    body_size: u32,
    end_stream: u32,
) -> Answer {
    let (memory, state) = split(caller)?;
    let piece = slice(memory, body, body_size)?;
    let effective = state.call.effective;
    let in_event = state.call.context == effective
        && matches!(state.call.callback, Callback::ResponseHeaders | Callback::ResponseBody);
    let Some(stream) = state.stream() else {
        state.warn("a piece of a body needs a stream, and the effective context is none");
        return Err(Status::BadArgument.into());
    };
    // Where the caller waits with the filter, nothing may have been sent of what it was shown.
    let shown = stream.saw_response_body || stream.response_end_held;
    let under_way = in_event || shown || state.host.headers_sent(stream.request);
    let ended = stream.response_ended || stream.inject_ends || stream.direct_body_sent;
    let size = stream.injected.len() + piece.len();
    let most = state.plugin.body_limit.min(state.contexts.hold_room(stream));
    if !under_way || ended {
        let when =
            if ended { "late: the response has ended" } else { "early: there is no response" };
        state.warn(&format!("a piece of the response's body comes too {when}"));
        return Err(Status::BadArgument.into());
    }
    if size > most {
        state.warn("the filter makes more of the response's body at once than the host holds");
        return Err(Status::InternalFailure.into());
    }
    let Some(stream) = state.stream_mut() else { return Err(Status::BadArgument.into()) };
    stream.injected.extend_from_slice(piece);
    stream.inject_ends |= end_stream != 0;
    // The end of a body that is held is no more waited for.
    let ends_wait = stream.inject_ends && stream.response_end_held && !stream.resume;
    stream.resume |= ends_wait;
    if ends_wait {
        state.call.resumed.push(effective);
    }
    if !in_event {
        state.contexts.count_held(effective);
    }
    Ok(())
}

/// Takes the place of the whole body of a response whose headers the guest is told of. `arguments` is a message of protobuf:
/// 1 the body, 2 whether it ends there.
pub(super) fn on_headers(state: &mut State, arguments: &[u8]) -> Result<Vec<u8>, Status> {
    let Some((body, ends)) = arguments_of(arguments) else { return Err(Status::ParseFailure) };
    let own = state.call.context == state.call.effective;
    let in_headers = own && state.call.callback == Callback::ResponseHeaders;
    if !in_headers || state.stream().is_none_or(|stream| stream.responded) {
        state.warn(
            "inject_encoded_data_to_filter_chain_on_header is for proxy_on_response_headers alone",
        );
        return Err(Status::BadArgument);
    }
    if body.len() > limits::LOCAL_RESPONSE {
        state.warn("a body that takes the place of a response's is larger than the host holds");
        return Err(Status::InternalFailure);
    }
    let body = body.to_vec();
    let Some(stream) = state.stream_mut() else { return Err(Status::BadArgument) };
    if ends {
        stream.direct_body = Some(body);
    } else {
        stream.injected.extend_from_slice(&body);
    }
    Ok(Vec::new())
}

/// Source: the encoding of Protocol Buffers. Unknown fields are skipped.
fn arguments_of(mut message: &[u8]) -> Option<(&[u8], bool)> {
    const VARINT: u64 = 0;
    const FIXED64: u64 = 1;
    const BYTES: u64 = 2;
    const FIXED32: u64 = 5;
    let (mut body, mut ends): (&[u8], bool) = (&[], false);
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let size = match tag & 7 {
            VARINT => {
                let value = varint(&mut message)?;
                if tag >> 3 == 2 {
                    ends = value != 0;
                }
                0
            }
            FIXED64 => 8,
            BYTES => usize::try_from(varint(&mut message)?).ok()?,
            FIXED32 => 4,
            _ => return None,
        };
        let (value, rest) = message.split_at_checked(size)?;
        if tag == 1 << 3 | BYTES {
            body = value;
        }
        message = rest;
    }
    Some((body, ends))
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        assert_eq!(arguments_of(b"\x0a\x02hi\x10\x01"), Some((&b"hi"[..], true)));
        assert_eq!(arguments_of(b"\x10\x00\x0a\x00"), Some((&b""[..], false)));
        assert_eq!(arguments_of(b""), Some((&b""[..], false)));
        assert_eq!(arguments_of(b"\x1a\x01x\x0a\x01y"), Some((&b"y"[..], false)), "unknown fields");
        for bad in [
            &b"\x0a\x03hi"[..],
            b"\x0a",
            b"\x10",
            b"\x0b",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ] {
            assert_eq!(arguments_of(bad), None, "{bad:?}");
        }
    }
}
