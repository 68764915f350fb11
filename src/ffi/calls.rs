//! HTTP calls: what light threads exchange with the library.

use std::ffi::c_char;
use std::net::IpAddr;

use super::boundary::{guest_boundary, with_worker};
use super::failure::Failure;
use super::failures::{failure, report_call};
use super::host::host;
use super::jobs::{Answer, Connections as _, Jobs, failed_nanos};
use super::process::PROCESS;
use super::telling::{PIECE_NANOS, tell_in_turn};
use super::ticker::Entry;
use super::types::{self, RPW_CALL_GONE, RPW_CONTINUE, rpw_error_t, rpw_io_t};
use super::worker;
use crate::callout::{self, FailureKind};
use crate::ports::Host;
use crate::shm::CallKind;

/// Takes what a call's connection received, and gives what must be sent.
///
/// # Arguments
/// `eof`: 1 when nothing more will be received. At first nothing is received.
/// # Returns
/// `RPW_CALL_RECEIVE`, `RPW_CALL_DONE` (then `rpw_call_end`), both with what must be sent first in `*io`, good until the
/// next call of this function for that id; `RPW_CALL_GONE` when nothing waits for the call any more; `RPW_ERROR`.
/// # Safety
/// `data` has the given length; the others are valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_call_advance(
    id: u32,
    data: *const c_char,
    data_length: usize,
    eof: i32,
    io: *mut rpw_io_t,
    error: *mut rpw_error_t,
) -> i32 {
    with_worker(error, |worker| {
        // SAFETY: as promised by the caller.
        let (data, io) = unsafe { (types::bytes(data, data_length), io.as_mut()) };
        let io = io.ok_or_else(|| Failure::new("rpw_call_advance: NULL argument"))?;
        let host = host()?;
        let code = advance(&mut worker.jobs.borrow_mut(), host.as_ref(), id, (data, eof != 0), io);
        if io.rest_ms > 0 {
            // The light thread of jobs ends the round, and it may wait for longer than that.
            worker.announce();
        }
        Ok(code)
    })
}

fn advance(
    jobs: &mut Jobs,
    host: &dyn Host,
    id: u32,
    (data, eof): (&[u8], bool),
    io: &mut rpw_io_t,
) -> i32 {
    let began = host.monotonic_clock();
    let Some(call) = jobs.calls.get_mut(&id) else { return RPW_CALL_GONE };
    call.out.clear();
    let before = call.received();
    let (code, reusable) = call.advance(data, eof);
    // Looked at once for each MiB that comes, since it looks at every call.
    let looks = call.received() >> 20 != before >> 20;
    let plugin = call.plugin.clone();
    let (code, reusable) =
        if looks && jobs.is_over_limit() { jobs.give_up(id) } else { (code, reusable) };
    let now = host.monotonic_clock();
    jobs.charge(&plugin, now.saturating_sub(began) + PIECE_NANOS);
    io.rest_ms = jobs.rest_ms(now);
    let Some(call) = jobs.calls.get(&id) else { return RPW_CALL_GONE };
    io.data = call.out.as_ptr().cast();
    io.length = call.out.len();
    io.reusable = reusable.into();
    code
}

/// Judges the address of the upstream of a call, or of a connection for gRPC, see `rpw_work_t`. One that is gone is refused.
///
/// # Arguments
/// `grpc`: 1 for a connection.
/// # Returns
/// 1 when the call may be made to it, 0 when not; `RPW_ERROR` when it is no address.
/// # Safety
/// `address` has the given length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_call_permits(
    id: u32,
    grpc: i32,
    address: *const c_char,
    address_length: usize,
    error: *mut rpw_error_t,
) -> i32 {
    with_worker(error, |worker| {
        // SAFETY: as promised by the caller.
        let text = unsafe { types::bytes(address, address_length) };
        let text = std::str::from_utf8(text).unwrap_or_default();
        let inner = text.trim_start_matches('[').trim_end_matches(']');
        let address: IpAddr =
            inner.parse().map_err(|_| Failure::new(format!("\"{text}\" is no address")))?;
        let permits = if grpc == 0 {
            let jobs = worker.jobs.borrow();
            jobs.calls.get(&id).is_some_and(|call| call.permits(address))
        } else {
            worker.grpc.borrow().permits(id, address)
        };
        Ok(permits.into())
    })
}

