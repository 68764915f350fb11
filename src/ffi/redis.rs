//! The Redis connections of a worker. For each a light thread of its own moves the bytes.

use std::cell::RefCell;
use std::ffi::c_char;
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::desk::{self, Answer};
use super::ticker::Entry;
use super::{
    Failure, RPW_CONTINUE, RPW_WORK_REDIS, RPW_WORK_STOP, RPW_WORK_WAIT, boundary, failures,
    guest_boundary, nginx, rpw_error_t, rpw_io_t, rpw_work_t, sockets, trust, types, work,
};
use crate::abi::LogLevel;
use crate::limits;
use crate::ports::Host;
use crate::redis::{Action, Command, Event, Lost, Pool, Wait};
use crate::vm::{CallRef, Plugin};

/// Whom a call belongs to.
type Owner = (Rc<Plugin>, CallRef);

#[derive(Default)]
struct Redis {
    pool: Pool<Owner>,
    /// The numbers of calls in the pool, by their plugins' addresses.
    ids: FxHashMap<(usize, CallRef), u32>,
    /// When the log was told last of a server's failures, and how many calls have failed since, by plugin and server.
    told: FxHashMap<(usize, String), (u64, usize)>,
    /// What is to be sent, lent to Lua.
    out: Vec<u8>,
    /// What to connect to, and whose certificate it must show, lent to Lua.
    host: String,
    server_name: String,
}

thread_local! {
    static REDIS: RefCell<Redis> = RefCell::default();
}

fn address(plugin: &Rc<Plugin>) -> usize {
    Rc::as_ptr(plugin) as usize
}

/// Does what a plugin's guests asked for. Returns how many calls that is.
pub(super) fn command(plugin: &Rc<Plugin>, commands: Vec<(CallRef, Command)>, now: u64) -> u64 {
    if commands.is_empty() {
        return 0;
    }
    REDIS.with_borrow_mut(|redis| {
        let mut calls = 0;
        for (of, command) in commands {
            match command {
                Command::Renew(target) => redis.pool.renew(address(plugin), &target),
                Command::Call(call) => {
                    let id = redis.pool.call((plugin.clone(), of), address(plugin), call, now);
                    redis.ids.insert((address(plugin), of), id);
                    calls += 1;
                }
            }
        }
        calls
    })
}

/// Gives up calls that nobody waits for any more.
pub(super) fn drop_calls(plugin: &Rc<Plugin>, dropped: CallRef) {
    REDIS.with_borrow_mut(|redis| {
        if redis.ids.is_empty() {
            return;
        }
        let Redis { pool, ids, .. } = redis;
        if let Some(id) = ids.remove(&(address(plugin), dropped)) {
            pool.cancel(id);
            return;
        }
        // Maybe all of a VM.
        ids.retain(|(of, call), id| {
            let stays = *of != address(plugin) || !call.is_of(dropped);
            if !stays {
                pool.cancel(*id);
            }
            stays
        });
    });
}

/// What light threads are to do: `RPW_WORK_REDIS` with a connection.
pub(super) fn hand_out(work: &mut rpw_work_t) -> Option<i32> {
    REDIS.with_borrow_mut(|redis| {
        loop {
            let Action(id) = redis.pool.take_action()?;
            let Some((target, name)) = redis.pool.target(id) else { continue };
            let (host, port) = sockets::address(&target.upstream.target);
            (work.id, work.port) = (id, port.into());
            work.tls = match trust::of_http(&target.upstream) {
                _ if !target.upstream.tls => 0,
                None => 1,
                Some(_) => 2,
            };
            (redis.host, redis.server_name) = (host, name.to_string());
            (work.host, work.host_length) = desk::lend(&redis.host);
            (work.server_name, work.server_name_length) = desk::lend(&redis.server_name);
            return Some(RPW_WORK_REDIS);
        }
    })
}

/// Tells guests what came of their calls, as long as it is the turn of jobs; the rest later.
fn deliver(host: &Arc<dyn Host>, before: u64) {
    let (lost, any) =
        REDIS.with_borrow_mut(|redis| (redis.pool.take_lost(), redis.pool.has_actions()));
    if any {
        work::announce();
    }
    for lost in lost {
        log_lost(&lost, host.monotonic_clock());
    }
    let mut before = before;
    while let Some(answer) = REDIS.with_borrow_mut(next_answer) {
        work::tell_in_turn(host, answer, std::mem::take(&mut before));
    }
}

fn next_answer(redis: &mut Redis) -> Option<Answer> {
    let (Event { result, .. }, (plugin, of), _) = redis.pool.take_event()?;
    redis.ids.remove(&(address(&plugin), of));
    Some(Answer::Redis(plugin, of, result))
}

/// One line for all calls that fail by one cause, and one for each second: they may be thousands.
fn log_lost(lost: &Lost<Owner>, now: u64) {
    let (plugin, name, why) = (&lost.owner.0, &lost.name, &lost.why);
    let more = REDIS.with_borrow_mut(|redis| {
        // Names are few: a plugin context begins with so many servers at most, but may call others.
        if redis.told.len() >= limits::REDIS_CONNECTIONS {
            redis.told.retain(|_, (at, _)| now - *at < QUIET_NANOS);
        }
        let told = redis.told.entry((address(plugin), name.clone())).or_insert((0, 0));
        if told.0 != 0 && now - told.0 < QUIET_NANOS {
            told.1 += lost.calls;
            return None;
        }
        told.0 = now;
        Some(std::mem::take(&mut told.1))
    });
    let Some(more) = more else { return };
    let what = match lost.calls {
        0 => format!("Redis server {name}"),
        1 => format!("Redis call to {name} failed"),
        many => format!("{many} Redis calls to {name} failed"),
    };
    let more =
        if more == 0 { String::new() } else { format!("; so did {more} in the second before") };
    let line = format!("wasm plugin \"{}\": {what}: {why}{more}", plugin.name());
    nginx::log(None, LogLevel::Warn, line.as_bytes());
}

