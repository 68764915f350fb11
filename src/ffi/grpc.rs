//! The gRPC connections of a worker. For each a light thread of its own moves the bytes.

use std::cell::RefCell;
use std::ffi::c_char;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::desk::{self, Answer};
use super::ticker::Entry;
use super::work::PIECE_NANOS;
use super::{
    Failure, RPW_CONTINUE, RPW_WORK_STOP, RPW_WORK_WAIT, boundary, failures, guest_boundary, nginx,
    rpw_error_t, rpw_io_t, rpw_work_t, shared, sockets, trust, types, work,
};
use crate::callout::{FailureKind, Target};
use crate::grpc::{Action, Code, Command, Event, Opening, Pool, Wait};
use crate::ports::Host;
use crate::shm::CallKind;
use crate::vm::{CallRef, Plugin};

/// Whom a call belongs to.
type Owner = (Rc<Plugin>, CallRef);

#[derive(Default)]
struct Grpc {
    pool: Pool<Owner>,
    /// The numbers of calls in the pool, by their plugins' addresses.
    ids: FxHashMap<(usize, CallRef), u32>,
    /// What is to be sent, lent to Lua.
    out: Vec<u8>,
    /// What to connect to, lent to Lua.
    host: String,
    /// When connections were begun that are not made yet.
    began: FxHashMap<u32, u64>,
}

thread_local! {
    static GRPC: RefCell<Grpc> = RefCell::default();
}

fn key(plugin: &Rc<Plugin>, of: CallRef) -> (usize, CallRef) {
    (Rc::as_ptr(plugin) as usize, of)
}

/// Does what a plugin's guests asked for.
pub(super) fn command(plugin: &Rc<Plugin>, commands: Vec<(CallRef, Command)>, now: u64) {
    GRPC.with_borrow_mut(|grpc| {
        for (of, command) in commands {
            let id = grpc.ids.get(&key(plugin, of)).copied();
            match (command, id) {
                (Command::Open(opening), _) => {
                    let id = grpc.pool.open((plugin.clone(), of), *opening, now);
                    grpc.ids.insert(key(plugin, of), id);
                }
                (Command::Send(_, message, end), Some(id)) => grpc.pool.send(id, message, end),
                (Command::Cancel(_), Some(id)) => {
                    grpc.ids.remove(&key(plugin, of));
                    grpc.pool.cancel(id, now);
                }
                // It has ended meanwhile.
                (Command::Send(..) | Command::Cancel(_), None) => {}
            }
        }
    });
}

/// Gives up the calls of a VM that has ended.
pub(super) fn drop_calls(plugin: &Rc<Plugin>, dropped: CallRef, now: u64) {
    GRPC.with_borrow_mut(|grpc| {
        let calls = grpc.pool.calls_of(|(of, call)| Rc::ptr_eq(of, plugin) && call.is_of(dropped));
        for id in calls {
            grpc.pool.cancel(id, now);
        }
        grpc.ids.retain(|(address, of), _| {
            *address != Rc::as_ptr(plugin) as usize || !of.is_of(dropped)
        });
    });
}

/// Whether a light thread has something to do.
pub(super) fn has_actions() -> bool {
    GRPC.with_borrow(|grpc| grpc.pool.has_actions())
}

/// What light threads are to do.
pub(super) enum ToDo {
    /// Go on with that connection.
    Wake(u32),
    /// Make that connection, for that plugin, when it is its turn.
    Connect(Rc<Plugin>, u32),
}

/// The next thing to do.
pub(super) fn take_action() -> Option<ToDo> {
    GRPC.with_borrow_mut(|grpc| {
        loop {
            match grpc.pool.take_action()? {
                Action::Wake(id) => return Some(ToDo::Wake(id)),
                Action::Connect(id) => match grpc.pool.asker(id) {
                    Some((plugin, _)) => return Some(ToDo::Connect(plugin.clone(), id)),
                    None => grpc.pool.forget_connection(id),
                },
            }
        }
    })
}

/// Says what to connect to. False when nobody waits for that connection any more.
pub(super) fn begin_connecting(id: u32, work: &mut rpw_work_t, now: u64) -> bool {
    GRPC.with_borrow_mut(|grpc| {
        if grpc.pool.asker(id).is_none() {
            grpc.pool.forget_connection(id);
            return false;
        }
        let Some(destination) = grpc.pool.destination(id).cloned() else { return false };
        let upstream = &destination.upstream;
        let (host, port) = sockets::address(&upstream.target);
        (work.id, work.port, work.tls) = (id, port.into(), upstream.tls.into());
        work.judged = destination.judged.is_some().into();
        grpc.host = host;
        (work.host, work.host_length) = desk::lend(&grpc.host);
        grpc.began.insert(id, now);
        true
    })
}

