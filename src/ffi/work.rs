//! Doing background jobs: ticks, queue callbacks, HTTP and gRPC calls, asynchronous functions. A light thread of the worker asks
//! for them.

use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;

use super::boundary::{guest_boundary, with_worker};
use super::entries::Caller;
use super::failure::Failure;
use super::failures::report;
use super::host::host;
use super::jobs::{Next, ToDo};
use super::listen;
use super::process::PROCESS;
use super::telling::{PIECE_NANOS, tell};
use super::ticker::Entry;
use super::types::{
    RPW_CONTINUE, RPW_WORK_CONNECT, RPW_WORK_FOLLOW, RPW_WORK_WAKE, rpw_error_t, rpw_work_t,
};
use super::worker::{self, Worker};
use crate::ports::Host;
use crate::vm::{Plugin, Work};

/// Tells where to look whether there is work: not 0 when `rpw_work_next` should be called.
///
/// # Returns
/// An address that stays good for the life of the process.
#[unsafe(no_mangle)]
pub extern "C" fn rpw_work_waits() -> *const i32 {
    worker::with(|worker| worker.signal.address())
}

/// Says whom to wake when work comes.
///
/// # Returns
/// `RPW_CONTINUE`.
/// # Safety
/// `semaphore` is NULL, or an `ngx_http_lua_sema_t`, and `rpw_semaphore_gone` is called before it is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_work_listen(semaphore: *mut c_void) -> i32 {
    worker::with(|worker| worker.signal.listen(NonZeroUsize::new(semaphore as usize)));
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
    with_worker(error, |worker| {
        // SAFETY: as promised by the caller.
        let work = unsafe { work.as_mut() };
        let work = work.ok_or_else(|| Failure::new("rpw_work_next: NULL argument"))?;
        next(worker, work, turn)
    })
}

fn next(worker: &Worker, work: &mut rpw_work_t, turn: i32) -> Result<i32, Failure> {
    let host = host()?;
    let callbacks = turn > 0;
    if callbacks {
        prepare(worker, &host, turn > 1)?;
    }
    if PROCESS.shared.get().is_some_and(|shared| worker.plans.is_behind(shared.last_plan())) {
        return Ok(RPW_WORK_FOLLOW);
    }
    // Plans of other workers come by the same way as messages.
    if PROCESS.shared.is_common() {
        worker.jobs.borrow_mut().listen();
    }
    loop {
        collect(worker, &host);
        loop {
            let action = worker.grpc.borrow_mut().take_action();
            match action {
                Some(ToDo::Wake(id)) => {
                    work.id = id;
                    return Ok(RPW_WORK_WAKE);
                }
                Some(ToDo::Connect(plugin, id)) => {
                    worker.jobs.borrow_mut().add_connection(&plugin, id);
                }
                None => break,
            }
        }
        if let Some(handed) = worker.redis.borrow_mut().hand_out(work) {
            return Ok(handed);
        }
        let now = host.monotonic_clock();
        let next = worker.jobs.borrow_mut().next(&worker.queue, work, now, callbacks);
        match next {
            Next::HandOut(code) => return Ok(code),
            Next::Tell(answer) => inside(worker, || tell(worker, &host, answer, 0))?,
            Next::Callbacks(plugin) => inside(worker, || run_callbacks(worker, &host, &plugin))?,
            Next::Connect(id) => {
                if worker.grpc.borrow_mut().begin_connecting(id, work, now) {
                    return Ok(RPW_WORK_CONNECT);
                }
            }
        }
    }
}

/// Guests are entered in `f`.
fn inside(worker: &Worker, f: impl FnOnce()) -> Result<(), Failure> {
    let _below = worker.entries.enter(Caller::Interpreter)?;
    let _running = PROCESS.ticker.enter(Entry::Request)?;
    f();
    Ok(())
}

/// What comes first in a turn that runs callbacks.
fn prepare(worker: &Worker, host: &Arc<dyn Host>, renewed: bool) -> Result<(), Failure> {
    let kept = {
        let mut jobs = worker.jobs.borrow_mut();
        if renewed {
            jobs.share.renew();
        }
        if host.is_ending() {
            jobs.end();
        }
        jobs.let_go(host.monotonic_clock())
    };
    listen::wake_others_again(worker);
    if worker.endings.any() {
        inside(worker, || worker.run_endings())?;
    }
    drop(kept);
    Ok(())
}

/// Asks the plugins what they want done. No guest is entered.
fn collect(worker: &Worker, host: &Arc<dyn Host>) {
    if !worker.signal.take() {
        return;
    }
    let plugins = worker.jobs.borrow().plugins();
    for plugin in plugins {
        let mut work = plugin.requested();
        command_connections(worker, host, &plugin, &mut work);
        worker.jobs.borrow_mut().enter(&plugin, work);
    }
    if worker.signal.take_callbacks() {
        worker.jobs.borrow_mut().ask_all();
    }
}

/// Hands over what gRPC calls and Redis calls come to.
fn command_connections(
    worker: &Worker,
    host: &Arc<dyn Host>,
    plugin: &Rc<Plugin>,
    work: &mut Work,
) {
    let now = host.monotonic_clock();
    if !work.grpc.is_empty() {
        worker.grpc.borrow_mut().command(plugin, std::mem::take(&mut work.grpc), now);
    }
    if !work.redis.is_empty() {
        let asked = worker.redis.borrow_mut().command(plugin, std::mem::take(&mut work.redis), now);
        worker.jobs.borrow_mut().charge(plugin, asked * PIECE_NANOS);
    }
    for of in &work.dropped {
        worker.grpc.borrow_mut().drop_calls(plugin, *of, now);
        worker.redis.borrow_mut().drop_calls(plugin, *of);
    }
}

/// Runs what is due of a plugin.
fn run_callbacks(worker: &Worker, host: &Arc<dyn Host>, plugin: &Rc<Plugin>) {
    let began = host.monotonic_clock();
    let mut work = plugin.work();
    for error in &work.errors {
        report(plugin, error);
    }
    command_connections(worker, host, plugin, &mut work);
    let mut jobs = worker.jobs.borrow_mut();
    jobs.set_due(plugin, work.next, work.over);
    jobs.enter(plugin, work);
    jobs.charge(plugin, host.monotonic_clock().saturating_sub(began));
}

/// To be called when a worker starts: makes the VMs and plugin contexts of the master again in this process.
///
/// # Returns
/// `RPW_CONTINUE`. What fails is in the error log.
/// # Safety
/// `error` is NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_init_worker(error: *mut rpw_error_t) -> i32 {
    guest_boundary(Entry::Setup, true, error, |worker| {
        let plugins = worker.jobs.borrow().plugins();
        for plugin in plugins {
            for error in plugin.prepare() {
                report(&plugin, &error);
            }
        }
        Ok(RPW_CONTINUE)
    })
}