/// Begins a call again on another connection: the one that it was sent on had been closed meanwhile.
///
/// # Returns
/// `RPW_CONTINUE`.
#[unsafe(no_mangle)]
pub extern "C" fn rpw_call_restart(id: u32) -> i32 {
    worker::with(|worker| {
        if let Some(call) = worker.jobs.borrow_mut().calls.get_mut(&id) {
            call.restart();
        }
    });
    RPW_CONTINUE
}

/// A call over which the library speaks TLS has its connection.
///
/// # Arguments
/// `kept`: 1 for a connection that was kept, in the pool that `rpw_work_next` named.
/// # Returns
/// `RPW_CONTINUE`.
/// # Errors
/// `RPW_ERROR` when TLS cannot begin: no certificate can have that name.
/// # Safety
/// `error` is NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_call_connected(id: u32, kept: i32, error: *mut rpw_error_t) -> i32 {
    with_worker(error, |worker| {
        if let Some(call) = worker.jobs.borrow_mut().calls.get_mut(&id) {
            call.connected(kept != 0).map_err(|failure| Failure::new(failure.details))?;
        }
        Ok(RPW_CONTINUE)
    })
}

/// The connection of such a call was kept for others; to be called before `rpw_call_end`.
///
/// # Returns
/// `RPW_CONTINUE`.
#[unsafe(no_mangle)]
pub extern "C" fn rpw_call_kept(id: u32) -> i32 {
    if let Ok(host) = host() {
        let now = host.monotonic_clock();
        worker::with(|worker| {
            let Jobs { calls, idle, .. } = &mut *worker.jobs.borrow_mut();
            if let Some(call) = calls.get_mut(&id) {
                call.kept(idle, now);
            }
        });
    }
    RPW_CONTINUE
}

/// Ends a call: tells its guest what came of it.
///
/// # Arguments
/// `word`: empty, or what failed outside of HTTP: "resolver", "connect", "tls", "timeout", "closed". `details`: more about
/// it, for the error log.
/// # Returns
/// `RPW_CONTINUE`; `RPW_ERROR` when the guest failed.
/// # Safety
/// The strings have the given lengths.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_call_end(
    id: u32,
    word: *const c_char,
    word_length: usize,
    details: *const c_char,
    details_length: usize,
    error: *mut rpw_error_t,
) -> i32 {
    guest_boundary(Entry::Request, true, error, |worker| {
        // SAFETY: as promised by the caller.
        let (word, details) =
            unsafe { (types::bytes(word, word_length), types::bytes(details, details_length)) };
        let removed = worker.jobs.borrow_mut().calls.remove(&id);
        let Some(call) = removed else { return Ok(RPW_CONTINUE) };
        let failed = (!word.is_empty())
            .then(|| callout::Failure { reached: call.reached(), ..failure(word, details) });
        let unfinished = Err(callout::Failure::new(FailureKind::Closed, ""));
        let result = match failed {
            Some(failure) => Err(failure),
            None => call.result.unwrap_or(unfinished),
        };
        if let Err(failure) = &result {
            report_call(&call.plugin, "HTTP call", &call.dispatched.name, failure);
        }
        PROCESS.shared.count_call(
            &call.plugin,
            &call.dispatched.name,
            CallKind::Http,
            result.is_err(),
        );
        let host = host()?;
        let now = host.monotonic_clock();
        let before = if result.is_err() { failed_nanos(call.began, now) } else { 0 };
        tell_in_turn(worker, &host, Answer::Call(call.plugin, call.of, result), before);
        Ok(RPW_CONTINUE)
    })
}