/// Whether a connection may be made to an address. One that nobody waits for may not.
pub(super) fn permits(id: u32, address: IpAddr) -> bool {
    GRPC.with_borrow(|grpc| {
        let judged = || {
            let destination = grpc.pool.destination(id)?;
            let (plugin, _) = grpc.pool.asker(id)?;
            let port = match destination.upstream.target {
                Target::Tcp(_, port) => port,
                Target::Unix(_) => 0,
            };
            let named = destination.judged.is_none_or(|judged| judged.name_allowed);
            Some(plugin.module().info().calls.permits_address(address, port, named))
        };
        judged().unwrap_or(false)
    })
}

/// A guest was told of a message of a stream, of that size.
pub(super) fn told(id: u32, size: usize) {
    GRPC.with_borrow_mut(|grpc| grpc.pool.told(id, size));
    if has_actions() {
        work::announce();
    }
}

/// Tells guests what came of their calls, now or later. `spent`: nanoseconds that it took to find out. Returns the
/// milliseconds to rest.
fn deliver(host: &Arc<dyn Host>, mut spent: u64) -> u32 {
    while let Some((answer, ended)) = GRPC.with_borrow_mut(next_event) {
        if let (Some(opening), Answer::Grpc(plugin, _, _, event)) = (ended, &answer) {
            let failed = matches!(event, Event::Close(status) if status.code != Code::Ok);
            shared::count_call(plugin, &opening.name, CallKind::Grpc, failed);
            log_failure(plugin, &opening, event);
        }
        work::tell_in_turn(host, answer, std::mem::take(&mut spent));
    }
    // Other connections may have got something to do.
    if has_actions() {
        work::announce();
    }
    work::spend(host, spent)
}

fn next_event(grpc: &mut Grpc) -> Option<(Answer, Option<Opening>)> {
    loop {
        let (id, event) = grpc.pool.take_event()?;
        let Some(((plugin, of), ended)) = grpc.pool.owner_of(id, &event) else { continue };
        if ended.is_some() {
            grpc.ids.remove(&key(&plugin, of));
        }
        return Some((Answer::Grpc(plugin, of, id, event), ended));
    }
}

/// What a server answers is the filter's business; what fails on the way is the administrator's.
fn log_failure(plugin: &Plugin, opening: &Opening, event: &Event) {
    let Event::Close(status) = event else { return };
    if status.code == Code::Ok || status.of_server {
        return;
    }
    let kind = if opening.message.is_some() { "gRPC call" } else { "gRPC stream" };
    failures::report_call(plugin, kind, &opening.name, status);
}

/// Says that a connection is there.
///
/// # Returns
/// `RPW_CONTINUE`; then `rpw_grpc_next`.
/// # Errors
/// `RPW_ERROR` when guests cannot be told what came of it.
/// # Safety
/// `error` is NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_grpc_connected(id: u32, error: *mut rpw_error_t) -> i32 {
    guest_boundary(Entry::Request, true, error, |_| {
        let host = nginx::host()?;
        let now = host.monotonic_clock();
        GRPC.with_borrow_mut(|grpc| {
            grpc.began.remove(&id);
            let Some(destination) = grpc.pool.destination(id) else { return };
            let (upstream, name) = (&destination.upstream, &destination.server_name);
            let tls =
                if upstream.tls { trust::begin_grpc(upstream, name).map(Some) } else { Ok(None) };
            match tls {
                Ok(tls) => grpc.pool.connected(id, tls, now),
                Err(failure) => grpc.pool.failed(id, &failure, now),
            }
        });
        deliver(&host, host.monotonic_clock().saturating_sub(now));
        Ok(RPW_CONTINUE)
    })
}

