//! Streams: events, waiting, continuing.

use std::ffi::{c_char, c_void};
use std::rc::Rc;

use super::boundary::{guest_boundary, with_worker};
use super::failure::Failure;
use super::header_lines::Lines;
use super::objects::rpw_context_t;
use super::request::{self, Participation};
use super::ticker::Entry;
use super::types::{
    self, RPW_BODY_HOLD, RPW_BODY_LOST, RPW_BODY_REPLACE, RPW_BODY_UNCHANGED, RPW_CLOSE,
    RPW_CONTINUE, RPW_NEED_INTERPRETER, RPW_NEED_RESPONSE_HEADERS, RPW_PAUSE, RPW_REQUEST_BODY,
    RPW_REQUEST_HEADERS, RPW_RESPOND, RPW_RESPONSE_BODY, RPW_RESPONSE_HEADERS, rpw_error_t,
    rpw_event_t, rpw_outcome_t,
};
use super::worker::Worker;
use super::{cleanup, foreign, handle, nginx, response_headers, upstreams};
use crate::abi::{Callback, LogLevel};
use crate::error::Error;
use crate::event::{Action, Event};
use crate::guest::Output;
use crate::ports::{Phase, RequestId};
use crate::vm::{BeginError, Context, Outcome, StreamRef, Vm};

/// Tells a filter of an event of a request; the stream starts with its first event.
///
/// # Returns
/// What nginx must do: `RPW_CONTINUE`, `RPW_PAUSE`, `RPW_RESPOND` or `RPW_CLOSE`, with the effects in
/// `*outcome`; `RPW_NEED_RESPONSE_HEADERS` or `RPW_NEED_INTERPRETER` before anything ran; `RPW_BAD_REQUEST`; `RPW_ERROR`.
/// # Safety
/// `context` is a live handle, `request` NULL or the running `ngx_http_request_t`, the others valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_stream_run(
    context: *const rpw_context_t,
    request: *mut c_void,
    event: *const rpw_event_t,
    outcome: *mut rpw_outcome_t,
    error: *mut rpw_error_t,
) -> i32 {
    // SAFETY: as promised by the caller.
    let interpreted = unsafe { event.as_ref() }.is_some_and(|event| event.interpreted != 0);
    guest_boundary(Entry::Request, interpreted, error, |worker| {
        // SAFETY: as promised by the caller.
        let (context, lent, outcome) =
            unsafe { (handle::lend(context), event.as_ref(), outcome.as_mut()) };
        let (Some(context), Some(lent), Some(outcome)) = (context, lent, outcome) else {
            return Err(Failure::new("rpw_stream_run: NULL argument"));
        };
        outcome.body_action = RPW_BODY_UNCHANGED;
        let request = request::id(request)?;
        let context = context.of(&worker.requests, request);
        let module = context.plugin().module();
        if !interpreted && upstreams::may_call_lua(module) {
            return Ok(RPW_NEED_INTERPRETER);
        }
        let mut event = read(lent)?;
        event.calls_hold = module.calls_hold().unwrap_or(event.calls_hold) && is_of_request(event);
        match worker.requests.participation(request, &context) {
            Some(Participation::Stream(stream)) => {
                return tell(worker, &context, request, stream, event, lent, outcome);
            }
            Some(participation @ (Participation::Skipped { .. } | Participation::LeftOut(_))) => {
                let drops = matches!(participation, Participation::Skipped { drops_body: true });
                let drops = drops && event.callback == Callback::ResponseBody;
                let body = if drops { Output::Hold } else { Output::Unchanged };
                if body == Output::Hold {
                    worker.requests.add_growth(request, event.body.len(), 0);
                }
                worker.outcome.export_plain(Outcome::of(body), outcome);
                return Ok(RPW_CONTINUE);
            }
            None => {}
        }
        let Some(phase) = nginx::phase_of_real(request) else { return Err(request::bad()) };
        let of_headers =
            matches!(event.callback, Callback::RequestHeaders | Callback::ResponseHeaders);
        let looks = event.callback == Callback::ResponseHeaders && module.looks_at_response();
        let Some(headers) = ResponseHeaders::new(request, lent, looks) else {
            return Ok(RPW_NEED_RESPONSE_HEADERS);
        };
        if module.makes_calls() || (module.calls_foreign() && foreign::any_later()) {
            worker.signal.expect_calls();
        }
        if of_headers {
            return begin(worker, &context, (request, phase), event, headers, outcome);
        }
        let ends_at_once = ends_at_once(phase);
        if !ends_at_once {
            cleanup::watch(worker, request)?;
        }
        let stream = context.start_stream(request, event.calls_hold)?;
        if !ends_at_once {
            worker.requests.add_stream(request, context.clone(), stream);
            return tell(worker, &context, request, stream, event, lent, outcome);
        }
        let result = run(worker, &context, request, stream, event, lent, outcome);
        worker.endings.end_stream(Some(request), &context, stream);
        result
    })
}

