//! What is to be done outside of requests, by plugin, and which of it comes next.
//!
//! The plugin whose jobs have taken the least time is served next, so that a plugin that has jobs without
//! end takes no more than its part of what [`Share`] leaves to jobs.

mod answer;
mod call;
mod connections;
mod foreign;
mod grpc;
mod queue;
mod redis;
mod signal;
mod sockets;

use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use rustc_hash::FxHashMap;

pub(super) use answer::Answer;
use call::{Call, IdleTls};
pub(super) use connections::{Connections, Then};
pub(super) use foreign::Function;
pub(super) use grpc::{Grpc, ToDo};
pub(super) use queue::{Queue, State};
pub(super) use redis::Redis;
pub(super) use signal::Signal;
pub(super) use sockets::{failed_nanos, milliseconds};

use super::forks;
use super::types::{
    RPW_CALL_DONE, RPW_WORK_LISTEN, RPW_WORK_REST, RPW_WORK_RUN, RPW_WORK_START, RPW_WORK_STOP,
    RPW_WORK_WAIT, RPW_WORK_WATCH, lend, rpw_work_t,
};
use crate::callout::{self, FailureKind};
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
pub(super) struct Jobs {
    plugins: Vec<PluginJobs>,
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
    /// The time that the plugin which was served last has taken.
    floor: u64,
    /// The process ends as soon as its requests have.
    ending: bool,
    /// Plugins that Lua has let go of, whose contexts have not ended yet, and until when they are kept.
    kept: Vec<(Rc<Plugin>, u64)>,
    /// The process whose shell was told to run once more when it is to end.
    watched_in: u64,
}

/// The jobs of a plugin.
struct PluginJobs {
    plugin: Weak<Plugin>,
    /// Nanoseconds that its jobs took. One that had none for a while begins with as many as another.
    used: u64,
    /// Those that wait for their turn, by their kinds, each kind in order.
    waiting: [VecDeque<Job>; KINDS],
    /// When its callbacks are due, on the monotonic clock; [`NEVER`] when they are not.
    due: u64,
    /// The kind of job that is to be looked for first.
    turn: usize,
    /// In a process that ends: none of its contexts is left.
    over: bool,
}

/// A job that waits for its turn.
pub(super) enum Job {
    /// A guest is to be told what came of a job.
    Tell(Answer),
    /// Ticks, queue callbacks, contexts to make again or to end.
    Callbacks,
    /// An HTTP call is to be made.
    Call(u32),
    /// A function of Lua is to be run.
    Foreign(u32, ForeignCall),
    /// A connection for gRPC is to be made.
    Connect(u32),
}

/// The kinds of jobs, which take turns.
const KINDS: usize = 5;
const TELL: usize = 0;
const CALLBACKS: usize = 1;

impl Job {
    fn kind(&self) -> usize {
        match self {
            Self::Tell(_) => TELL,
            Self::Callbacks => CALLBACKS,
            Self::Call(_) => 2,
            Self::Foreign(..) => 3,
            Self::Connect(_) => 4,
        }
    }
}

/// What comes next.
pub(super) enum Next {
    /// The light thread is to do this.
    HandOut(i32),
    /// A guest is to be told.
    Tell(Answer),
    /// The plugin's callbacks are due.
    Callbacks(Rc<Plugin>),
    /// The light thread is to make that connection for gRPC.
    Connect(u32),
}

impl PluginJobs {
    fn new(plugin: &Rc<Plugin>) -> Self {
        Self {
            plugin: Rc::downgrade(plugin),
            used: 0,
            waiting: Default::default(),
            due: NEVER,
            turn: 0,
            over: false,
        }
    }

    fn add(&mut self, job: Job) {
        self.waiting[job.kind()].push_back(job);
    }

    /// Takes the next job; the kinds take turns.
    fn take(&mut self, now: u64, callbacks: bool) -> Option<Job> {
        for _ in 0..KINDS {
            self.turn = (self.turn + 1) % KINDS;
            if self.turn == CALLBACKS && callbacks && self.due <= now {
                self.due = NEVER;
                return Some(Job::Callbacks);
            }
            if (self.turn != TELL || callbacks)
                && let Some(job) = self.waiting[self.turn].pop_front()
            {
                return Some(job);
            }
        }
        None
    }

