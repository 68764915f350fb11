//! What is to be done outside of requests, by plugin, and which of it comes next.
//!
//! Each plugin has a seat. The one whose jobs have taken the least time is served next, so that a plugin that has jobs without
//! end takes no more than its part of what [`Share`] leaves to jobs.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ffi::c_char;
use std::rc::{Rc, Weak};

use rustc_hash::FxHashMap;

use super::call::{Call, IdleTls};
use super::{
    RPW_CALL_DONE, RPW_WORK_LISTEN, RPW_WORK_REST, RPW_WORK_RUN, RPW_WORK_START, RPW_WORK_STOP,
    RPW_WORK_WAIT, RPW_WORK_WATCH, listen, process, rpw_work_t,
};
use crate::callout::{self, FailureKind, Response};
use crate::error::Error;
use crate::grpc;
use crate::guest::{Dispatched, ForeignCall};
use crate::limits;
use crate::vm::{CallRef, NEVER, Plugin, Share, Work};

/// The milliseconds to wait when nothing is to come; less for whatever is.
const LONGEST_WAIT_MS: u64 = 60_000;
const NANOS_PER_MS: u64 = 1_000_000;
/// What Lua and nginx need to begin a call, or a function: about, since it is not measured.
const BEGIN_NANOS: u64 = 20_000;

/// See the module.
#[derive(Default)]
pub struct Desk {
    seats: Vec<Seat>,
    /// Calls that run or are to be made.
    pub calls: FxHashMap<u32, Call>,
    /// Connections of calls that are kept, over which the library speaks TLS.
    pub idle: IdleTls,
    /// Functions that run or are to be run.
    pub functions: FxHashMap<u32, Function>,
    /// What jobs may take of the worker's time.
    pub share: Share,
    /// What was handed out last; Lua copies it.
    running: Option<ForeignCall>,
    stop: VecDeque<u32>,
    last: u32,
    /// A guest waits for messages in a queue.
    wants_to_listen: bool,
    /// The time that the seat which was served last has taken.
    floor: u64,
    /// The process ends as soon as its requests have.
    ending: bool,
    /// Plugins that Lua has let go of, whose contexts have not ended yet, and until when they are kept.
    kept: Vec<(Rc<Plugin>, u64)>,
}

struct Seat {
    plugin: Weak<Plugin>,
    /// Nanoseconds that its jobs took. One that had none for a while begins with as many as another.
    used: u64,
    start: VecDeque<u32>,
    run: VecDeque<(u32, ForeignCall)>,
    /// Connections for gRPC that are to be made.
    connect: VecDeque<u32>,
    /// What came of calls and functions, and was not told yet, in order.
    answers: VecDeque<Answer>,
    /// When its callbacks are due, on the monotonic clock; [`NEVER`] when they are not.
    due: u64,
    /// The kind of job that is to be looked for first.
    turn: usize,
    /// In a process that ends: none of its contexts is left.
    over: bool,
}

/// A function of Lua.
pub struct Function {
    pub plugin: Rc<Plugin>,
    pub of: CallRef,
    /// When Lua called it.
    pub began: u64,
}

/// What a guest is to be told.
pub enum Answer {
    Call(Rc<Plugin>, CallRef, Result<Response, callout::Failure>),
    Function(Rc<Plugin>, CallRef, Vec<u8>, bool),
    /// An event of a gRPC call or stream, with its number in the pool.
    Grpc(Rc<Plugin>, CallRef, u32, grpc::Event),
    Redis(Rc<Plugin>, CallRef, Result<Vec<u8>, callout::Failure>),
}

/// What comes next.
pub enum Next {
    /// The caller is to be told this.
    Tell(i32),
    /// A guest is to be told.
    Answer(Answer),
    /// The plugin's callbacks are due.
    Callbacks(Rc<Plugin>),
    /// The caller is to make that connection for gRPC.
    Connect(u32),
}