/// Says whom to wake when the pause of a stream ends.
///
/// # Returns
/// `RPW_PAUSE` with the milliseconds to wait in `*timeout_ms`; `RPW_CONTINUE` when the pause has ended
/// already; `RPW_ERROR`.
/// # Safety
/// `semaphore` is an `ngx_http_lua_sema_t`, and `rpw_semaphore_gone` is called before it is freed; else as
/// `rpw_stream_run`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_stream_wait(
    context: *const rpw_context_t,
    request: *mut c_void,
    semaphore: *mut c_void,
    timeout_ms: *mut u32,
    error: *mut rpw_error_t,
) -> i32 {
    with_worker(error, |worker| {
        // SAFETY: as promised by the caller.
        let context = unsafe { handle::lend(context) }.filter(|_| !timeout_ms.is_null());
        let context = context.ok_or_else(|| Failure::new("rpw_stream_wait: NULL argument"))?;
        let (context, stream) = find(worker, context, request)?;
        let waits = context.with_stream(stream, |vm| {
            vm.keep_wakers(stream.id, |token| worker.wakers.is_known(token));
            Ok(vm.wait(stream.id, || worker.wakers.add(semaphore)))
        })?;
        if !waits {
            return Ok(RPW_CONTINUE);
        }
        // SAFETY: checked above.
        unsafe { *timeout_ms = context.plugin().pause_timeout() };
        Ok(RPW_PAUSE)
    })
}

/// Takes what came of a pause, after the semaphore was posted or its time was over.
///
/// # Arguments
/// `semaphore`: that of `rpw_stream_wait`, which is posted no more.
/// # Returns
/// As `rpw_stream_run`; `RPW_PAUSE` when the pause has not ended.
/// # Safety
/// As `rpw_stream_run`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_stream_resume(
    context: *const rpw_context_t,
    request: *mut c_void,
    semaphore: *mut c_void,
    outcome: *mut rpw_outcome_t,
    error: *mut rpw_error_t,
) -> i32 {
    guest_boundary(Entry::Request, false, error, |worker| {
        worker.wakers.forget(semaphore);
        // SAFETY: as promised by the caller.
        let (context, outcome) = unsafe { (handle::lend(context), outcome.as_mut()) };
        let (Some(context), Some(outcome)) = (context, outcome) else {
            return Err(Failure::new("rpw_stream_resume: NULL argument"));
        };
        let (context, stream) = find(worker, context, request)?;
        let code = context.with_stream(stream, |vm| {
            vm.keep_wakers(stream.id, |token| worker.wakers.is_known(token));
            let result = vm.resume(stream.id)?;
            let action = result.action;
            worker.outcome.export(vm, stream, result, None, outcome);
            Ok(code(action))
        })?;
        Ok(code)
    })
}

/// Takes a filter that failed out of a request: from now on its events answer `RPW_CONTINUE` and run nothing. Its
/// stream ends.
///
/// # Arguments
/// `drops_body`: 1 when nothing of the response's body may go out, else 0. `reason`: why, for the error log.
/// # Returns
/// `RPW_CONTINUE`; `RPW_BAD_REQUEST`; `RPW_ERROR`.
/// # Safety
/// `context` is a live handle, `request` NULL or the running `ngx_http_request_t`, `reason` has its length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_stream_skip(
    context: *const rpw_context_t,
    request: *mut c_void,
    drops_body: i32,
    reason: *const c_char,
    reason_length: usize,
    error: *mut rpw_error_t,
) -> i32 {
    guest_boundary(Entry::Request, false, error, |worker| {
        // SAFETY: as promised by the caller.
        let context = unsafe { handle::lend(context) };
        let context = context.ok_or_else(|| Failure::new("rpw_stream_skip: NULL argument"))?;
        let request = request::id(request)?;
        let context = context.of(&worker.requests, request);
        if !nginx::is_real(request) {
            return Err(request::bad());
        }
        // SAFETY: as promised by the caller.
        let reason = unsafe { types::bytes(reason, reason_length) };
        let mut line = format!("wasm plugin \"{}\": ", context.plugin().name()).into_bytes();
        line.extend_from_slice(reason);
        nginx::log(Some(request), LogLevel::Error, &line);
        cleanup::watch(worker, request)?;
        if let Some(stream) = worker.requests.skip(request, &context, drops_body != 0) {
            worker.endings.end_stream(Some(request), &context, stream);
        }
        Ok(RPW_CONTINUE)
    })
}

