//! gRPC calls and streams. What SDKs make an error value of are PARSE_FAILURE and INTERNAL_FAILURE for beginning one, NOT_FOUND
//! and BAD_ARGUMENT for continuing with one; they panic on others.

use wasmtime::Caller;

use super::dispatch::{begin_holding, judge};
use super::memory::{Answer, slice, split, write_u32};
use super::shown;
use crate::abi::Status;
use crate::callout::Pairs;
use crate::codec::header_map;
use crate::grpc::{Command, Judged, Message, Opening, Request, Target};
use crate::guest::{GrpcKind, State, Token};
use crate::limits;
use crate::store::Count;

type Slice = (u32, u32);

pub(super) fn proxy_grpc_call(
    caller: &mut Caller<'_, State>,
    upstream: u32,
    upstream_size: u32,
    service: u32,
    service_size: u32,
    method: u32,
    method_size: u32,
    metadata: u32,
    metadata_size: u32,
    message: u32,
    message_size: u32,
    timeout_ms: u32,
    return_id: u32,
) -> Answer {
    let wanted = Wanted {
        upstream: (upstream, upstream_size),
        service: (service, service_size),
        method: (method, method_size),
        metadata: (metadata, metadata_size),
        call: Some(((message, message_size), timeout_ms)),
    };
    open(caller, wanted, return_id)
}

pub(super) fn proxy_grpc_stream(
    caller: &mut Caller<'_, State>,
    upstream: u32,
    upstream_size: u32,
    service: u32,
    service_size: u32,
    method: u32,
    method_size: u32,
    metadata: u32,
    metadata_size: u32,
    return_id: u32,
) -> Answer {
    let wanted = Wanted {
        upstream: (upstream, upstream_size),
        service: (service, service_size),
        method: (method, method_size),
        metadata: (metadata, metadata_size),
        call: None,
    };
    open(caller, wanted, return_id)
}

/// What a guest wants, by addresses.
struct Wanted {
    upstream: Slice,
    service: Slice,
    method: Slice,
    metadata: Slice,
    /// Message and timeout.
    call: Option<(Slice, u32)>,
}

fn open(caller: &mut Caller<'_, State>, wanted: Wanted, return_id: u32) -> Answer {
    let (memory, state) = split(caller)?;
    let at = |(pointer, size)| slice(memory, pointer, size);
    let (name, service, method) = (at(wanted.upstream)?, at(wanted.service)?, at(wanted.method)?);
    let metadata = at(wanted.metadata)?;
    let metadata_size = metadata.len();
    let call = match wanted.call {
        Some((message, timeout)) => Some((at(message)?, timeout)),
        None => None,
    };
    slice(memory, return_id, 4)?;
    let function = if call.is_some() { "proxy_grpc_call" } else { "proxy_grpc_stream" };
    let Ok(metadata) = header_map::decode(metadata) else {
        state.warn(&format!("{function}: malformed metadata"));
        return Err(Status::ParseFailure.into());
    };
    let found = Target::parse(name, |name| state.host.upstream(name));
    let Some(target) = found.filter(|target| target.upstream.may_be_http()) else {
        state.warn(&format!(
            "{function}: \"{}\" is neither a registered upstream nor the name of a host",
            shown(name)
        ));
        return Err(Status::ParseFailure.into());
    };
    let judged = judge(state, function, target.registered.as_deref(), &target.upstream)?;
    let judged =
        judged.map(|name_allowed| Judged { rules: state.plugin.calls.number(), name_allowed });
    let request = match request(&target, service, method, &metadata) {
        Ok(request) => request,
        Err(wrong) => {
            state.warn(&format!("{function}: {wrong}"));
            return Err(Status::ParseFailure.into());
        }
    };
    // Messages are counted by themselves, until they are sent.
    let size = metadata_size + service.len() + method.len();
    // A stream may continue for long: who waits for a message of it pauses.
    let holds = call.and_then(|_| state.stream_to_hold());
    let logged = if call.is_some() { target.name.clone() } else { String::new() };
    let token = begin_holding(state, logged, size, holds).map_err(|_| Status::InternalFailure)?;
    if state.outlives_its_requests() {
        state.end_call(token);
        return Ok(write_u32(memory, return_id, token)?);
    }
    let message = match call {
        Some((message, _)) => match Message::new(&state.calls.grpc.held, message) {
            Some(message) => Some(message),
            None => {
                state.end_call(token);
                state.warn_once(TOO_MUCH);
                return Err(Status::InternalFailure.into());
            }
        },
        None => None,
    };
    // As in Envoy, 0 is no limit.
    let timeout = call.map(|(_, timeout)| match timeout {
        0 => limits::CALL_MS,
        timeout => timeout.min(limits::CALL_MS),
    });
    let opening = Opening {
        token,
        server_name: target.server_name(),
        judged,
        request,
        message,
        timeout_ms: [timeout, target.timeout_ms].into_iter().flatten().min(),
        of_request: state.calls.of(token).is_some_and(|of| of.stream.is_some()),
        name: target.name,
        upstream: target.upstream,
    };
    let kind = if call.is_some() { GrpcKind::Call } else { GrpcKind::Stream };
    state.calls.grpc.begin(token, kind, Command::Open(Box::new(opening)));
    state.own.count(Count::GrpcCalls);
    state.host.work_waits();
    Ok(write_u32(memory, return_id, token)?)
}

