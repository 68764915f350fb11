//! Background jobs: ticks, queue callbacks, HTTP and gRPC calls, asynchronous functions. A light thread of the worker takes them.

use std::cell::{Cell, RefCell};
use std::ffi::{c_char, c_void};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use super::desk::{Answer, Desk, Function, Next};
use super::entries::Caller;
use super::failures::{failure, report, report_call};
use super::ticker::{self, Entry};
use super::worker::{self, Worker};
use super::{
    Failure, RPW_CALL_GONE, RPW_CONTINUE, RPW_WORK_CONNECT, RPW_WORK_FOLLOW, RPW_WORK_WAKE,
    boundary, grpc, guest_boundary, listen, nginx, plans, process, redis, rpw_error_t, rpw_io_t,
    rpw_work_t, shared, types,
};
use crate::callout::{self, FailureKind};
use crate::limits;
use crate::ports::Host;
use crate::shm::CallKind;
use crate::vm::{Plugin, Work};

/// 1 while some plugin has work. Lua looks at it after each call of the library.
static WAITS: AtomicI32 = AtomicI32::new(0);

thread_local! {
    static DESK: RefCell<Desk> = RefCell::default();
    /// Callbacks are among the work: ticks, queues, contexts to make again or to end.
    static CALLBACKS: Cell<bool> = const { Cell::new(false) };
    /// Whom to post when work comes, and in which process.
    static LISTENER: Cell<Option<(NonZeroUsize, u64)>> = const { Cell::new(None) };
}

/// A plugin that may have work from now on.
pub fn add_plugin(plugin: &Rc<Plugin>) {
    DESK.with_borrow_mut(|desk| desk.add_plugin(plugin));
}

/// Some plugin has work.
pub fn announce() {
    WAITS.store(1, Ordering::Relaxed);
    // Lua looks when its call returns.
    if is_below_lua() {
        return;
    }
    if let Some((semaphore, of)) = LISTENER.get()
        && of == process::current()
    {
        nginx::post(semaphore);
    }
}

/// Some plugin has callbacks to be run.
pub fn announce_callbacks() {
    CALLBACKS.set(true);
    announce();
}

/// Whether what is announced is found, wherever it comes from: by the Lua below, or by a light thread that is woken.
pub fn is_looked_for() -> bool {
    is_below_lua() || LISTENER.get().is_some_and(|(_, of)| of == process::current())
}

fn is_below_lua() -> bool {
    worker::with(|worker| worker.entries.is_below_lua())
}

/// The semaphore is about to be freed.
pub fn forget_listener(semaphore: NonZeroUsize) {
    if LISTENER.get().is_some_and(|(listener, _)| listener == semaphore) {
        LISTENER.set(None);
    }
}

/// A request may bring calls when no Lua runs any more that would look for them, in on_log: so someone must listen.
pub fn expect_calls() {
    if LISTENER.get().is_none_or(|(_, of)| of != process::current()) {
        WAITS.store(1, Ordering::Relaxed);
    }
}

/// Tells where to look whether there is work: not 0 when `rpw_work_next` should be called.
///
/// # Returns
/// An address that stays good for the life of the process.
#[unsafe(no_mangle)]
pub extern "C" fn rpw_work_waits() -> *const i32 {
    WAITS.as_ptr()
}

/// Says whom to wake when work comes.
///
/// # Returns
/// `RPW_CONTINUE`.
/// # Safety
/// `semaphore` is NULL, or an `ngx_http_lua_sema_t`, and `rpw_semaphore_gone` is called before it is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_work_listen(semaphore: *mut c_void) -> i32 {
    let listener = NonZeroUsize::new(semaphore as usize);
    LISTENER.set(listener.map(|semaphore| (semaphore, process::current())));
    RPW_CONTINUE
}