impl Answer {
    pub fn plugin(&self) -> &Rc<Plugin> {
        match self {
            Self::Call(plugin, ..)
            | Self::Function(plugin, ..)
            | Self::Grpc(plugin, ..)
            | Self::Redis(plugin, ..) => plugin,
        }
    }

    /// Tells the guest.
    pub fn tell(self) -> Result<(), Error> {
        match self {
            Self::Call(plugin, of, result) => plugin.answer(of, result),
            Self::Function(plugin, of, result, ok) => plugin.foreign_result(of, result, ok),
            Self::Grpc(plugin, of, _, event) => plugin.grpc_event(of, event),
            Self::Redis(plugin, of, result) => plugin.redis_answer(of, result),
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Call(_, _, Ok(response)) => response.body.len(),
            Self::Grpc(_, _, _, grpc::Event::Message(message)) => message.len(),
            Self::Redis(_, _, Ok(answer)) => answer.len(),
            _ => 0,
        }
    }

    /// A message of a gRPC stream: the stream's number in the pool, and the message's size.
    pub fn grpc_message(&self) -> Option<(u32, usize)> {
        match self {
            Self::Grpc(_, _, id, grpc::Event::Message(message)) => Some((*id, message.len())),
            _ => None,
        }
    }
}

impl Seat {
    fn new(plugin: &Rc<Plugin>) -> Self {
        Self {
            plugin: Rc::downgrade(plugin),
            used: 0,
            start: VecDeque::new(),
            run: VecDeque::new(),
            connect: VecDeque::new(),
            answers: VecDeque::new(),
            due: NEVER,
            turn: 0,
            over: false,
        }
    }

    fn has_callbacks(&self, now: u64) -> bool {
        !self.answers.is_empty() || self.due <= now
    }

    fn has_any(&self, now: u64, callbacks: bool) -> bool {
        let any = !self.start.is_empty() || !self.run.is_empty() || !self.connect.is_empty();
        any || (callbacks && self.has_callbacks(now))
    }
}

impl Desk {
    /// A plugin that may have work from now on.
    pub fn add_plugin(&mut self, plugin: &Rc<Plugin>) {
        self.seats.retain(|seat| seat.plugin.strong_count() > 0);
        self.seats.push(Seat::new(plugin));
    }

    pub fn plugins(&self) -> Vec<Rc<Plugin>> {
        self.seats.iter().filter_map(|seat| seat.plugin.upgrade()).collect()
    }

    /// Keeps a plugin until its contexts have ended, or until then.
    pub fn keep(&mut self, plugin: &Rc<Plugin>, until: u64) {
        if !self.kept.iter().any(|(kept, _)| Rc::ptr_eq(kept, plugin)) {
            self.kept.push((plugin.clone(), until));
        }
    }

    /// The callbacks of all plugins are to be looked at.
    pub fn ask_all(&mut self) {
        for seat in &mut self.seats {
            seat.due = 0;
        }
    }

    /// Lets go of plugins that were kept. They are returned, since their VMs end with them.
    pub fn let_go(&mut self, now: u64) -> Vec<Rc<Plugin>> {
        let over = |(plugin, until): &mut (Rc<Plugin>, u64)| *until <= now || !plugin.awaits_ends();
        self.kept.extract_if(.., over).map(|(plugin, _)| plugin).collect()
    }

    /// The process ends: from now on contexts end with their last streams.
    pub fn end(&mut self) {
        if !std::mem::replace(&mut self.ending, true) {
            self.ask_all();
        }
    }

    fn seat_of(&mut self, plugin: &Rc<Plugin>) -> &mut Seat {
        let of = |seat: &Seat| std::ptr::eq(seat.plugin.as_ptr(), Rc::as_ptr(plugin));
        let at = self.seats.iter().position(of).unwrap_or_else(|| {
            self.seats.push(Seat::new(plugin));
            self.seats.len() - 1
        });
        &mut self.seats[at]
    }

    /// Counts the time that a job of a plugin took.
    pub fn charge(&mut self, plugin: &Rc<Plugin>, nanos: u64) {
        self.share.charge(nanos);
        let floor = self.floor;
        let seat = self.seat_of(plugin);
        seat.used = seat.used.max(floor).saturating_add(nanos);
    }