/// Takes what a connection received, and tells guests of it.
///
/// # Arguments
/// `eof`: 1 when nothing more will be received.
/// # Returns
/// `RPW_CONTINUE`, with the milliseconds to sleep before more is received in `*rest_ms`, 0 as a rule.
/// # Errors
/// `RPW_ERROR` when guests cannot be told.
/// # Safety
/// `data` has the given length; `rest_ms` and `error` are NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_grpc_receive(
    id: u32,
    data: *const c_char,
    data_length: usize,
    eof: i32,
    rest_ms: *mut u32,
    error: *mut rpw_error_t,
) -> i32 {
    guest_boundary(Entry::Request, true, error, |_| {
        // SAFETY: as promised by the caller.
        let (data, rest_ms) = unsafe { (types::bytes(data, data_length), rest_ms.as_mut()) };
        let host = nginx::host()?;
        let now = host.monotonic_clock();
        let untold = work::untold();
        GRPC.with_borrow_mut(|grpc| {
            grpc.pool.receive(id, data, eof != 0, now);
            grpc.pool.keep_within(id, untold, now);
        });
        let spent = host.monotonic_clock().saturating_sub(now) + PIECE_NANOS;
        let rest = deliver(&host, spent);
        if let Some(rest_ms) = rest_ms {
            *rest_ms = rest;
        }
        Ok(RPW_CONTINUE)
    })
}

/// Says what a connection must send, and when to ask again.
///
/// # Arguments
/// `ready`: 1 when all that was to be sent before is, so that there may be more.
/// # Returns
/// `RPW_WORK_WAIT`: send what is in `*io`, good until the next call of this function, after the rest that it says, then wait for
/// `*wait_ms` or until `RPW_WORK_WAKE`. `RPW_WORK_STOP`: send that and close the connection.
/// # Errors
/// `RPW_ERROR` when guests cannot be told of calls whose time is over.
/// # Safety
/// `io`, `wait_ms` and `error` are valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_grpc_next(
    id: u32,
    ready: i32,
    io: *mut rpw_io_t,
    wait_ms: *mut u32,
    error: *mut rpw_error_t,
) -> i32 {
    guest_boundary(Entry::Request, true, error, |_| {
        // SAFETY: as promised by the caller.
        let (io, wait_ms) = unsafe { (io.as_mut(), wait_ms.as_mut()) };
        let (Some(io), Some(wait_ms)) = (io, wait_ms) else {
            return Err(Failure::new("rpw_grpc_next: NULL argument"));
        };
        let host = nginx::host()?;
        let now = host.monotonic_clock();
        let answer = GRPC.with_borrow_mut(|grpc| {
            grpc.pool.give_up(|(plugin, _)| !plugin.has_requests(), now);
            grpc.pool.expire(id, now);
            grpc.out.clear();
            let wait = grpc.pool.next(id, (ready != 0).then_some(&mut grpc.out), now);
            io.data = grpc.out.as_ptr().cast();
            io.length = grpc.out.len();
            match wait {
                Wait::Close => RPW_WORK_STOP,
                Wait::Until(at) => {
                    *wait_ms = sockets::wait_ms(at, now);
                    RPW_WORK_WAIT
                }
            }
        });
        io.rest_ms = deliver(&host, host.monotonic_clock().saturating_sub(now));
        Ok(answer)
    })
}

/// Says that a connection was not made, or broke.
///
/// # Arguments
/// `word`: "resolver", "connect", "timeout" or "closed". `details`: more about it.
/// # Returns
/// `RPW_CONTINUE`.
/// # Errors
/// `RPW_ERROR` when guests cannot be told.
/// # Safety
/// The strings have the given lengths; `error` is NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_grpc_failed(
    id: u32,
    word: *const c_char,
    word_length: usize,
    details: *const c_char,
    details_length: usize,
    error: *mut rpw_error_t,
) -> i32 {
    guest_boundary(Entry::Request, true, error, |_| {
        // SAFETY: as promised by the caller.
        let (word, details) =
            unsafe { (types::bytes(word, word_length), types::bytes(details, details_length)) };
        let mut failure = failures::failure(word, details);
        // The time of a call is over when its deadline is, and not when a connection takes long.
        if failure.kind == FailureKind::Timeout {
            failure.kind = FailureKind::Connect;
        }
        let host = nginx::host()?;
        let now = host.monotonic_clock();
        let began = GRPC.with_borrow_mut(|grpc| {
            grpc.pool.failed(id, &failure, now);
            grpc.began.remove(&id)
        });
        deliver(&host, began.map_or(0, |began| work::failed_nanos(&host, began)));
        Ok(RPW_CONTINUE)
    })
}

/// Says that the worker is to end: its connections close as soon as they have no calls.
///
/// # Returns
/// `RPW_CONTINUE`; then `rpw_work_next` says which to look at.
/// # Safety
/// `error` is NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_grpc_end_soon(error: *mut rpw_error_t) -> i32 {
    boundary(error, || {
        GRPC.with_borrow_mut(|grpc| grpc.pool.end_soon());
        work::announce();
        Ok(RPW_CONTINUE)
    })
}