/// Takes a filter out of a request in which another one has answered: from now on its events answer `RPW_CONTINUE` and
/// run nothing. Its stream, when it has one, ends with the request.
///
/// # Arguments
/// `started_too`: 0 when a filter that was told of the request is to be told of the response, too; then only one that has
/// no stream is taken out.
/// # Returns
/// `RPW_CONTINUE`; `RPW_BAD_REQUEST`; `RPW_ERROR`.
/// # Safety
/// `context` is a live handle, `request` NULL or the running `ngx_http_request_t`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_stream_leave_out(
    context: *const rpw_context_t,
    request: *mut c_void,
    started_too: i32,
    error: *mut rpw_error_t,
) -> i32 {
    with_worker(error, |worker| {
        // SAFETY: as promised by the caller.
        let context = unsafe { handle::lend(context) };
        let context = context.ok_or_else(|| Failure::new("rpw_stream_leave_out: NULL argument"))?;
        let request = request::id(request)?;
        let context = context.of(&worker.requests, request);
        if !nginx::is_real(request) {
            return Err(request::bad());
        }
        cleanup::watch(worker, request)?;
        worker.requests.leave_out(request, &context, started_too != 0);
        Ok(RPW_CONTINUE)
    })
}

fn run(
    worker: &Worker,
    context: &Rc<Context>,
    request: RequestId,
    stream: StreamRef,
    event: Event<'_>,
    lent: &rpw_event_t,
    outcome: &mut rpw_outcome_t,
) -> Result<i32, Failure> {
    let code = context.with_stream(stream, |vm| {
        let looks = vm.wants_response_headers(stream.id, event.callback);
        let Some(headers) = ResponseHeaders::new(request, lent, looks) else {
            return Ok(RPW_NEED_RESPONSE_HEADERS);
        };
        headers.show(vm, request, stream);
        let result = vm.run(stream.id, event);
        if result.is_err() && event.callback == Callback::ResponseBody {
            let body = vm.rescue_body(stream.id, event);
            worker.outcome.export_plain(Outcome::of(body), outcome);
        }
        let result = result?;
        let action = result.action;
        worker.outcome.export(vm, stream, result, None, outcome);
        Ok(code(action))
    })?;
    if code == RPW_CLOSE {
        worker.requests.set_closed(request);
    }
    Ok(code)
}

/// Starts a stream with an event of headers.
fn begin(
    worker: &Worker,
    context: &Rc<Context>,
    (request, phase): (RequestId, Phase),
    event: Event<'_>,
    headers: ResponseHeaders<'_>,
    outcome: &mut rpw_outcome_t,
) -> Result<i32, Failure> {
    let ends_at_once = ends_at_once(phase);
    let mut begun = None;
    let result: Result<i32, Failure> =
        context.begin_stream(request, event.calls_hold, |vm, stream| {
            if !ends_at_once && !cleanup::watch_stream(worker, request, context, stream) {
                vm.remove_stream(stream.id);
                return Err(cleanup::no_memory());
            }
            begun = Some(stream);
            headers.show(vm, request, stream);
            match vm.run_first(stream.id, event) {
                Ok(result) => {
                    let action = result.action;
                    if action == Action::Close {
                        worker.requests.set_closed(request);
                    }
                    worker.outcome.export(vm, stream, result, Some(phase), outcome);
                    Ok(code(action))
                }
                Err(BeginError::Failed(error)) => Err(error.into()),
                Err(BeginError::NotCreated(error)) => {
                    begun = None;
                    if !ends_at_once {
                        worker.requests.remove_stream(request, context);
                    }
                    Err(error.into())
                }
            }
        });
    if ends_at_once && let Some(stream) = begun {
        worker.endings.end_stream(Some(request), context, stream);
    }
    result
}

/// nginx runs cleanup handlers before the log phase, so a stream that starts there ends at once.
fn ends_at_once(phase: Phase) -> bool {
    phase == Phase::Log
}

