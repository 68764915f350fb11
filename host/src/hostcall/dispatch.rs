//! Calls to other services, and what came of them.

use wasmtime::Caller;

use super::left_out::LeftOut;
use super::memory::{Answer, give, slice, split, write_u32};
use super::shown;
use crate::abi::{Callback, Status};
use crate::callout::{self, Upstream, Verdict};
use crate::codec::header_map;
use crate::grpc::Event;
use crate::guest::{CallOf, CallResult, ContextId, Dispatched, Return, State, Token};
use crate::limits;
use crate::store::Count;

/// The code of `proxy_get_status` for an HTTP call, or a Redis call, that failed, as Envoy gives it.
const CALL_FAILED: u32 = 11;

pub(super) fn proxy_http_call(
    caller: &mut Caller<'_, State>,
    upstream: u32,
    upstream_size: u32,
    headers: u32,
    headers_size: u32,
    body: u32,
    body_size: u32,
    trailers: u32,
    trailers_size: u32,
    timeout_ms: u32,
    return_token: u32,
) -> Answer {
    let (memory, state) = split(caller)?;
    let name = slice(memory, upstream, upstream_size)?;
    let size = [headers_size, body_size, trailers_size].map(|size| size as usize).iter().sum();
    let headers = slice(memory, headers, headers_size)?;
    let body = slice(memory, body, body_size)?;
    let trailers = slice(memory, trailers, trailers_size)?;
    slice(memory, return_token, 4)?;
    // A filter may hand on all that the client sent.
    let given = state.stream().map_or((0, 0), |stream| stream.request_headers.given());
    let headers = header_map::decode_beside(headers, given);
    let (Ok(headers), Ok(trailers)) = (headers, header_map::decode(trailers)) else {
        return Err(Status::BadArgument.into());
    };
    if timeout_ms > i32::MAX as u32 {
        return Err(Status::BadArgument.into());
    }
    // To Envoy 0 is no limit.
    let timeout_ms =
        if timeout_ms == 0 { limits::CALL_MS } else { timeout_ms.min(limits::CALL_MS) };
    if name.len() > limits::UPSTREAM_NAME {
        state.warn("proxy_http_call: the name of the upstream is too long");
        return Err(Status::BadArgument.into());
    }
    // Before it is copied.
    if size > limits::CALL_REQUEST_BODIES {
        return Err(too_many_calls(state).into());
    }
    let registered = state.host.upstream(name);
    let is_registered = registered.is_some();
    let parsed = || Upstream::parse(name, callout::wants_tls(&headers));
    let Some(upstream) = registered.or_else(parsed).filter(Upstream::may_be_http) else {
        state.warn(&format!(
            "proxy_http_call: \"{}\" is neither a registered upstream nor the name of a host",
            shown(name)
        ));
        return Err(Status::BadArgument.into());
    };
    let judged = judge(state, "proxy_http_call", is_registered.then_some(name), &upstream)?;
    let mut left_out = LeftOut::default();
    let leave_out = |name: &[u8]| left_out.add(name);
    let request = match callout::Request::build(&upstream, &headers, body, &trailers, leave_out) {
        Ok(request) => request,
        Err(malformed) => {
            state.warn(&format!("proxy_http_call: {}", malformed.0));
            return Err(Status::BadArgument.into());
        }
    };
    if let Some(what) = left_out.text() {
        state.warn(&format!("a call is made without {what}"));
    }
    let name = name.escape_ascii().to_string();
    let token = begin(state, name.clone(), size)?;
    if state.outlives_its_requests() {
        state.end_call(token);
        return Ok(write_u32(memory, return_token, token)?);
    }
    let server_name = callout::server_name(&headers, &upstream);
    state.calls.send(Dispatched {
        token,
        name,
        upstream,
        server_name,
        request,
        judged,
        timeout_ms,
    });
    state.own.count(Count::Calls);
    state.host.work_waits();
    Ok(write_u32(memory, return_token, token)?)
}