/// For so long the log is told nothing more of a server's failures.
const QUIET_NANOS: u64 = 1_000 * sockets::NANOS_PER_MS;

/// Says that a connection is there.
///
/// # Returns
/// `RPW_CONTINUE`; then `rpw_redis_next`.
/// # Errors
/// `RPW_ERROR` when guests cannot be told that TLS cannot be spoken.
/// # Safety
/// `error` is NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_redis_connected(id: u32, error: *mut rpw_error_t) -> i32 {
    guest_boundary(Entry::Request, true, error, |_| {
        let host = nginx::host()?;
        REDIS.with_borrow_mut(|redis| {
            let Some((target, name)) = redis.pool.target(id) else { return };
            match trust::begin_redis(&target.upstream, name) {
                Ok(tls) => redis.pool.connected(id, tls),
                Err(failure) => redis.pool.failed(id, &failure),
            }
        });
        deliver(&host, 0);
        Ok(RPW_CONTINUE)
    })
}

/// Takes what a connection received, and tells guests of it.
///
/// # Arguments
/// `eof`: 1 when nothing more will be received.
/// # Returns
/// `RPW_CONTINUE`, with the milliseconds to sleep before more is received in `io->rest_ms`; `RPW_WORK_STOP` when the
/// connection is to be closed.
/// # Errors
/// `RPW_ERROR` when guests cannot be told.
/// # Safety
/// `data` has the given length; `io` and `error` are valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_redis_receive(
    id: u32,
    data: *const c_char,
    data_length: usize,
    eof: i32,
    io: *mut rpw_io_t,
    error: *mut rpw_error_t,
) -> i32 {
    guest_boundary(Entry::Request, true, error, |_| {
        // SAFETY: as promised by the caller.
        let (data, io) = unsafe { (types::bytes(data, data_length), io.as_mut()) };
        let io = io.ok_or_else(|| Failure::new("rpw_redis_receive: NULL argument"))?;
        let host = nginx::host()?;
        let began = host.monotonic_clock();
        let (plugin, is_there) = REDIS.with_borrow_mut(|redis| {
            let plugin = redis.pool.owner(id).map(|(plugin, _)| plugin.clone());
            redis.pool.receive(id, data, eof != 0, began);
            (plugin, redis.pool.target(id).is_some())
        });
        let took = host.monotonic_clock().saturating_sub(began) + work::PIECE_NANOS;
        io.rest_ms = plugin.map_or(0, |plugin| work::charge(&host, &plugin, took));
        deliver(&host, 0);
        Ok(if is_there { RPW_CONTINUE } else { RPW_WORK_STOP })
    })
}

/// Says what a connection must send, and when to ask again.
///
/// # Returns
/// `RPW_WORK_WAIT`: send what is in `*io`, good until the next call of this function, then wait for `*wait_ms` or until
/// `RPW_WORK_REDIS`. `RPW_WORK_STOP`: close the connection.
/// # Errors
/// `RPW_ERROR` when guests cannot be told of calls whose time is over.
/// # Safety
/// `io`, `wait_ms` and `error` are valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_redis_next(
    id: u32,
    io: *mut rpw_io_t,
    wait_ms: *mut u32,
    error: *mut rpw_error_t,
) -> i32 {
    guest_boundary(Entry::Request, true, error, |_| {
        // SAFETY: as promised by the caller.
        let (io, wait_ms) = unsafe { (io.as_mut(), wait_ms.as_mut()) };
        let (Some(io), Some(wait_ms)) = (io, wait_ms) else {
            return Err(Failure::new("rpw_redis_next: NULL argument"));
        };
        let host = nginx::host()?;
        let now = host.monotonic_clock();
        let wait = REDIS.with_borrow_mut(|redis| {
            redis.out.clear();
            let wait = redis.pool.next(id, &mut redis.out, now);
            io.data = redis.out.as_ptr().cast();
            io.length = redis.out.len();
            wait
        });
        deliver(&host, 0);
        Ok(match wait {
            Wait::Close => RPW_WORK_STOP,
            Wait::Until(at) => {
                *wait_ms = sockets::wait_ms(at, now);
                RPW_WORK_WAIT
            }
        })
    })
}

/// Says that a connection was not made, or broke.
///
/// # Arguments
/// `word`: "resolver", "connect", "tls", "timeout" or "closed". `details`: more about it.
/// # Returns
/// `RPW_CONTINUE`.
/// # Errors
/// `RPW_ERROR` when guests cannot be told.
/// # Safety
/// The strings have the given lengths; `error` is NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_redis_failed(
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
        let failure = failures::failure(word, details);
        let host = nginx::host()?;
        REDIS.with_borrow_mut(|redis| redis.pool.failed(id, &failure));
        deliver(&host, work::FAILED_NANOS);
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
pub unsafe extern "C" fn rpw_redis_end_soon(error: *mut rpw_error_t) -> i32 {
    boundary(error, || {
        REDIS.with_borrow_mut(|redis| redis.pool.end_soon());
        work::announce();
        Ok(RPW_CONTINUE)
    })
}