/// Where a snapshot of the response's headers comes from.
enum ResponseHeaders<'a> {
    /// There is none.
    Unread,
    /// They came with the event.
    Lent(&'a rpw_event_t),
    /// nginx's own lines.
    Lines(Lines),
}

impl<'a> ResponseHeaders<'a> {
    /// For an event whose callback looks at them or does not. `None` when they must come with the event, and have not.
    #[inline]
    fn new(request: RequestId, lent: &'a rpw_event_t, looks: bool) -> Option<Self> {
        match (lent.headers.is_null(), looks) {
            (true, false) => Some(Self::Unread),
            (true, true) => Lines::of_response(request).map(Self::Lines),
            (false, _) => Some(Self::Lent(lent)),
        }
    }

    /// Gives a stream the snapshot.
    #[inline]
    fn show(&self, vm: &mut Vm, request: RequestId, stream: StreamRef) {
        if !matches!(self, Self::Unread) {
            self.make(vm, request, stream);
        }
    }

    #[inline(never)]
    fn make(&self, vm: &mut Vm, request: RequestId, stream: StreamRef) {
        let Some(map) = vm.response_headers_mut(stream.id) else { return };
        match self {
            Self::Unread => {}
            Self::Lent(lent) => {
                // SAFETY: the caller lends the headers for the call.
                unsafe { types::push_pairs(map, lent.headers, lent.headers_length) };
                response_headers::add_last_modified(request, map);
            }
            Self::Lines(lines) => response_headers::read(request, lines, map),
        }
    }
}

/// Like [`run`]; whatever happens, the outcome says what becomes of what the filter held of a response.
fn tell(
    worker: &Worker,
    context: &Rc<Context>,
    request: RequestId,
    stream: StreamRef,
    event: Event<'_>,
    lent: &rpw_event_t,
    outcome: &mut rpw_outcome_t,
) -> Result<i32, Failure> {
    if event.callback != Callback::ResponseBody {
        return run(worker, context, request, stream, event, lent, outcome);
    }
    outcome.body_action = RPW_BODY_LOST;
    let result = run(worker, context, request, stream, event, lent, outcome);
    // With `waits` the length that is sent is that of what is passed on.
    let grows = |given| {
        if !event.waits {
            worker.requests.add_growth(request, event.body.len(), given);
        }
    };
    match outcome.body_action {
        RPW_BODY_HOLD => {
            grows(0);
            worker.requests.set_holding(request, stream, true);
        }
        RPW_BODY_REPLACE => {
            grows(outcome.body_length);
            worker.requests.set_holding(request, stream, outcome.still_holds != 0);
        }
        // The VM was gone before.
        RPW_BODY_LOST if !worker.requests.is_holding(request, stream) => {
            outcome.body_action = RPW_BODY_UNCHANGED;
        }
        _ => {}
    }
    result
}

fn read(event: &rpw_event_t) -> Result<Event<'_>, Failure> {
    let callback = match event.callback {
        RPW_REQUEST_HEADERS => Callback::RequestHeaders,
        RPW_REQUEST_BODY => Callback::RequestBody,
        RPW_RESPONSE_HEADERS => Callback::ResponseHeaders,
        RPW_RESPONSE_BODY => Callback::ResponseBody,
        other => return Err(Failure::new(format!("rpw_stream_run: {other} is no event"))),
    };
    // SAFETY: the caller lends the body for the call.
    let body: &[u8] = unsafe { types::bytes(event.body, event.body_length) };
    Ok(Event {
        callback,
        end_of_stream: event.end_of_stream != 0,
        piecewise: event.piecewise != 0,
        calls_hold: event.calls_hold != 0,
        waits: event.waits != 0,
        body,
    })
}

fn is_of_request(event: Event<'_>) -> bool {
    matches!(event.callback, Callback::RequestHeaders | Callback::RequestBody)
}

fn find(
    worker: &Worker,
    context: &rpw_context_t,
    request: *mut c_void,
) -> Result<(Rc<Context>, StreamRef), Failure> {
    let request = request::id(request)?;
    let context = context.of(&worker.requests, request);
    match worker.requests.stream(request, &context) {
        Some(stream) => Ok((context, stream)),
        None => Err(Error::Lost("the stream has ended".into()).into()),
    }
}

fn code(action: Action) -> i32 {
    match action {
        Action::Continue => RPW_CONTINUE,
        Action::Pause => RPW_PAUSE,
        Action::Respond => RPW_RESPOND,
        Action::Close => RPW_CLOSE,
    }
}