    /// What was not told yet.
    fn untold(&self) -> impl Iterator<Item = &Answer> {
        self.waiting[TELL].iter().filter_map(|job| match job {
            Job::Tell(answer) => Some(answer),
            _ => None,
        })
    }

    fn has_callbacks(&self, now: u64) -> bool {
        !self.waiting[TELL].is_empty() || self.due <= now
    }

    fn has_any(&self, now: u64, callbacks: bool) -> bool {
        let any = self.waiting[CALLBACKS + 1..].iter().any(|jobs| !jobs.is_empty());
        any || (callbacks && self.has_callbacks(now))
    }
}

impl Jobs {
    /// A plugin that may have work from now on.
    pub(super) fn add_plugin(&mut self, plugin: &Rc<Plugin>) {
        self.plugins.retain(|jobs| jobs.plugin.strong_count() > 0);
        self.plugins.push(PluginJobs::new(plugin));
    }

    pub(super) fn plugins(&self) -> Vec<Rc<Plugin>> {
        self.plugins.iter().filter_map(|jobs| jobs.plugin.upgrade()).collect()
    }

    /// Keeps a plugin until its contexts have ended, or until then.
    pub(super) fn keep(&mut self, plugin: &Rc<Plugin>, until: u64) {
        if !self.kept.iter().any(|(kept, _)| Rc::ptr_eq(kept, plugin)) {
            self.kept.push((plugin.clone(), until));
        }
    }

    /// The callbacks of all plugins are to be looked at.
    pub(super) fn ask_all(&mut self) {
        for jobs in &mut self.plugins {
            jobs.due = 0;
        }
    }

    /// Lets go of plugins that were kept. They are returned, since their VMs end with them.
    pub(super) fn let_go(&mut self, now: u64) -> Vec<Rc<Plugin>> {
        let over = |(plugin, until): &mut (Rc<Plugin>, u64)| *until <= now || !plugin.awaits_ends();
        self.kept.extract_if(.., over).map(|(plugin, _)| plugin).collect()
    }

    /// The process ends: from now on contexts end with their last streams.
    pub(super) fn end(&mut self) {
        if !std::mem::replace(&mut self.ending, true) {
            self.ask_all();
        }
    }

    fn of_plugin(&mut self, plugin: &Rc<Plugin>) -> &mut PluginJobs {
        let of = |jobs: &PluginJobs| std::ptr::eq(jobs.plugin.as_ptr(), Rc::as_ptr(plugin));
        let at = self.plugins.iter().position(of).unwrap_or_else(|| {
            self.plugins.push(PluginJobs::new(plugin));
            self.plugins.len() - 1
        });
        &mut self.plugins[at]
    }

    /// Counts the time that a job of a plugin took.
    pub(super) fn charge(&mut self, plugin: &Rc<Plugin>, nanos: u64) {
        self.share.charge(nanos);
        let floor = self.floor;
        let jobs = self.of_plugin(plugin);
        jobs.used = jobs.used.max(floor).saturating_add(nanos);
    }

    /// Something other than the guests wants to hear of what other workers do.
    pub(super) fn listen(&mut self) {
        self.wants_to_listen = true;
    }

