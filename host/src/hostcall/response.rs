//! The course of a stream: continuing, ending, answering in place of the upstream.

use percent_encoding::{AsciiSet, CONTROLS};
use wasmtime::Caller;

use super::headers;
use super::left_out::LeftOut;
use super::memory::{Answer, slice, split};
use crate::abi::{Callback, MapType, Status, StreamType};
use crate::codec::header;
use crate::codec::header_map::{self, Pairs};
use crate::effect::EffectKind;
use crate::guest::{State, Stream};
use crate::limits;
use crate::ports::Phase;

pub(super) fn proxy_continue_stream(caller: &mut Caller<'_, State>, stream: u32) -> Answer {
    match StreamType::try_from(stream).map_err(|_| Status::BadArgument)? {
        StreamType::Request | StreamType::Response => {}
        // There are no TCP streams here, so none is paused.
        StreamType::Downstream | StreamType::Upstream => return Ok(()),
    }
    let state = caller.data_mut();
    if let Some(stream) = state.stream_mut()
        && !std::mem::replace(&mut stream.resume, true)
    {
        let id = stream.id;
        state.call.resumed.push(id);
    }
    Ok(())
}

pub(super) fn proxy_continue_request(caller: &mut Caller<'_, State>) -> Answer {
    proxy_continue_stream(caller, StreamType::Request as u32)
}

pub(super) fn proxy_continue_response(caller: &mut Caller<'_, State>) -> Answer {
    proxy_continue_stream(caller, StreamType::Response as u32)
}

pub(super) fn proxy_close_stream(caller: &mut Caller<'_, State>, stream: u32) -> Answer {
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

/// There is no route cache, so there is nothing to clear.
pub(super) fn proxy_clear_route_cache(_: &mut Caller<'_, State>) -> Answer {
    Ok(())
}

pub(super) fn proxy_send_local_response(
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
    // One below 200 would announce a response that never comes.
    if !(200..=999).contains(&status) {
        state.warn("a local response is refused: its status is not one from 200 to 999");
        return Err(Status::BadArgument.into());
    }
    let place = answer_place(state)?;
    let (headers, mut left_out) = sound_headers(headers);
    let mut body = body;
    if body.len() > limits::LOCAL_RESPONSE {
        left_out.whole.push("its body, which is larger than the host holds");
        body = b"";
    }
    let response = LocalResponse { details, body, headers: &headers };
    match grpc_code(state, status, grpc_status) {
        Some(code) => send_grpc(state, place, code, &response, &mut left_out)?,
        None => {
            let body = if has_body(status) { body } else { b"" };
            send(state, place, status, body, &headers, details, &mut left_out)?;
        }
    }
    if let Some(what) = left_out.text() {
        state.warn(&format!("a local response is sent without {what}"));
    }
    Ok(())
}

/// Clients read no body after the others.
fn has_body(status: u32) -> bool {
    !matches!(status, 204 | 205 | 304)
}

struct LocalResponse<'a> {
    details: &'a [u8],
    body: &'a [u8],
    headers: &'a [(&'a [u8], &'a [u8])],
}

/// The headers that can be sent. Pseudo headers are ignored, as in Envoy: filters hand over the headers of a call's
/// response as they are.
fn sound_headers(map: &[u8]) -> (Pairs<'_>, LeftOut) {
    let mut left_out = LeftOut::default();
    let Ok((mut headers, count)) = header_map::decode_first(map) else {
        left_out.whole.push("its headers, which are malformed");
        return (Vec::new(), left_out);
    };
    let beyond = count - headers.len();
    let mut size = 0;
    headers.retain(|(name, value)| {
        if header::is_pseudo(name) {
            return false;
        }
        let length = name.len() + value.len();
        let kept = header::is_token(name)
            && header::is_value(value)
            && size + length <= limits::HEADER_MAP_BYTES;
        if kept {
            size += length;
        } else {
            left_out.add(name);
        }
        kept
    });
    left_out.headers += beyond;
    (headers, left_out)
}