/// Says what is to be done next outside of requests.
///
/// # Arguments
/// `turn`: 0 to take calls and functions only; 1 to run what is due of ticks, queues and answers, too; 2 for the same, after
/// `RPW_WORK_REST`, or after another wait, when a timer of nginx has ended it.
/// # Returns
/// `RPW_WORK_START` (make a call), `RPW_WORK_STOP` (give a call up), `RPW_WORK_RUN` (run a function), `RPW_WORK_LISTEN` (see
/// `rpw_listen_begin`), `RPW_WORK_FOLLOW`, `RPW_WORK_WATCH`, `RPW_WORK_REST`, `RPW_WORK_WAIT`, with the details in `*work`, whose
/// strings are good until the call of that id ends; `RPW_ERROR`.
/// # Safety
/// `work` and `error` are valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_work_next(
    turn: i32,
    work: *mut rpw_work_t,
    error: *mut rpw_error_t,
) -> i32 {
    boundary(error, || {
        // SAFETY: as promised by the caller.
        let work = unsafe { work.as_mut() };
        let work = work.ok_or_else(|| Failure::new("rpw_work_next: NULL argument"))?;
        let host = nginx::host()?;
        let callbacks = turn > 0;
        if callbacks {
            prepare(&host, turn > 1)?;
        }
        if plans::is_behind() {
            return Ok(RPW_WORK_FOLLOW);
        }
        // Plans of other workers come by the same way as messages.
        if shared::is_common() {
            DESK.with_borrow_mut(Desk::listen);
        }
        loop {
            collect(&host);
            while let Some(action) = grpc::take_action() {
                match action {
                    grpc::ToDo::Wake(id) => {
                        work.id = id;
                        return Ok(RPW_WORK_WAKE);
                    }
                    grpc::ToDo::Connect(plugin, id) => {
                        DESK.with_borrow_mut(|desk| desk.add_connection(&plugin, id));
                    }
                }
            }
            if let Some(handed) = redis::hand_out(work) {
                return Ok(handed);
            }
            let now = host.monotonic_clock();
            match DESK.with_borrow_mut(|desk| desk.next(work, now, callbacks)) {
                Next::Tell(code) => return Ok(code),
                Next::Answer(answer) => {
                    inside(|_| tell(&host, answer, 0))?;
                }
                Next::Callbacks(plugin) => {
                    inside(|_| run_callbacks(&host, &plugin))?;
                }
                Next::Connect(id) => {
                    if grpc::begin_connecting(id, work, now) {
                        return Ok(RPW_WORK_CONNECT);
                    }
                }
            }
        }
    })
}

/// Guests are entered in `f`.
fn inside(f: impl FnOnce(&Worker)) -> Result<(), Failure> {
    worker::with(|worker| {
        let _below = worker.entries.enter(Caller::Interpreter)?;
        let _running = ticker::enter(Entry::Request)?;
        f(worker);
        Ok(())
    })
}

/// What comes first in a turn that runs callbacks.
fn prepare(host: &Arc<dyn Host>, renewed: bool) -> Result<(), Failure> {
    let kept = DESK.with_borrow_mut(|desk| {
        if renewed {
            desk.share.renew();
        }
        if host.is_ending() {
            desk.end();
        }
        desk.let_go(host.monotonic_clock())
    });
    listen::wake_others_again();
    if worker::with(|worker| worker.endings.any()) {
        inside(|worker| worker.endings.run())?;
    }
    drop(kept);
    Ok(())
}

/// Asks the plugins what they want done. No guest is entered.
fn collect(host: &Arc<dyn Host>) {
    if WAITS.swap(0, Ordering::Relaxed) == 0 {
        return;
    }
    for plugin in DESK.with_borrow(Desk::plugins) {
        let mut work = plugin.requested();
        command_others(host, &plugin, &mut work);
        DESK.with_borrow_mut(|desk| desk.enter(&plugin, work));
    }
    if CALLBACKS.take() {
        DESK.with_borrow_mut(Desk::ask_all);
    }
}

/// Hands over what gRPC calls and Redis calls come to.
fn command_others(host: &Arc<dyn Host>, plugin: &Rc<Plugin>, work: &mut Work) {
    let now = host.monotonic_clock();
    grpc::command(plugin, std::mem::take(&mut work.grpc), now);
    let asked = redis::command(plugin, std::mem::take(&mut work.redis), now);
    if asked > 0 {
        DESK.with_borrow_mut(|desk| desk.charge(plugin, asked * PIECE_NANOS));
    }
    for of in &work.dropped {
        grpc::drop_calls(plugin, *of, now);
        redis::drop_calls(plugin, *of);
    }
}

/// Runs what is due of a plugin.
fn run_callbacks(host: &Arc<dyn Host>, plugin: &Rc<Plugin>) {
    let began = host.monotonic_clock();
    let mut work = plugin.work();
    for error in &work.errors {
        report(plugin, error);
    }
    command_others(host, plugin, &mut work);
    DESK.with_borrow_mut(|desk| {
        desk.set_due(plugin, work.next, work.over);
        desk.enter(plugin, work);
        desk.charge(plugin, host.monotonic_clock().saturating_sub(began));
    });
}

/// Tells a guest what came of a call or a function, and counts its time and what was taken before.
fn tell(host: &Arc<dyn Host>, answer: Answer, before: u64) {
    let began = host.monotonic_clock();
    let plugin = answer.plugin().clone();
    let message = answer.grpc_message();
    if let Err(error) = answer.tell() {
        report(&plugin, &error);
    }
    if let Some((id, size)) = message {
        grpc::told(id, size);
    }
    let took = host.monotonic_clock().saturating_sub(began);
    DESK.with_borrow_mut(|desk| desk.charge(&plugin, before + took));
}

