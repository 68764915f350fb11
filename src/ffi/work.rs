//! Work of plugins that no request stands for: calls to make, ticks. A light thread of the worker asks for it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::{c_char, c_void};
use std::num::NonZeroUsize;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use rustc_hash::FxHashMap;

use super::ticker::{self, Entry};
use super::{
    Failure, RPW_CALL_DONE, RPW_CALL_GONE, RPW_CALL_RECEIVE, RPW_CONTINUE, RPW_WORK_LISTEN,
    RPW_WORK_RUN, RPW_WORK_START, RPW_WORK_STOP, RPW_WORK_WAIT, boundary, foreign, grpc,
    guest_boundary, listen, nginx, process, rpw_error_t, rpw_io_t, rpw_work_t, types,
};
use crate::abi::LogLevel;
use crate::callout::{self, Exchange, FailureKind, Reached, Response, Step, Target};
use crate::error::Error;
use crate::guest::{Dispatched, ForeignCall};
use crate::limits;
use crate::ports::Host;
use crate::vm::{CallRef, Plugin};

/// 1 while some plugin has work. Lua looks at it after each call of the library.
static WAITS: AtomicI32 = AtomicI32::new(0);

/// The milliseconds to wait when nothing is to come; less for whatever is.
const LONGEST_WAIT_MS: u64 = 60_000;

thread_local! {
    static DESK: RefCell<Desk> = RefCell::default();
    /// Whom to post when work comes, and in which process.
    static LISTENER: Cell<Option<(NonZeroUsize, u64)>> = const { Cell::new(None) };
}

#[derive(Default)]
struct Desk {
    plugins: Vec<Weak<Plugin>>,
    calls: FxHashMap<u32, Call>,
    /// Functions that run.
    functions: FxHashMap<u32, (Rc<Plugin>, CallRef)>,
    /// Functions to be run.
    run: VecDeque<(u32, ForeignCall)>,
    /// What was handed out last; Lua copies it.
    running: Option<ForeignCall>,
    start: VecDeque<u32>,
    stop: VecDeque<u32>,
    last: u32,
    /// A guest waits for messages in a queue.
    wants_to_listen: bool,
    /// When ticks are due next, on the monotonic clock.
    next: Option<u64>,
}

struct Call {
    plugin: Rc<Plugin>,
    of: CallRef,
    dispatched: Dispatched,
    /// What to connect to, and the name of its pool of connections.
    host: String,
    port: u16,
    pool: String,
    exchange: Option<Exchange>,
    result: Option<Result<Response, callout::Failure>>,
    out: Vec<u8>,
}

/// A plugin that may have work from now on.
pub fn add_plugin(plugin: &Rc<Plugin>) {
    DESK.with_borrow_mut(|desk| {
        desk.plugins.retain(|plugin| plugin.strong_count() > 0);
        desk.plugins.push(Rc::downgrade(plugin));
    });
}

/// Some plugin has work.
pub fn announce() {
    WAITS.store(1, Ordering::Relaxed);
    // Lua looks when its call returns.
    if foreign::is_below_lua() {
        return;
    }
    if let Some((semaphore, of)) = LISTENER.get()
        && of == process::current()
    {
        nginx::post(semaphore);
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
/// `semaphore` is NULL, or an `ngx_http_lua_sema_t` that lives until the next call of this function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_work_listen(semaphore: *mut c_void) -> i32 {
    let listener = NonZeroUsize::new(semaphore as usize);
    LISTENER.set(listener.map(|semaphore| (semaphore, process::current())));
    RPW_CONTINUE
}

/// Runs the ticks that are due, tells guests of messages in queues, and says what is to be done next.
///
/// # Returns
/// `RPW_WORK_START` (make a call), `RPW_WORK_STOP` (give a call up), `RPW_WORK_RUN` (run a function), `RPW_WORK_LISTEN` (see
/// `rpw_listen_begin`), `RPW_WORK_WAIT`, with the details in `*work`, whose
/// strings are good until the call of that id ends; `RPW_ERROR`.
/// # Safety
/// `work` and `error` are valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_work_next(work: *mut rpw_work_t, error: *mut rpw_error_t) -> i32 {
    boundary(error, || {
        // SAFETY: as promised by the caller.
        let work = unsafe { work.as_mut() };
        let work = work.ok_or_else(|| Failure::new("rpw_work_next: NULL argument"))?;
        let host = nginx::host()?;
        if DESK.with_borrow(|desk| desk.has_nothing()) && !grpc::has_actions() {
            collect(&host)?;
        }
        if let Some(handed) = grpc::hand_out(work) {
            return Ok(handed);
        }
        Ok(DESK.with_borrow_mut(|desk| desk.hand_out(work, host.monotonic_clock())))
    })
}