    /// Something other than the guests wants to hear of what other workers do.
    pub fn listen(&mut self) {
        self.wants_to_listen = true;
    }

    /// Takes in what a plugin wants done.
    pub fn enter(&mut self, plugin: &Rc<Plugin>, work: Work) {
        self.wants_to_listen |= work.wants_to_listen;
        for (of, dispatched) in work.calls {
            self.add(plugin, of, dispatched);
        }
        for (of, call) in work.foreign {
            self.add_function(plugin, of, call);
        }
        for of in work.dropped {
            self.drop_calls(plugin, of);
        }
    }

    /// When a plugin's callbacks are due next, after they were run.
    pub fn set_due(&mut self, plugin: &Rc<Plugin>, due: Option<u64>, over: bool) {
        let seat = self.seat_of(plugin);
        seat.due = due.unwrap_or(NEVER);
        seat.over = over;
    }

    /// An answer that is told later.
    pub fn add_answer(&mut self, answer: Answer) {
        let plugin = answer.plugin().clone();
        self.seat_of(&plugin).answers.push_back(answer);
    }

    /// Whether a guest may be told now: jobs may take time, and nothing that came before waits.
    pub fn may_tell(&mut self, plugin: &Rc<Plugin>, now: u64) -> bool {
        self.share.allows(now) && self.seat_of(plugin).answers.is_empty()
    }

    /// A connection for gRPC is to be made for a plugin.
    pub fn add_connection(&mut self, plugin: &Rc<Plugin>, id: u32) {
        self.seat_of(plugin).connect.push_back(id);
    }

    /// Milliseconds that a light thread which moves bytes is to sleep; 0 as a rule.
    pub fn rest_ms(&mut self, now: u64) -> u32 {
        let rest = if self.share.allows(now) { None } else { self.share.rest(now) };
        rest.unwrap_or(0) as u32
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
        self.functions.insert(id, Function { plugin: plugin.clone(), of, began: 0 });
        self.seat_of(plugin).run.push_back((id, call));
    }

    /// Whether the calls hold more of their responses than the worker has room for.
    pub fn is_over_limit(&self) -> bool {
        self.untold() + self.calls.values().map(Call::received).sum::<usize>() > limits::CALL_BODIES
    }

    /// Bytes of what guests were not told yet.
    pub fn untold(&self) -> usize {
        self.seats.iter().flat_map(|seat| &seat.answers).map(Answer::size).sum()
    }

