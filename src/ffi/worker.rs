//! What one worker keeps between calls of the library. An export reaches it once and passes it down.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use super::ending::Endings;
use super::entries::Entries;
use super::jobs::{Grpc, Jobs, Queue, Redis, Signal};
use super::lent::Lent;
use super::objects::rpw_plugin_t;
use super::outcome::LastOutcome;
use super::plans::Seen;
use super::request::Requests;
use super::wakers::Wakers;
use crate::limits;
use crate::vm::Plugin;

/// See the module.
#[derive(Default)]
pub(super) struct Worker {
    /// The calls of the library that are on the stack.
    pub entries: Entries,
    /// Requests that have streams.
    pub requests: Requests,
    /// Ends of contexts and streams that wait.
    pub endings: Endings,
    /// What the last outcome points to.
    pub outcome: LastOutcome,
    /// Semaphores of requests that wait.
    pub wakers: Wakers,
    /// Whether there is work outside of requests, and for which light thread.
    pub signal: Signal,
    /// That work.
    pub jobs: RefCell<Jobs>,
    /// Connections for gRPC.
    pub grpc: RefCell<Grpc>,
    /// Connections to Redis servers.
    pub redis: RefCell<Redis>,
    /// How messages in queues are learned of.
    pub queue: Queue,
    /// The plugins that live, in the order in which they were loaded.
    pub plugins: RefCell<Vec<Weak<rpw_plugin_t>>>,
    /// The plans that Lua was told of.
    pub plans: Seen,
    /// What the last answers of other exports point to.
    pub lent: Lent,
}

thread_local! {
    static WORKER: Worker = Worker::default();
}

/// Works with that of this process. nginx has one thread.
pub(super) fn with<R>(f: impl FnOnce(&Worker) -> R) -> R {
    WORKER.with(f)
}

impl Worker {
    /// Some plugin has work.
    pub(super) fn announce(&self) {
        self.signal.set(self.entries.is_below_lua());
    }

    /// Some plugin has callbacks to be run.
    pub(super) fn announce_callbacks(&self) {
        self.signal.set_callbacks();
        self.announce();
    }

    /// Whether what is announced is found, wherever it comes from: by the Lua below, or by a light thread that is woken.
    pub(super) fn is_looked_for(&self) -> bool {
        self.entries.is_below_lua() || self.signal.has_listener()
    }

    /// Ends what waits to end, as far as that is possible now.
    #[inline]
    pub(super) fn run_endings(&self) {
        if self.endings.any() {
            self.endings.run(|plugin| self.keep(plugin));
        }
    }

    /// Keeps a plugin that Lua lets go of, until its contexts have ended.
    fn keep(&self, plugin: &Rc<Plugin>) {
        let until = plugin.now() + limits::END_MS * NANOS_PER_MS;
        self.jobs.borrow_mut().keep(plugin, until);
        self.announce();
    }

    /// All plugins, in the order in which they were loaded.
    pub(super) fn plugins(&self) -> Vec<Rc<rpw_plugin_t>> {
        self.plugins.borrow().iter().filter_map(Weak::upgrade).collect()
    }

    /// A plugin that was loaded.
    pub(super) fn add_plugin(&self, made: &Rc<rpw_plugin_t>) {
        let mut plugins = self.plugins.borrow_mut();
        plugins.retain(|plugin| plugin.strong_count() > 0);
        plugins.push(Rc::downgrade(made));
    }
}

const NANOS_PER_MS: u64 = 1_000_000;