/// Counts time that a job of a plugin took. Returns the milliseconds to rest when jobs have had their share.
pub(super) fn charge(host: &Arc<dyn Host>, plugin: &Rc<Plugin>, nanos: u64) -> u32 {
    DESK.with_borrow_mut(|desk| {
        desk.charge(plugin, nanos);
        let now = host.monotonic_clock();
        let rest = if desk.share.allows(now) { None } else { desk.share.rest(now) };
        rest.unwrap_or(0) as u32
    })
}

/// Tells a guest now, or later when jobs have had their share of the time.
pub(super) fn tell_in_turn(host: &Arc<dyn Host>, answer: Answer, before: u64) {
    let now = host.monotonic_clock();
    let allowed = DESK.with_borrow_mut(|desk| {
        if desk.may_tell(answer.plugin(), now) {
            return Some(answer);
        }
        desk.charge(&answer.plugin().clone(), before);
        desk.add_answer(answer);
        None
    });
    match allowed {
        Some(answer) => tell(host, answer, before),
        None => announce(),
    }
}

/// Counts time that was spent for no plugin in particular. Returns the milliseconds to rest, 0 as a rule.
pub(super) fn spend(host: &Arc<dyn Host>, nanos: u64) -> u32 {
    let now = host.monotonic_clock();
    let rest = DESK.with_borrow_mut(|desk| {
        desk.share.charge(nanos);
        desk.rest_ms(now)
    });
    if rest > 0 {
        // The light thread of jobs ends the round.
        announce();
    }
    rest
}

/// Bytes of what guests were not told yet.
pub(super) fn untold() -> usize {
    DESK.with_borrow(Desk::untold)
}

/// Keeps a plugin that Lua lets go of, until the ends of its contexts are done.
pub fn keep(plugin: &Rc<Plugin>) {
    let Ok(host) = nginx::host() else { return };
    let until = host.monotonic_clock() + limits::END_MS * NANOS_PER_MS;
    DESK.with_borrow_mut(|desk| desk.keep(plugin, until));
    announce();
}

/// What a failure took of the worker's time.
pub(super) fn failed_nanos(host: &Arc<dyn Host>, began: u64) -> u64 {
    host.monotonic_clock().saturating_sub(began).min(FAILED_NANOS)
}

const NANOS_PER_MS: u64 = 1_000_000;
/// What Lua and nginx need to move a piece of a response: about, since it is not measured.
pub(super) const PIECE_NANOS: u64 = 5_000;
/// A call that fails at once has kept nginx busy for all its time; one that fails later has waited.
pub(super) const FAILED_NANOS: u64 = 200_000;

/// Takes what a call's connection received, and gives what must be sent.
///
/// # Arguments
/// `eof`: 1 when nothing more will be received. At first nothing is received.
/// # Returns
/// `RPW_CALL_RECEIVE`, `RPW_CALL_DONE` (then `rpw_call_end`), both with what must be sent first in `*io`, good until the
/// next call of this function for that id; `RPW_CALL_GONE` when nobody waits for the call any more; `RPW_ERROR`.
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
    boundary(error, || {
        // SAFETY: as promised by the caller.
        let (data, io) = unsafe { (types::bytes(data, data_length), io.as_mut()) };
        let io = io.ok_or_else(|| Failure::new("rpw_call_advance: NULL argument"))?;
        let host = nginx::host()?;
        let began = host.monotonic_clock();
        let code = DESK.with_borrow_mut(|desk| {
            let Some(call) = desk.calls.get_mut(&id) else { return RPW_CALL_GONE };
            call.out.clear();
            let before = call.received();
            let (code, reusable) = call.advance(data, eof != 0);
            // Looked at once for each MiB that comes, since it looks at every call.
            let (code, reusable) = if call.received() >> 20 != before >> 20 && desk.is_over_limit()
            {
                desk.give_up(id)
            } else {
                (code, reusable)
            };
            let now = host.monotonic_clock();
            let Some(plugin) = desk.calls.get(&id).map(|call| call.plugin.clone()) else {
                return RPW_CALL_GONE;
            };
            desk.charge(&plugin, now.saturating_sub(began) + PIECE_NANOS);
            io.rest_ms = desk.rest_ms(now);
            let Some(call) = desk.calls.get(&id) else { return RPW_CALL_GONE };
            io.data = call.out.as_ptr().cast();
            io.length = call.out.len();
            io.reusable = reusable.into();
            code
        });
        if io.rest_ms > 0 {
            // The light thread of jobs ends the round, and it may wait for longer than that.
            announce();
        }
        Ok(code)
    })
}