    /// Fails the call that received too much for all of them.
    pub fn give_up(&mut self, id: u32) -> (i32, bool) {
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
        let call = Call::new(plugin, of, dispatched);
        self.calls.insert(id, call);
        self.seat_of(plugin).start.push_back(id);
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

    /// What comes next. Guests are entered only by a caller that wants `callbacks`.
    pub fn next(&mut self, work: &mut rpw_work_t, now: u64, callbacks: bool) -> Next {
        if let Some(id) = self.stop.pop_front() {
            work.id = id;
            return Next::Tell(RPW_WORK_STOP);
        }
        if std::mem::take(&mut self.wants_to_listen) && listen::must_begin() {
            return Next::Tell(RPW_WORK_LISTEN);
        }
        if must_watch() {
            return Next::Tell(RPW_WORK_WATCH);
        }
        while let Some(at) = self.pick(now, callbacks) {
            if !self.share.allows(now) {
                work.wait_ms = if callbacks { self.share.rest(now).unwrap_or(1) as u32 } else { 0 };
                return Next::Tell(RPW_WORK_REST);
            }
            self.floor = self.floor.max(self.seats[at].used);
            if let Some(next) = self.serve(at, work, now, callbacks) {
                return next;
            }
        }
        Next::Tell(self.wait(work, now, callbacks))
    }

    /// The seat that is served next.
    fn pick(&self, now: u64, callbacks: bool) -> Option<usize> {
        let waiting =
            self.seats.iter().enumerate().filter(|(_, seat)| seat.has_any(now, callbacks));
        waiting.min_by_key(|(_, seat)| seat.used).map(|(at, _)| at)
    }

    /// Takes a job of a seat; its kinds take turns. `None` when it was none any more.
    fn serve(
        &mut self,
        at: usize,
        work: &mut rpw_work_t,
        now: u64,
        callbacks: bool,
    ) -> Option<Next> {
        const KINDS: usize = 5;
        let seat = &mut self.seats[at];
        for _ in 0..KINDS {
            seat.turn = (seat.turn + 1) % KINDS;
            match seat.turn {
                0 if callbacks => {
                    if let Some(answer) = seat.answers.pop_front() {
                        return Some(Next::Answer(answer));
                    }
                }
                1 if callbacks && seat.due <= now => {
                    seat.due = NEVER;
                    return seat.plugin.upgrade().map(Next::Callbacks);
                }
                2 => {
                    if let Some(id) = seat.start.pop_front() {
                        return self.start(id, work, now).map(Next::Tell);
                    }
                }
                3 => {
                    if let Some((id, call)) = seat.run.pop_front() {
                        return Some(Next::Tell(self.run(id, call, work)));
                    }
                }
                4 => {
                    if let Some(id) = seat.connect.pop_front() {
                        seat.used = seat.used.max(self.floor).saturating_add(BEGIN_NANOS);
                        self.share.charge(BEGIN_NANOS);
                        return Some(Next::Connect(id));
                    }
                }
                _ => {}
            }
        }
        None
    }

    fn start(&mut self, id: u32, work: &mut rpw_work_t, now: u64) -> Option<i32> {
        let call = self.calls.get_mut(&id)?;
        call.began = now;
        call.take_idle(&mut self.idle, now);
        call.describe(id, work);
        let plugin = call.plugin.clone();
        self.charge(&plugin, BEGIN_NANOS);
        Some(RPW_WORK_START)
    }

    fn run(&mut self, id: u32, call: ForeignCall, work: &mut rpw_work_t) -> i32 {
        if let Some(plugin) = self.functions.get(&id).map(|function| function.plugin.clone()) {
            self.charge(&plugin, BEGIN_NANOS);
        }
        work.id = id;
        let call = self.running.insert(call);
        (work.function, work.function_length) = lend(&call.name);
        (work.arguments, work.arguments_length) = lend(&call.arguments);
        RPW_WORK_RUN
    }

    /// Nothing to do now: for how long.
    fn wait(&self, work: &mut rpw_work_t, now: u64, callbacks: bool) -> i32 {
        if callbacks && let Some(rest) = self.share.rest(now) {
            work.wait_ms = rest as u32;
            return RPW_WORK_REST;
        }
        let due = self.seats.iter().map(|seat| seat.due).min().unwrap_or(NEVER);
        let wait = due.saturating_sub(now).div_ceil(NANOS_PER_MS).min(LONGEST_WAIT_MS - 1);
        let wait = if due == NEVER { LONGEST_WAIT_MS } else { wait };
        let soon = self.share.is_used() || listen::must_wake_others();
        let wait = if soon { wait.min(Share::ROUND_MS) } else { wait };
        let waits = !callbacks && self.seats.iter().any(|seat| seat.has_callbacks(now));
        work.wait_ms = if waits { 0 } else { wait.max(1) as u32 };
        work.over = i32::from(self.ending && self.seats.iter().all(|seat| seat.over));
        RPW_WORK_WAIT
    }
}

pub fn lend(text: &(impl AsRef<[u8]> + ?Sized)) -> (*const c_char, usize) {
    let bytes = text.as_ref();
    (bytes.as_ptr().cast(), bytes.len())
}

/// Whether the shell must see to it that it runs once more when this process is to end; true once.
fn must_watch() -> bool {
    thread_local! {
        static WATCHED: Cell<u64> = const { Cell::new(0) };
    }
    WATCHED.replace(process::current()) != process::current()
}