/// Where the effective stream stands when it may still answer, `Phase::ResponseBody` when all that can be done is to cut the
/// response off; else BAD_ARGUMENT and a warning.
fn answer_place(state: &State) -> Result<Phase, Status> {
    let Some(stream) = state.stream() else {
        state.warn("a local response needs a stream, and the effective context is none");
        return Err(Status::BadArgument);
    };
    let own_body = state.call.callback == Callback::ResponseBody && stream.response_waits;
    let own_call = state.call.context == stream.id
        && (own_body
            || matches!(
                state.call.callback,
                Callback::ContextCreate
                    | Callback::RequestHeaders
                    | Callback::RequestBody
                    | Callback::ResponseHeaders
            ));
    let (phase, sent) = state.host.progress(stream.request);
    let open = matches!(phase, Phase::Request | Phase::ResponseHeaders) && !sent;
    let ends = matches!(state.call.callback, Callback::Done | Callback::Log | Callback::Delete);
    if stream.responded {
        state.warn("a second local response on one stream is refused");
        Err(Status::BadArgument)
    } else if (own_call || stream.paused) && open {
        Ok(if stream.paused { Phase::Request } else { phase })
    } else if open && phase == Phase::Request && !ends {
        // The request has gone on, and its response has not come: this one takes its place.
        Ok(Phase::ResponseHeaders)
    } else if can_cut(state, stream) {
        Ok(Phase::ResponseBody)
    } else {
        state.warn("a local response came too late: the response headers were sent");
        Err(Status::BadArgument)
    }
}

/// Whether the body of the response is on its way, so that it can be cut off.
fn can_cut(state: &State, stream: &Stream) -> bool {
    let own = state.call.context == stream.id;
    match state.call.callback {
        Callback::ResponseBody | Callback::ResponseTrailers if own => true,
        Callback::Done | Callback::Log | Callback::Delete => false,
        _ => {
            let under_way = stream.saw_response_body
                || stream.saw_response_headers && state.host.headers_sent(stream.request);
            under_way && !stream.response_ended
        }
    }
}

fn send(
    state: &mut State,
    place: Phase,
    status: u32,
    body: &[u8],
    headers: &[(&[u8], &[u8])],
    details: &[u8],
    left_out: &mut LeftOut,
) -> Result<(), Status> {
    let stream = state.stream_mut().ok_or(Status::BadArgument)?;
    if place == Phase::ResponseBody {
        // It is too late to send it, and not too late to keep back what it came for.
        stream.cut = u16::try_from(status).ok();
        stream.responded = true;
        keep_details(stream, details);
        return Ok(());
    }
    let direct = place == Phase::ResponseHeaders;
    let name: &[u8] = if direct { b"direct" } else { b"" };
    let (kind, number) = (EffectKind::LocalResponse, status as i32);
    let mut size = stream.effects.size();
    size.add(kind, name, body);
    for (name, value) in headers {
        size.add(EffectKind::LocalResponseHeader, name, value);
    }
    if !size.fits() {
        // The changes that wait are of a request that does not continue, or of headers that this response replaces.
        stream.effects.drop_waiting();
    }
    stream.effects.push(kind, number, name, body).map_err(|_| Status::InternalFailure)?;
    for (name, value) in headers {
        if stream.effects.push(EffectKind::LocalResponseHeader, 0, name, value).is_err() {
            left_out.add(name);
        }
    }
    if direct {
        stream.direct_body = Some(body.to_vec());
    }
    keep_details(stream, details);
    stream.responded = true;
    stream.respond_now = true;
    let id = stream.id;
    // A paused stream wakes up to put its response out.
    state.call.resumed.push(id);
    Ok(())
}

fn keep_details(stream: &mut Stream, details: &[u8]) {
    stream.response_details.clear();
    stream.response_details.extend_from_slice(&details[..details.len().min(limits::DETAILS)]);
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
fn send_grpc(
    state: &mut State,
    place: Phase,
    code: u32,
    response: &LocalResponse<'_>,
    left_out: &mut LeftOut,
) -> Result<(), Status> {
    const OWN: [&[u8]; 3] = [b"content-type", b"grpc-status", b"grpc-message"];
    let code = code.to_string();
    let message = if response.body.is_empty() { response.details } else { response.body };
    let message = percent_encode(&message[..message.len().min(limits::GRPC_MESSAGE)]);
    let mut headers: Vec<(&[u8], &[u8])> = response
        .headers
        .iter()
        .filter(|(name, _)| !OWN.iter().any(|own| name.eq_ignore_ascii_case(own)))
        .copied()
        .collect();
    headers.push((OWN[0], b"application/grpc"));
    headers.push((OWN[1], code.as_bytes()));
    if !message.is_empty() {
        headers.push((OWN[2], &message));
    }
    send(state, place, 200, b"", &headers, response.details, left_out)
}

/// `grpc-message` is percent-encoded UTF-8 (gRPC over HTTP/2, "Responses").
fn percent_encode(text: &[u8]) -> Vec<u8> {
    const OTHERS: &AsciiSet = &CONTROLS.add(b'%');
    percent_encoding::percent_encode(text, OTHERS).collect::<String>().into_bytes()
}
