//! The course of a stream: going on, ending, answering in place of the upstream.

use wasmtime::Caller;

use super::headers;
use super::memory::{Answer, slice, split};
use crate::abi::{Callback, MapType, Status, StreamType};
use crate::codec::{header, header_map};
use crate::effect::EffectKind;
use crate::guest::{State, Stream};
use crate::limits;
use crate::ports::Phase;

pub fn proxy_continue_stream(caller: &mut Caller<'_, State>, stream: u32) -> Answer {
    match StreamType::try_from(stream).map_err(|_| Status::BadArgument)? {
        StreamType::Request | StreamType::Response => {}
        // There are no TCP streams here, so none is paused.
        StreamType::Downstream | StreamType::Upstream => return Ok(()),
    }
    let state = caller.data_mut();
    // Once is enough: a guest may ask for it for ever.
    if let Some(stream) = state.stream_mut()
        && !std::mem::replace(&mut stream.resume, true)
    {
        let id = stream.id;
        state.call.resumed.push(id);
    }
    Ok(())
}

pub fn proxy_continue_request(caller: &mut Caller<'_, State>) -> Answer {
    proxy_continue_stream(caller, StreamType::Request as u32)
}

pub fn proxy_continue_response(caller: &mut Caller<'_, State>) -> Answer {
    proxy_continue_stream(caller, StreamType::Response as u32)
}

pub fn proxy_close_stream(caller: &mut Caller<'_, State>, stream: u32) -> Answer {
    match StreamType::try_from(stream).map_err(|_| Status::BadArgument)? {
        StreamType::Request | StreamType::Response => {}
        StreamType::Downstream | StreamType::Upstream => return Ok(()),
    }
    let state = caller.data_mut();
    if let Some(stream) = state.stream_mut()
        && !std::mem::replace(&mut stream.close, true)
    {
        let id = stream.id;
        state.call.resumed.push(id);
    }
    Ok(())
}

/// nginx has no route cache, so there is nothing to clear.
pub fn proxy_clear_route_cache(_: &mut Caller<'_, State>) -> Answer {
    Ok(())
}

pub fn proxy_send_local_response(
    caller: &mut Caller<'_, State>,
    status: u32,
    details: u32,
    details_size: u32,
    body: u32,
    body_size: u32,
    headers: u32,
    headers_size: u32,
    grpc_status: u32,
) -> Answer {
    let (memory, state) = split(caller)?;
    let memory = &*memory;
    let details = slice(memory, details, details_size)?;
    let body = slice(memory, body, body_size)?;
    let headers = slice(memory, headers, headers_size)?;
    let headers = header_map::decode(headers).map_err(|_| Status::BadArgument)?;
    if !(100..=999).contains(&status) {
        return Err(Status::BadArgument.into());
    }
    for (name, value) in &headers {
        if !header::is_token(name) || !header::is_value(value) {
            state.warn("a local response has a header that is not allowed in HTTP");
            return Err(Status::BadArgument.into());
        }
    }
    if body.len() + details.len() > limits::LOCAL_RESPONSE {
        return Err(Status::BadArgument.into());
    }
    let place = answer_place(state)?;
    let response = LocalResponse { details, body, headers: &headers };
    match grpc_code(state, status, grpc_status) {
        Some(code) => send_grpc(state, place, code, &response),
        None => send(state, place, status, body, &headers, details),
    }
}

struct LocalResponse<'a> {
    details: &'a [u8],
    body: &'a [u8],
    headers: &'a [(&'a [u8], &'a [u8])],
}

/// Where the effective stream stands when it may still answer; else BAD_ARGUMENT and a warning.
fn answer_place(state: &State) -> Result<Phase, Status> {
    let Some(stream) = state.stream() else {
        state.warn("a local response needs a stream, and the effective context is none");
        return Err(Status::BadArgument);
    };
    let own_call = state.call.context == stream.id
        && matches!(
            state.call.callback,
            Callback::ContextCreate
                | Callback::RequestHeaders
                | Callback::RequestBody
                | Callback::ResponseHeaders
        );
    let phase = state.host.phase(stream.request);
    let open = matches!(phase, Phase::Request | Phase::ResponseHeaders)
        && !state.host.headers_sent(stream.request);
    if stream.responded {
        state.warn("a second local response on one stream is refused");
        Err(Status::BadArgument)
    } else if (own_call || stream.paused) && open {
        Ok(if stream.paused { Phase::Request } else { phase })
    } else {
        state.warn("a local response came too late: the response headers were sent");
        Err(Status::BadArgument)
    }
}

fn send(
    state: &mut State,
    place: Phase,
    status: u32,
    body: &[u8],
    headers: &[(&[u8], &[u8])],
    details: &[u8],
) -> Answer {
    let stream = state.stream_mut().ok_or(Status::BadArgument)?;
    let direct = place == Phase::ResponseHeaders;
    queue(
        stream,
        EffectKind::LocalResponse,
        status as i32,
        if direct { b"direct" } else { b"" },
        body,
    )?;
    if direct {
        stream.direct_body = Some(body.to_vec());
    }
    for (name, value) in headers {
        queue(stream, EffectKind::LocalResponseHeader, 0, name, value)?;
    }
    stream.response_details.clear();
    stream.response_details.extend_from_slice(details);
    stream.responded = true;
    stream.respond_now = true;
    let id = stream.id;
    // A paused stream wakes up to put its response out.
    state.call.resumed.push(id);
    Ok(())
}

fn queue(
    stream: &mut Stream,
    kind: EffectKind,
    number: i32,
    name: &[u8],
    value: &[u8],
) -> Result<(), Status> {
    stream.effects.push(kind, number, name, value).map_err(|_| Status::InternalFailure)
}

/// The gRPC status to answer with, when the request is a gRPC one.
fn grpc_code(state: &mut State, status: u32, asked: u32) -> Option<u32> {
    let content_type = headers::value(state, MapType::RequestHeaders, b"content-type")?;
    let rest = content_type.strip_prefix(b"application/grpc")?;
    if !matches!(rest.first(), None | Some(b'+' | b';')) {
        return None;
    }
    if asked <= 16 {
        return Some(asked);
    }
    // Source: gRPC's "HTTP to gRPC Status Code Mapping".
    Some(match status {
        200 => 0,
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    })
}

/// A gRPC client reads its error from headers of a 200 response without a body ("Trailers-Only").
fn send_grpc(state: &mut State, place: Phase, code: u32, response: &LocalResponse<'_>) -> Answer {
    let code = code.to_string();
    let message =
        percent_encode(if response.body.is_empty() { response.details } else { response.body });
    let mut headers: Vec<(&[u8], &[u8])> = response
        .headers
        .iter()
        .filter(|(name, _)| !name.eq_ignore_ascii_case(b"content-type"))
        .copied()
        .collect();
    headers.push((b"content-type", b"application/grpc"));
    headers.push((b"grpc-status", code.as_bytes()));
    if !message.is_empty() {
        headers.push((b"grpc-message", &message));
    }
    send(state, place, 200, b"", &headers, response.details)
}

/// `grpc-message` is percent-encoded UTF-8 (gRPC over HTTP/2, "Responses").
fn percent_encode(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for &byte in text {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            out.push(byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    out
}