/// Asks the plugins. Their guests run ticks meanwhile, so the desk is free for what these bring.
fn collect(host: &Arc<dyn Host>) -> Result<(), Failure> {
    let now = host.monotonic_clock();
    let due = DESK.with_borrow(|desk| desk.next.is_some_and(|next| next <= now));
    if WAITS.swap(0, Ordering::Relaxed) == 0 && !due {
        return Ok(());
    }
    let _below = foreign::Below::enter(foreign::Caller::Interpreter)?;
    let _running = ticker::enter(Entry::Request)?;
    let plugins: Vec<Rc<Plugin>> =
        DESK.with_borrow(|desk| desk.plugins.iter().filter_map(Weak::upgrade).collect());
    let mut next: Option<u64> = None;
    for plugin in plugins {
        let work = plugin.work(process::current());
        for error in &work.errors {
            report(&plugin, error);
        }
        next = [next, work.next].into_iter().flatten().min();
        grpc::command(&plugin, work.grpc, now);
        for of in &work.dropped {
            grpc::drop_calls(&plugin, *of, now);
        }
        DESK.with_borrow_mut(|desk| {
            desk.wants_to_listen |= work.wants_to_listen;
            for (of, dispatched) in work.calls {
                desk.add(&plugin, of, dispatched);
            }
            for (of, call) in work.foreign {
                desk.add_function(&plugin, of, call);
            }
            for of in work.dropped {
                desk.drop_calls(&plugin, of);
            }
        });
    }
    DESK.with_borrow_mut(|desk| desk.next = next);
    Ok(())
}

pub(super) fn report(plugin: &Plugin, error: &Error) {
    let line = format!("wasm plugin \"{}\": {error}", plugin.name());
    nginx::log(None, LogLevel::Error, line.as_bytes());
}

impl Desk {
    fn has_nothing(&self) -> bool {
        self.start.is_empty() && self.stop.is_empty() && self.run.is_empty()
    }

    /// An id that no call and no function has.
    fn next_id(&mut self) -> u32 {
        loop {
            self.last = self.last.wrapping_add(1);
            if !self.calls.contains_key(&self.last) && !self.functions.contains_key(&self.last) {
                return self.last;
            }
        }
    }

    fn add_function(&mut self, plugin: &Rc<Plugin>, of: CallRef, call: ForeignCall) {
        let id = self.next_id();
        self.functions.insert(id, (plugin.clone(), of));
        self.run.push_back((id, call));
    }

    /// Whether the calls hold more of their responses than the worker has room for.
    fn is_over_limit(&self) -> bool {
        self.calls.values().map(Call::received).sum::<usize>() > limits::CALL_BODIES
    }

    /// Fails the call that received too much for all of them.
    fn give_up(&mut self, id: u32) -> (i32, bool) {
        if let Some(call) = self.calls.get_mut(&id) {
            let failure = callout::Failure {
                kind: FailureKind::TooLarge,
                reached: call.reached(),
                details: "with those of all calls under way".into(),
            };
            call.exchange = None;
            call.result = Some(Err(failure));
        }
        (RPW_CALL_DONE, false)
    }

    fn add(&mut self, plugin: &Rc<Plugin>, of: CallRef, dispatched: Dispatched) {
        let id = self.next_id();
        let (host, port) = match &dispatched.upstream.target {
            Target::Tcp(host, port) => (host.clone(), *port),
            Target::Unix(path) => (format!("unix:{path}"), 0),
        };
        let call = Call {
            plugin: plugin.clone(),
            of,
            host,
            port,
            pool: dispatched.upstream.pool(&dispatched.server_name),
            dispatched,
            exchange: None,
            result: None,
            out: Vec::new(),
        };
        self.calls.insert(id, call);
        self.start.push_back(id);
    }

    fn drop_calls(&mut self, plugin: &Rc<Plugin>, dropped: CallRef) {
        let stop = &mut self.stop;
        self.calls.retain(|id, call| {
            let stays = !(Rc::ptr_eq(&call.plugin, plugin) && call.of.is_of(dropped));
            if !stays {
                stop.push_back(*id);
            }
            stays
        });
    }

    fn hand_out(&mut self, work: &mut rpw_work_t, now: u64) -> i32 {
        if let Some(id) = self.stop.pop_front() {
            work.id = id;
            return RPW_WORK_STOP;
        }
        while let Some(id) = self.start.pop_front() {
            let Some(call) = self.calls.get(&id) else { continue };
            work.id = id;
            work.timeout_ms = call.dispatched.timeout_ms;
            work.port = call.port.into();
            work.tls = call.dispatched.upstream.tls.into();
            (work.host, work.host_length) = lend(&call.host);
            (work.pool, work.pool_length) = lend(&call.pool);
            (work.server_name, work.server_name_length) = lend(&call.dispatched.server_name);
            return RPW_WORK_START;
        }
        if std::mem::take(&mut self.wants_to_listen) && listen::must_begin() {
            return RPW_WORK_LISTEN;
        }
        if let Some((id, call)) = self.run.pop_front() {
            work.id = id;
            let call = self.running.insert(call);
            (work.function, work.function_length) = lend(&call.name);
            (work.arguments, work.arguments_length) = lend(&call.arguments);
            return RPW_WORK_RUN;
        }
        let wait = self.next.map(|next| next.saturating_sub(now).div_ceil(NANOS_PER_MS));
        work.wait_ms = wait.map_or(LONGEST_WAIT_MS, |wait| wait.min(LONGEST_WAIT_MS - 1)) as u32;
        RPW_WORK_WAIT
    }
}