const TOO_MUCH: &str = "a filter has larger messages under way than the host sends for it";

fn request(
    target: &Target,
    service: &[u8],
    method: &[u8],
    metadata: &Pairs<'_>,
) -> Result<Request, &'static str> {
    let own = target.metadata.iter().map(|(name, value)| (name.as_bytes(), value.as_slice()));
    let all: Vec<_> = own.chain(metadata.iter().copied()).collect();
    let authority = target.authority();
    Request::build(target.upstream.tls, &authority, service, method, &all).map_err(|wrong| wrong.0)
}

pub(super) fn proxy_grpc_send(
    caller: &mut Caller<'_, State>,
    id: u32,
    message: u32,
    message_size: u32,
    end_of_stream: u32,
) -> Answer {
    let (memory, state) = split(caller)?;
    let message = slice(memory, message, message_size)?;
    under_way(state, id, |kind| kind == GrpcKind::Stream)?;
    let Some(message) = Message::new(&state.calls.grpc.held, message) else {
        state.warn_once(TOO_MUCH);
        return Err(Status::BadArgument.into());
    };
    if end_of_stream != 0 {
        state.calls.grpc.half_close(id);
    }
    command(state, Command::Send(id, Some(message), end_of_stream != 0))
}

/// Half-closes a stream; gives a call up, as Envoy does.
pub(super) fn proxy_grpc_close(caller: &mut Caller<'_, State>, id: u32) -> Answer {
    let state = caller.data_mut();
    match state.calls.grpc.kind(id).ok_or(Status::NotFound)? {
        GrpcKind::HalfClosed => Ok(()),
        GrpcKind::Call => cancel(state, id),
        GrpcKind::Stream => {
            state.calls.grpc.half_close(id);
            command(state, Command::Send(id, None, true))
        }
    }
}

pub(super) fn proxy_grpc_cancel(caller: &mut Caller<'_, State>, id: u32) -> Answer {
    let state = caller.data_mut();
    state.calls.grpc.kind(id).ok_or(Status::NotFound)?;
    cancel(state, id)
}

fn cancel(state: &mut State, id: Token) -> Answer {
    let held = state.end_call(id).and_then(|of| of.holds);
    if let Some(held) = held {
        state.release(held);
    }
    command(state, Command::Cancel(id))
}

fn command(state: &mut State, command: Command) -> Answer {
    state.calls.grpc.command(command);
    state.host.work_waits();
    Ok(())
}

/// Checks that it is under way and takes what the guest wants of it.
fn under_way(state: &State, id: Token, takes: impl FnOnce(GrpcKind) -> bool) -> Result<(), Status> {
    match state.calls.grpc.kind(id) {
        Some(kind) if takes(kind) => Ok(()),
        Some(_) => Err(Status::BadArgument),
        None if state.calls.grpc.has_ended(id) => Err(Status::BadArgument),
        None => Err(Status::NotFound),
    }
}
