//! Connections that serve many calls, for gRPC and for Redis: what light threads exchange with the library.

use std::cell::RefCell;
use std::ffi::c_char;
use std::sync::Arc;

use super::boundary::{guest_boundary, with_worker};
use super::failure::Failure;
use super::failures;
use super::host::host;
use super::jobs::{Connections, Then, milliseconds};
use super::telling::{PIECE_NANOS, charge, spend, tell_in_turn};
use super::ticker::Entry;
use super::types::{
    self, RPW_CONNECTION_GRPC, RPW_CONNECTION_REDIS, RPW_CONTINUE, RPW_WORK_STOP, RPW_WORK_WAIT,
    rpw_error_t, rpw_io_t,
};
use super::worker::Worker;
use crate::ports::Host;

/// The connections for a protocol.
fn of(worker: &Worker, protocol: i32) -> Result<&RefCell<dyn Connections>, Failure> {
    match protocol {
        RPW_CONNECTION_GRPC => Ok(&worker.grpc),
        RPW_CONNECTION_REDIS => Ok(&worker.redis),
        other => Err(Failure::new(format!("{other} is no protocol of connections"))),
    }
}

/// Tells guests what came of their calls, now or later. `spent`: nanoseconds that it took to find out. Returns the
/// milliseconds to rest.
fn deliver(
    worker: &Worker,
    host: &Arc<dyn Host>,
    connections: &RefCell<dyn Connections>,
    mut spent: u64,
) -> u32 {
    connections.borrow_mut().log_failures(host.monotonic_clock());
    loop {
        let answer = connections.borrow_mut().next_answer();
        let Some(answer) = answer else { break };
        tell_in_turn(worker, host, answer, std::mem::take(&mut spent));
    }
    // Other connections may have got something to do.
    if connections.borrow().has_actions() {
        worker.announce();
    }
    spend(worker, host, spent)
}

/// Says that a connection is there.
///
/// # Arguments
/// `protocol`: `RPW_CONNECTION_GRPC` or `RPW_CONNECTION_REDIS`.
/// # Returns
/// `RPW_CONTINUE`; then `rpw_connection_next`.
/// # Errors
/// `RPW_ERROR` when guests cannot be told what came of it.
/// # Safety
/// `error` is NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_connection_connected(
    protocol: i32,
    id: u32,
    error: *mut rpw_error_t,
) -> i32 {
    guest_boundary(Entry::Request, true, error, |worker| {
        let (host, connections) = (host()?, of(worker, protocol)?);
        let now = host.monotonic_clock();
        connections.borrow_mut().connected(id, now);
        deliver(worker, &host, connections, host.monotonic_clock().saturating_sub(now));
        Ok(RPW_CONTINUE)
    })
}

/// Takes what a connection received, and tells guests of it.
///
/// # Arguments
/// `protocol`: as for `rpw_connection_connected`. `eof`: 1 when nothing more will be received.
/// # Returns
/// `RPW_CONTINUE`, with the milliseconds to sleep before more is received in `io->rest_ms`; `RPW_WORK_STOP` when the
/// connection is to be closed.
/// # Errors
/// `RPW_ERROR` when guests cannot be told.
/// # Safety
/// `data` has the given length; `io` and `error` are valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_connection_receive(
    protocol: i32,
    id: u32,
    data: *const c_char,
    data_length: usize,
    eof: i32,
    io: *mut rpw_io_t,
    error: *mut rpw_error_t,
) -> i32 {
    guest_boundary(Entry::Request, true, error, |worker| {
        // SAFETY: as promised by the caller.
        let (data, io) = unsafe { (types::bytes(data, data_length), io.as_mut()) };
        let io = io.ok_or_else(|| Failure::new("rpw_connection_receive: NULL argument"))?;
        let (host, connections) = (host()?, of(worker, protocol)?);
        let began = host.monotonic_clock();
        let untold = worker.jobs.borrow().untold();
        let received = connections.borrow_mut().receive(id, data, eof != 0, untold, began);
        let spent = host.monotonic_clock().saturating_sub(began) + PIECE_NANOS;
        let (rest, spent) = match &received.plugin {
            Some(plugin) => (charge(worker, &host, plugin, spent), 0),
            None => (0, spent),
        };
        io.rest_ms = deliver(worker, &host, connections, spent).max(rest);
        Ok(if received.is_open { RPW_CONTINUE } else { RPW_WORK_STOP })
    })
}

/// Says what a connection must send, and when to ask again.
///
/// # Arguments
/// `protocol`: as for `rpw_connection_connected`. `ready`: 1 when all that was to be sent before is, so that there may be more.
/// # Returns
/// `RPW_WORK_WAIT`: send what is in `*io`, good until the next call of this function, after the rest that it says, then wait for
/// `*wait_ms` or until `rpw_work_next` names the connection. `RPW_WORK_STOP`: send that and close the connection.
/// # Errors
/// `RPW_ERROR` when guests cannot be told of calls whose time is over.
/// # Safety
/// `io`, `wait_ms` and `error` are valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_connection_next(
    protocol: i32,
    id: u32,
    ready: i32,
    io: *mut rpw_io_t,
    wait_ms: *mut u32,
    error: *mut rpw_error_t,
) -> i32 {
    guest_boundary(Entry::Request, true, error, |worker| {
        // SAFETY: as promised by the caller.
        let (io, wait) = unsafe { (io.as_mut(), wait_ms.as_mut()) };
        let (Some(io), Some(wait)) = (io, wait) else {
            return Err(Failure::new("rpw_connection_next: NULL argument"));
        };
        let (host, connections) = (host()?, of(worker, protocol)?);
        let now = host.monotonic_clock();
        let then = {
            let mut connections = connections.borrow_mut();
            let (data, then) = connections.next(id, ready != 0, now);
            (io.data, io.length) = types::lend(data);
            then
        };
        io.rest_ms =
            deliver(worker, &host, connections, host.monotonic_clock().saturating_sub(now));
        Ok(match then {
            Then::Close => RPW_WORK_STOP,
            Then::Wait(at) => {
                *wait = milliseconds(at, now);
                RPW_WORK_WAIT
            }
        })
    })
}

/// Says that a connection was not made, or broke.
///
/// # Arguments
/// `protocol`: as for `rpw_connection_connected`. `word`: "resolver", "connect", "tls", "timeout" or "closed". `details`: more
/// about it.
/// # Returns
/// `RPW_CONTINUE`.
/// # Errors
/// `RPW_ERROR` when guests cannot be told.
/// # Safety
/// The strings have the given lengths; `error` is NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_connection_failed(
    protocol: i32,
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
        let failure = failures::failure(word, details);
        let (host, connections) = (host()?, of(worker, protocol)?);
        let spent = connections.borrow_mut().failed(id, failure, host.monotonic_clock());
        deliver(worker, &host, connections, spent);
        Ok(RPW_CONTINUE)
    })
}

/// Says that the worker is to end: its connections close as soon as they have no calls.
///
/// # Arguments
/// `protocol`: as for `rpw_connection_connected`.
/// # Returns
/// `RPW_CONTINUE`; then `rpw_work_next` says which to look at.
/// # Safety
/// `error` is NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_connection_end_soon(protocol: i32, error: *mut rpw_error_t) -> i32 {
    with_worker(error, |worker| {
        of(worker, protocol)?.borrow_mut().end_soon();
        worker.announce();
        Ok(RPW_CONTINUE)
    })
}