/// Whether a call may be made to an address. One that is gone is refused.
pub(super) fn permits(id: u32, address: IpAddr) -> bool {
    DESK.with_borrow(|desk| {
        desk.calls.get(&id).is_some_and(|call| {
            let named = call.dispatched.judged.unwrap_or(true);
            call.plugin.module().info().calls.permits_address(address, call.port(), named)
        })
    })
}

/// Begins a call anew on another connection: the one that it was sent on had been closed meanwhile.
///
/// # Returns
/// `RPW_CONTINUE`.
#[unsafe(no_mangle)]
pub extern "C" fn rpw_call_restart(id: u32) -> i32 {
    DESK.with_borrow_mut(|desk| {
        if let Some(call) = desk.calls.get_mut(&id) {
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
    boundary(error, || {
        DESK.with_borrow_mut(|desk| match desk.calls.get_mut(&id) {
            Some(call) => {
                call.connected(kept != 0).map_err(|failure| Failure::new(failure.details))
            }
            None => Ok(()),
        })?;
        Ok(RPW_CONTINUE)
    })
}

/// The connection of such a call was kept for others; to be called before `rpw_call_end`.
///
/// # Returns
/// `RPW_CONTINUE`.
#[unsafe(no_mangle)]
pub extern "C" fn rpw_call_kept(id: u32) -> i32 {
    if let Ok(host) = nginx::host() {
        let now = host.monotonic_clock();
        DESK.with_borrow_mut(|desk| {
            let Desk { calls, idle, .. } = desk;
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
    guest_boundary(Entry::Request, true, error, |_| {
        // SAFETY: as promised by the caller.
        let (word, details) =
            unsafe { (types::bytes(word, word_length), types::bytes(details, details_length)) };
        let Some(call) = DESK.with_borrow_mut(|desk| desk.calls.remove(&id)) else {
            return Ok(RPW_CONTINUE);
        };
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
        shared::count_call(&call.plugin, &call.dispatched.name, CallKind::Http, result.is_err());
        let host = nginx::host()?;
        let before = if result.is_err() { failed_nanos(&host, call.began) } else { 0 };
        tell_in_turn(&host, Answer::Call(call.plugin, call.of, result), before);
        Ok(RPW_CONTINUE)
    })
}

/// A function that was handed out is called now.
///
/// # Returns
/// `RPW_CONTINUE`.
#[unsafe(no_mangle)]
pub extern "C" fn rpw_foreign_begin(id: u32) -> i32 {
    if let Ok(host) = nginx::host() {
        DESK.with_borrow_mut(|desk| {
            if let Some(function) = desk.functions.get_mut(&id) {
                function.began = host.monotonic_clock();
            }
        });
    }
    RPW_CONTINUE
}

/// Ends a function that was run: hands its guest the result.
///
/// # Arguments
/// `ok`: 1, or 0 when it failed. `yielded`: 1 when nginx did something else meanwhile, so that its time does not count.
/// `result` is copied.
/// # Returns
/// `RPW_CONTINUE`; `RPW_ERROR` when the guest failed.
/// # Safety
/// `result` has the given length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_foreign_end(
    id: u32,
    ok: i32,
    yielded: i32,
    result: *const c_char,
    result_length: usize,
    error: *mut rpw_error_t,
) -> i32 {
    guest_boundary(Entry::Request, true, error, |_| {
        // SAFETY: as promised by the caller.
        let result = unsafe { types::bytes(result, result_length) };
        let found = DESK.with_borrow_mut(|desk| desk.functions.remove(&id));
        if let Some(Function { plugin, of, began }) = found {
            let host = nginx::host()?;
            let lasted = host.monotonic_clock().saturating_sub(began);
            let before = if yielded == 0 { lasted } else { 0 };
            tell_in_turn(&host, Answer::Function(plugin, of, result.to_vec(), ok != 0), before);
        }
        Ok(RPW_CONTINUE)
    })
}

/// To be called when a worker starts: makes the VMs and plugin contexts of the master again in this process.
///
/// # Returns
/// `RPW_CONTINUE`. What fails is in the error log.
/// # Safety
/// `error` is NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_init_worker(error: *mut rpw_error_t) -> i32 {
    guest_boundary(Entry::Setup, true, error, |_| {
        for plugin in DESK.with_borrow(Desk::plugins) {
            for error in plugin.prepare() {
                report(&plugin, &error);
            }
        }
        Ok(RPW_CONTINUE)
    })
}