pub(super) fn lend(text: &(impl AsRef<[u8]> + ?Sized)) -> (*const c_char, usize) {
    let bytes = text.as_ref();
    (bytes.as_ptr().cast(), bytes.len())
}

const NANOS_PER_MS: u64 = 1_000_000;

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
        Ok(DESK.with_borrow_mut(|desk| {
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
            let Some(call) = desk.calls.get(&id) else { return RPW_CALL_GONE };
            io.data = call.out.as_ptr().cast();
            io.length = call.out.len();
            io.reusable = reusable.into();
            code
        }))
    })
}

impl Call {
    fn reached(&self) -> Reached {
        self.exchange.as_ref().map_or(Reached::Nothing, Exchange::reached)
    }

    /// Bytes of the response's body that are held.
    fn received(&self) -> usize {
        match (&self.exchange, &self.result) {
            (_, Some(Ok(response))) => response.body.len(),
            (Some(exchange), _) => exchange.received(),
            _ => 0,
        }
    }

    fn advance(&mut self, received: &[u8], eof: bool) -> (i32, bool) {
        let exchange = match &mut self.exchange {
            Some(exchange) => exchange,
            None => match Exchange::new(&self.dispatched.request) {
                Ok(exchange) => self.exchange.insert(exchange),
                Err(failure) => {
                    self.result = Some(Err(failure));
                    return (RPW_CALL_DONE, false);
                }
            },
        };
        match exchange.advance(received, eof, &mut self.out) {
            Step::Receive => (RPW_CALL_RECEIVE, false),
            Step::Failed(failure) => {
                self.result = Some(Err(failure));
                (RPW_CALL_DONE, false)
            }
            Step::Done { reusable } => {
                self.result = self.exchange.take().map(|exchange| Ok(exchange.into_response()));
                (RPW_CALL_DONE, reusable)
            }
        }
    }
}

/// Begins a call anew on another connection: the one that it was sent on had been closed meanwhile.
///
/// # Returns
/// `RPW_CONTINUE`.
#[unsafe(no_mangle)]
pub extern "C" fn rpw_call_restart(id: u32) -> i32 {
    DESK.with_borrow_mut(|desk| {
        if let Some(call) = desk.calls.get_mut(&id) {
            call.exchange = None;
        }
    });
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
    guest_boundary(Entry::Request, true, error, || {
        // SAFETY: as promised by the caller.
        let (word, details) =
            unsafe { (types::bytes(word, word_length), types::bytes(details, details_length)) };
        let Some(call) = DESK.with_borrow_mut(|desk| desk.calls.remove(&id)) else {
            return Ok(RPW_CONTINUE);
        };
        let failed = (!word.is_empty()).then(|| callout::Failure {
            kind: FailureKind::of_word(word).unwrap_or(FailureKind::Connect),
            reached: call.reached(),
            details: String::from_utf8_lossy(details).into_owned(),
        });
        let unfinished = Err(callout::Failure::new(FailureKind::Closed, ""));
        let result = match failed {
            Some(failure) => Err(failure),
            None => call.result.unwrap_or(unfinished),
        };
        if let Err(failure) = &result {
            let (name, upstream) = (call.plugin.name(), &call.dispatched.name);
            let line = format!("wasm plugin \"{name}\": HTTP call to {upstream} failed: {failure}");
            nginx::log(None, LogLevel::Warn, line.as_bytes());
        }
        if let Err(error) = call.plugin.answer(call.of, result) {
            report(&call.plugin, &error);
        }
        Ok(RPW_CONTINUE)
    })
}

/// Ends a function that was run: hands its guest the result.
///
/// # Arguments
/// `ok`: 1, or 0 when it failed. `result` is copied.
/// # Returns
/// `RPW_CONTINUE`; `RPW_ERROR` when the guest failed.
/// # Safety
/// `result` has the given length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_foreign_end(
    id: u32,
    ok: i32,
    result: *const c_char,
    result_length: usize,
    error: *mut rpw_error_t,
) -> i32 {
    guest_boundary(Entry::Request, true, error, || {
        // SAFETY: as promised by the caller.
        let result = unsafe { types::bytes(result, result_length) };
        let found = DESK.with_borrow_mut(|desk| desk.functions.remove(&id));
        if let Some((plugin, of)) = found
            && let Err(error) = plugin.foreign_result(of, result.to_vec(), ok != 0)
        {
            report(&plugin, &error);
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
    guest_boundary(Entry::Setup, true, error, || {
        let plugins: Vec<Rc<Plugin>> =
            DESK.with_borrow(|desk| desk.plugins.iter().filter_map(Weak::upgrade).collect());
        for plugin in plugins {
            for error in plugin.prepare(process::current()) {
                report(&plugin, &error);
            }
        }
        Ok(RPW_CONTINUE)
    })
}