/// Asks the rules of the filter. `Some` when the address of the upstream must be judged, too: whether its name is allowed.
pub(super) fn judge(
    state: &mut State,
    function: &str,
    registered: Option<&[u8]>,
    upstream: &Upstream,
) -> Result<Option<bool>, Status> {
    let rules = &state.plugin.calls;
    let verdict = match registered {
        Some(name) => rules.of_registered(name),
        None => rules.of_target(&upstream.target),
    };
    match verdict {
        Verdict::Permitted => Ok(None),
        Verdict::ByAddress { name_allowed } => Ok(Some(name_allowed)),
        Verdict::Refused => {
            let target = match registered {
                Some(name) => name.escape_ascii().to_string(),
                None => upstream.target.to_string(),
            };
            warn_refused(state, function, target);
            Err(Status::BadArgument)
        }
    }
}

/// One warning for each target.
pub(super) fn warn_refused(state: &mut State, function: &str, target: String) {
    if state.refused_calls.contains(&target) {
        return;
    }
    if state.refused_calls.len() >= limits::REFUSED_TARGETS {
        state.warn_once("a filter calls more targets that it may not call than the host names");
        return;
    }
    state.warn(&format!(
        "{function}: the filter may not call \"{target}\" (see `calls` of load and setup)"
    ));
    state.refused_calls.push(target);
}

/// Counts a call of the effective context in. `upstream` is empty for a function.
pub(super) fn begin(state: &mut State, upstream: String, size: usize) -> Result<Token, Status> {
    let holds = state.stream_to_hold();
    begin_holding(state, upstream, size, holds)
}

/// The same for one that holds no stream but that one.
pub(super) fn begin_holding(
    state: &mut State,
    upstream: String,
    size: usize,
    holds: Option<ContextId>,
) -> Result<Token, Status> {
    let effective = state.call.effective;
    let root = state.contexts.root_of(effective).map(|root| root.id);
    let root = root.ok_or(Status::BadArgument)?;
    // What a stream asks for while it ends is its plugin context's to hear of.
    let ends = matches!(state.call.callback, Callback::Done | Callback::Log | Callback::Delete);
    let stream = Some(effective).filter(|id| *id != root && !ends);
    let at_end = state.call.callback == Callback::Done && state.call.context == root;
    // The end of the stream, which comes next, is not to drop what it was about to say.
    let with_last_piece = match state.call.callback {
        Callback::ResponseBody => state.stream().is_some_and(|stream| stream.last_piece),
        Callback::ResponseTrailers => true,
        _ => false,
    };
    let of = CallOf { root, stream, holds, upstream, size, at_end, with_last_piece };
    state.begin_call(of).ok_or_else(|| too_many_calls(state))
}

pub(super) fn too_many_calls(state: &mut State) -> Status {
    state
        .warn_once("a filter has more calls under way, or larger ones, than the host makes for it");
    Status::InternalFailure
}

/// The status of the call whose callback is running; outside such a callback 0 and no message.
pub(super) fn proxy_get_status(
    caller: &mut Caller<'_, State>,
    return_code: u32,
    return_data: u32,
    return_size: u32,
) -> Answer {
    let (memory, state) = split(caller)?;
    Return { data: return_data, size: return_size }.check(memory)?;
    let code = match &state.calls.answer {
        Some(CallResult::Http(_, Some(_)) | CallResult::Redis(Err(_))) => CALL_FAILED,
        Some(CallResult::Foreign(_, false)) => Status::InternalFailure as u32,
        Some(CallResult::Grpc(Event::Close(status))) => status.code as u32,
        _ => 0,
    };
    write_u32(memory, return_code, code)?;
    give(caller, Return { data: return_data, size: return_size }, |state| {
        Ok(match &state.calls.answer {
            Some(CallResult::Http(_, Some(failure)) | CallResult::Redis(Err(failure))) => {
                failure.kind.word().as_bytes()
            }
            Some(CallResult::Foreign(_, false)) => b"failed",
            Some(CallResult::Grpc(Event::Close(status))) => status.message.as_bytes(),
            _ => &[],
        })
    })
}