    /// Takes in what a plugin wants done.
    pub(super) fn enter(&mut self, plugin: &Rc<Plugin>, work: Work) {
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
    pub(super) fn set_due(&mut self, plugin: &Rc<Plugin>, due: Option<u64>, over: bool) {
        let jobs = self.of_plugin(plugin);
        jobs.due = due.unwrap_or(NEVER);
        jobs.over = over;
    }

    /// An answer that is told later.
    pub(super) fn add_answer(&mut self, answer: Answer) {
        let plugin = answer.plugin().clone();
        self.of_plugin(&plugin).add(Job::Tell(answer));
    }

    /// Whether a guest may be told now: jobs may take time, and nothing that came before waits.
    pub(super) fn may_tell(&mut self, plugin: &Rc<Plugin>, now: u64) -> bool {
        self.share.allows(now) && self.of_plugin(plugin).waiting[TELL].is_empty()
    }

    /// A connection for gRPC is to be made for a plugin.
    pub(super) fn add_connection(&mut self, plugin: &Rc<Plugin>, id: u32) {
        self.of_plugin(plugin).add(Job::Connect(id));
    }

    /// Milliseconds that a light thread which moves bytes is to sleep; 0 as a rule.
    pub(super) fn rest_ms(&mut self, now: u64) -> u32 {
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
        self.of_plugin(plugin).add(Job::Foreign(id, call));
    }

    /// Whether the calls hold more of their responses than the worker has room for.
    pub(super) fn is_over_limit(&self) -> bool {
        self.untold() + self.calls.values().map(Call::received).sum::<usize>() > limits::CALL_BODIES
    }

    /// Bytes of what guests were not told yet.
    pub(super) fn untold(&self) -> usize {
        self.plugins.iter().flat_map(PluginJobs::untold).map(Answer::size).sum()
    }

    /// Fails the call that received too much for all of them.
    pub(super) fn give_up(&mut self, id: u32) -> (i32, bool) {
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
        self.of_plugin(plugin).add(Job::Call(id));
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
    pub(super) fn next(
        &mut self,
        queue: &Queue,
        work: &mut rpw_work_t,
        now: u64,
        callbacks: bool,
    ) -> Next {
        if let Some(id) = self.stop.pop_front() {
            work.id = id;
            return Next::HandOut(RPW_WORK_STOP);
        }
        if std::mem::take(&mut self.wants_to_listen) && queue.must_begin() {
            return Next::HandOut(RPW_WORK_LISTEN);
        }
        // Once in each process: the shell runs once more when the process is to end.
        if std::mem::replace(&mut self.watched_in, forks::process()) != forks::process() {
            return Next::HandOut(RPW_WORK_WATCH);
        }
        while let Some(at) = self.pick(now, callbacks) {
            if !self.share.allows(now) {
                work.wait_ms = if callbacks { self.share.rest(now).unwrap_or(1) as u32 } else { 0 };
                return Next::HandOut(RPW_WORK_REST);
            }
            self.floor = self.floor.max(self.plugins[at].used);
            if let Some(job) = self.plugins[at].take(now, callbacks)
                && let Some(next) = self.begin(at, job, work, now)
            {
                return next;
            }
        }
        Next::HandOut(self.wait(queue, work, now, callbacks))
    }

    /// The plugin that is served next.
    fn pick(&self, now: u64, callbacks: bool) -> Option<usize> {
        let plugins = self.plugins.iter().enumerate();
        let waiting = plugins.filter(|(_, jobs)| jobs.has_any(now, callbacks));
        waiting.min_by_key(|(_, jobs)| jobs.used).map(|(at, _)| at)
    }

    /// Begins a job of a plugin. `None` when it is not to be done any more.
    fn begin(&mut self, at: usize, job: Job, work: &mut rpw_work_t, now: u64) -> Option<Next> {
        match job {
            Job::Tell(answer) => Some(Next::Tell(answer)),
            Job::Callbacks => self.plugins[at].plugin.upgrade().map(Next::Callbacks),
            Job::Call(id) => self.start(id, work, now).map(Next::HandOut),
            Job::Foreign(id, call) => Some(Next::HandOut(self.run(id, call, work))),
            Job::Connect(id) => {
                let jobs = &mut self.plugins[at];
                jobs.used = jobs.used.max(self.floor).saturating_add(BEGIN_NANOS);
                self.share.charge(BEGIN_NANOS);
                Some(Next::Connect(id))
            }
        }
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
    fn wait(&self, queue: &Queue, work: &mut rpw_work_t, now: u64, callbacks: bool) -> i32 {
        if callbacks && let Some(rest) = self.share.rest(now) {
            work.wait_ms = rest as u32;
            return RPW_WORK_REST;
        }
        let due = self.plugins.iter().map(|jobs| jobs.due).min().unwrap_or(NEVER);
        let wait = due.saturating_sub(now).div_ceil(NANOS_PER_MS).min(LONGEST_WAIT_MS - 1);
        let wait = if due == NEVER { LONGEST_WAIT_MS } else { wait };
        let soon = self.share.is_used() || queue.has_unsent();
        let wait = if soon { wait.min(Share::ROUND_MS) } else { wait };
        let waits = !callbacks && self.plugins.iter().any(|jobs| jobs.has_callbacks(now));
        work.wait_ms = if waits { 0 } else { wait.max(1) as u32 };
        work.over = i32::from(self.ending && self.plugins.iter().all(|jobs| jobs.over));
        RPW_WORK_WAIT
    }
}
