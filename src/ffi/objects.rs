//! What the handles of Lua lead to: plugins and plugin contexts, of which each may be replaced.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use super::request::Requests;
use crate::ports::RequestId;
use crate::shm::PlanNumber;
use crate::vm::{Context, Options, Plugin};

/// A loaded plugin. When it is replaced, another takes its place.
#[allow(non_camel_case_types, reason = "the name that C and Lua see")]
pub struct rpw_plugin_t {
    /// Never another one.
    pub name: String,
    current: RefCell<Rc<Plugin>>,
    options: RefCell<Options>,
    /// In the order in which they were made, with gaps where some were dropped.
    contexts: RefCell<Vec<Weak<rpw_context_t>>>,
    /// The last plan that was followed, or tried.
    pub plan: Cell<PlanNumber>,
}

impl rpw_plugin_t {
    /// What Lua gets a handle of.
    pub fn new(plugin: Rc<Plugin>, options: Options) -> Rc<Self> {
        Rc::new(Self {
            name: options.name.clone(),
            current: RefCell::new(plugin),
            options: RefCell::new(options),
            contexts: RefCell::default(),
            plan: Cell::new(0),
        })
    }

    /// What new contexts get.
    pub fn current(&self) -> Rc<Plugin> {
        self.current.borrow().clone()
    }

    /// What it was started with.
    pub fn options(&self) -> Options {
        self.options.borrow().clone()
    }

    fn add_context(&self, context: &Rc<rpw_context_t>) {
        let mut contexts = self.contexts.borrow_mut();
        if contexts.len() == contexts.capacity() {
            close_gaps(&mut contexts);
        }
        context.place.set(contexts.len());
        contexts.push(Rc::downgrade(context));
    }

    pub fn contexts(&self) -> Vec<Rc<rpw_context_t>> {
        self.contexts.borrow().iter().filter_map(Weak::upgrade).collect()
    }

    /// Puts another in its place.
    pub fn replace(&self, with: Rc<Plugin>, options: Options) {
        self.current.replace(with);
        self.options.replace(options);
    }
}

/// Now and then only: a look at each of them costs more than to make a context.
#[cold]
fn close_gaps(contexts: &mut Vec<Weak<rpw_context_t>>) {
    contexts.retain(|context| context.strong_count() > 0);
    for (place, context) in contexts.iter().enumerate() {
        if let Some(context) = context.upgrade() {
            context.place.set(place);
        }
    }
    contexts.reserve(contexts.len().max(16));
}

/// A plugin context. When its plugin is replaced, another takes its place for the requests that come.
#[allow(non_camel_case_types, reason = "the name that C and Lua see")]
pub struct rpw_context_t {
    /// So that a plugin is found whose handle Lua has let go of.
    plugin: Rc<rpw_plugin_t>,
    /// Where it stands in the plugin's list.
    place: Cell<usize>,
    current: RefCell<Rc<Context>>,
    /// Those that were replaced, as long as requests have them.
    past: RefCell<Vec<Weak<Context>>>,
}

impl rpw_context_t {
    /// What Lua gets a handle of.
    pub fn new(plugin: &Rc<rpw_plugin_t>, context: Rc<Context>) -> Rc<Self> {
        let made = Rc::new(Self {
            current: RefCell::new(context),
            past: RefCell::default(),
            plugin: plugin.clone(),
            place: Cell::new(0),
        });
        plugin.add_context(&made);
        made
    }

    /// What new requests get.
    pub fn current(&self) -> Rc<Context> {
        self.current.borrow().clone()
    }

    /// What a request has, or gets.
    #[inline]
    pub fn of(&self, requests: &Requests, request: RequestId) -> Rc<Context> {
        if self.past.borrow().is_empty() { self.current() } else { self.of_past(requests, request) }
    }

    fn of_past(&self, requests: &Requests, request: RequestId) -> Rc<Context> {
        let mut past = self.past.borrow_mut();
        past.retain(|context| context.strong_count() > 0);
        let mut found = past.iter().rev().filter_map(Weak::upgrade);
        found
            .find(|context| requests.participation(request, context).is_some())
            .unwrap_or_else(|| self.current())
    }

    /// Puts another in its place. Returns the one that was there, to be ended.
    pub fn replace(&self, with: Rc<Context>) -> Rc<Context> {
        let before = self.current.replace(with);
        self.past.borrow_mut().push(Rc::downgrade(&before));
        before
    }
}

impl Drop for rpw_context_t {
    /// Its memory goes at once, and not with the next look at the list.
    fn drop(&mut self) {
        if let Some(place) = self.plugin.contexts.borrow_mut().get_mut(self.place.get()) {
            *place = Weak::new();
        }
    }
}
