//! A loaded plugin and its plugin contexts, over the VMs that come and go beneath them.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use super::backoff::Backoff;
use super::slot::Slot;
use super::{CallRef, Module, SpareContexts, Vm, Work};
use crate::abi::LogLevel;
use crate::error::Error;
use crate::guest::ContextId;
use crate::id_map::IdMap;
use crate::limits;
use crate::ports::{Host, RequestId};
use crate::store::{Count, Counters};

/// A loaded plugin: a module, and one VM at a time.
///
/// A VM belongs to the process that made it. A worker that finds one from before its fork makes its own: a
/// forked guest would share random state and timers with its siblings.
pub struct Plugin {
    module: Arc<Module>,
    host: Arc<dyn Host>,
    slot: RefCell<Slot>,
    /// The plugin contexts of the VM by their roots.
    contexts: RefCell<IdMap<ContextId, Weak<Context>>>,
    /// What the last context was configured with: the next one often has the same.
    configuration: RefCell<Arc<[u8]>>,
    /// Contexts that ticked, or listened to queues, in a VM that is gone.
    pub(super) gone: RefCell<Vec<Weak<Context>>>,
    /// Calls that nothing waits for any more.
    pub(super) dropped: RefCell<Vec<CallRef>>,
    /// When all contexts must have ended, in a process that ends.
    ends_by: Cell<Option<u64>>,
}

/// A plugin context that its owner holds: a configuration, made a root context in each VM that it is used in.
pub struct Context {
    /// `None` in one that has ended, see `spare.rs`.
    plugin: Option<Rc<Plugin>>,
    configuration: Arc<[u8]>,
    root: Cell<Option<(u64, ContextId)>>,
    dropped: Cell<bool>,
    /// Failures to configure it in a VM after the first.
    backoff: RefCell<Backoff>,
}

/// A stream context, by the VM that it lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamRef {
    pub(super) serial: u64,
    /// Its id in that VM.
    pub id: ContextId,
}

impl Plugin {
    /// Starts a first VM, so that a module that cannot start is an error now.
    pub fn new(module: Module, host: Arc<dyn Host>) -> Result<Rc<Self>, Error> {
        let plugin = Self {
            module: Arc::new(module),
            host,
            slot: RefCell::default(),
            contexts: RefCell::default(),
            configuration: RefCell::new(Arc::new([])),
            gone: RefCell::default(),
            dropped: RefCell::default(),
            ends_by: Cell::default(),
        };
        plugin.with_vm(|_, _| Ok(()))?;
        Ok(Rc::new(plugin))
    }

    /// The plugin's name.
    pub fn name(&self) -> &str {
        &self.module.info().name
    }

    /// What users should know of its module.
    pub fn warnings(&self) -> &[String] {
        self.module.warnings()
    }

    /// Milliseconds that a request may wait for the guest to continue.
    pub fn pause_timeout(&self) -> u32 {
        self.module.pause_timeout()
    }

    /// What it is made of.
    #[inline]
    pub fn module(&self) -> &Module {
        &self.module
    }

    /// True while a callback of this plugin runs.
    #[inline]
    pub fn is_busy(&self) -> bool {
        self.slot.try_borrow_mut().is_err()
    }

    /// Whether the last VM was made in this process; one that runs was.
    fn has_vm_of(&self) -> bool {
        self.slot.try_borrow().map_or(true, |slot| slot.process == self.process())
    }

    /// Whether there is a VM to be asked for work: one of this process, or one whose ticks or queues must continue in it.
    pub(super) fn has_work(&self) -> bool {
        let Ok(slot) = self.slot.try_borrow() else { return false };
        let vm = slot.vm.as_ref();
        vm.is_some_and(|vm| slot.process == self.process() || !vm.active().is_empty())
    }

    /// Whether its VM has streams; `None` while it runs.
    pub(super) fn vm_has_streams(&self) -> Option<bool> {
        let slot = self.slot.try_borrow().ok()?;
        Some(slot.vm.as_ref().is_some_and(|vm| !vm.state().contexts.streams.is_empty()))
    }

    /// The contexts of a VM that another process made.
    pub(super) fn contexts_before(&self) -> Vec<Rc<Context>> {
        if self.has_vm_of() {
            return Vec::new();
        }
        self.contexts.borrow().values().filter_map(Weak::upgrade).collect()
    }

    /// Hands over the calls that the VM of this process wants to make and to drop.
    pub(super) fn take_calls(&self, work: &mut Work) {
        let Ok(mut slot) = self.slot.try_borrow_mut() else { return };
        let serial = slot.serial;
        if slot.process != self.process() {
            return;
        }
        let Some(vm) = slot.vm.as_mut() else { return };
        let requested = vm.state_mut().calls.take();
        let of = |token| CallRef { serial, token };
        work.calls.extend(requested.http.into_iter().map(|call| (of(call.token), call)));
        work.foreign.extend(requested.foreign.into_iter().map(|call| (of(call.token), call)));
        work.grpc.extend(requested.grpc.into_iter().map(|command| (of(command.token()), command)));
        work.redis
            .extend(requested.redis.into_iter().map(|command| (of(command.token()), command)));
        work.dropped.extend(requested.dropped.into_iter().map(of));
    }

    /// Ends the contexts of the VM of this process, once it has no streams. Returns how many are left, with streams or because
    /// they wait for something, and ends these when their time is over.
    pub(super) fn end_roots(&self, now: u64, until: u64) -> Result<usize, Error> {
        let (serial, streams) = match self.slot.try_borrow() {
            Err(_) => return Ok(1),
            Ok(slot) => match slot.vm.as_ref().filter(|_| slot.process == self.process()) {
                None => return Ok(0),
                Some(vm) => (slot.serial, vm.state().contexts.streams.len()),
            },
        };
        if streams > 0 {
            self.ends_by.set(None);
            return Ok(streams);
        }
        let by = self.ends_by.get().unwrap_or(now + limits::END_MS * NANOS_PER_MS);
        self.ends_by.set(Some(by));
        // A request that still comes makes them again.
        for context in self.contexts.take().take_all().filter_map(|context| context.upgrade()) {
            context.root.set(None);
        }
        let of = StreamRef { serial, id: 0 };
        let left = self.with_vm_of(of, |vm, _| vm.end_roots(now >= by, until));
        gone_is_ended(left.map(|_| ()))?;
        let slot = self.slot.try_borrow();
        Ok(slot.map_or(1, |slot| slot.vm.as_ref().map_or(0, |vm| vm.state().contexts.roots.len())))
    }

    /// Whether contexts of its VM have been told of their end, and have not come to it.
    pub fn awaits_ends(&self) -> bool {
        let Ok(slot) = self.slot.try_borrow() else { return true };
        slot.vm.as_ref().is_some_and(Vm::awaits_ends)
    }

    /// The host.
    pub(super) fn host(&self) -> &Arc<dyn Host> {
        &self.host
    }

    /// The number of this process.
    #[inline]
    fn process(&self) -> u64 {
        self.host.process()
    }

    /// The host's monotonic clock.
    pub fn now(&self) -> u64 {
        self.host.monotonic_clock()
    }

    /// Enters the VM of this process, made again when there is none that lives.
    pub(super) fn with_vm<R, E: From<Error>>(
        &self,
        f: impl FnOnce(&mut Vm, u64) -> Result<R, E>,
    ) -> Result<R, E> {
        let mut slot = self.slot.try_borrow_mut().map_err(|_| self.busy())?;
        // One that a panic ended is still there.
        self.bury(&mut slot);
        if slot.process != self.process() || slot.vm.is_none() {
            self.start(&mut slot)?;
        }
        self.enter(&mut slot, f)
    }

    /// Enters the VM that a stream lives in, if it still lives.
    pub(super) fn with_vm_of<R, E: From<Error>>(
        &self,
        stream: StreamRef,
        f: impl FnOnce(&mut Vm, u64) -> Result<R, E>,
    ) -> Result<R, E> {
        let mut slot = self.slot.try_borrow_mut().map_err(|_| self.busy())?;
        self.bury(&mut slot);
        if slot.serial != stream.serial || slot.vm.is_none() {
            return Err(slot.lost().into());
        }
        self.enter(&mut slot, f)
    }

    #[cold]
    fn busy(&self) -> Error {
        Error::Busy(self.name().into())
    }

    #[inline]
    fn enter<R, E: From<Error>>(
        &self,
        slot: &mut Slot,
        f: impl FnOnce(&mut Vm, u64) -> Result<R, E>,
    ) -> Result<R, E> {
        let result = slot.enter(f);
        self.bury(slot);
        result
    }

    /// Lets go of a VM that has ended.
    #[inline]
    fn bury(&self, slot: &mut Slot) {
        if slot.vm.as_ref().is_some_and(|vm| vm.dead().is_some()) {
            self.bury_dead(slot);
        }
    }

    #[cold]
    fn bury_dead(&self, slot: &mut Slot) {
        if let Some(vm) = slot.take_dead() {
            self.note(vm.state().own.as_ref(), &slot.cause);
            self.forget(&vm);
            if vm.state().calls.any() {
                self.dropped.borrow_mut().push(CallRef::all(slot.serial));
                self.host.work_waits();
            }
        }
    }

    /// Keeps in mind which contexts must continue to tick, or to listen, in the next VM.
    fn forget(&self, vm: &Vm) {
        let mut contexts = self.contexts.borrow_mut();
        let active = vm.active();
        self.gone.borrow_mut().extend(active.iter().filter_map(|id| contexts.remove(id)));
        *contexts = IdMap::default();
        if !active.is_empty() {
            self.host.callbacks_wait();
        }
    }

    /// Makes a VM in place of the last one.
    fn start(&self, slot: &mut Slot) -> Result<(), Error> {
        let now = self.host.monotonic_clock();
        let first = slot.serial == 0;
        let process = self.process();
        let lost = !first && slot.process == process;
        slot.backoff.check(now)?;
        if let Some(vm) = slot.renew(process) {
            self.forget(&vm);
        }
        match self.module.start(&self.host) {
            Ok(vm) => {
                if lost {
                    vm.state().own.count(Count::Rebuilds);
                }
                slot.vm = Some(vm);
                self.host.work_waits();
                self.tell(LogLevel::Warn, slot.backoff.worked());
                Ok(())
            }
            // The caller that loads the plugin gets the error.
            Err(error) if first => Err(error),
            Err(error) => {
                self.note(self.host.counters(self.name()).as_ref(), &error.to_string());
                self.tell(LogLevel::Error, slot.backoff.failed(now, &error));
                Err(error)
            }
        }
    }

    /// Has the plugin's state show what went wrong.
    fn note(&self, counters: &dyn Counters, cause: &str) {
        if let Some(presence) = counters.presence() {
            presence.error(cause, self.host.wall_clock() / NANOS_PER_SECOND);
        }
    }

    /// A configuration to keep, without a copy when it is that of the last context.
    fn keep_configuration(&self, configuration: &[u8]) -> Arc<[u8]> {
        let mut last = self.configuration.borrow_mut();
        if **last != *configuration {
            *last = configuration.into();
        }
        last.clone()
    }

    /// Logs news of the VMs, which no request stands for.
    fn tell(&self, level: LogLevel, news: Option<String>) {
        if let Some(news) = news {
            let line = format!("wasm plugin \"{}\": {news}", self.name());
            self.host.log(None, level, line.as_bytes());
        }
    }
}

impl Context {
    /// Makes a plugin context and configures it.
    pub fn new(plugin: &Rc<Plugin>, configuration: &[u8]) -> Result<Rc<Self>, Error> {
        Self::new_in(&SpareContexts::default(), plugin, configuration)
    }

    /// The same in memory of one that has ended.
    pub fn new_in(
        spare: &SpareContexts,
        plugin: &Rc<Plugin>,
        configuration: &[u8],
    ) -> Result<Rc<Self>, Error> {
        let context = spare.place(Self {
            plugin: Some(plugin.clone()),
            configuration: plugin.keep_configuration(configuration),
            root: Cell::new(None),
            dropped: Cell::new(false),
            backoff: RefCell::default(),
        });
        context.ensure()?;
        Ok(context)
    }

    /// Has it ended for good.
    pub(super) fn leave_plugin(&mut self) -> Option<Rc<Plugin>> {
        self.plugin.take()
    }

    /// Makes its root context in the VM of this process, when it is not there.
    pub(super) fn ensure(self: &Rc<Self>) -> Result<(), Error> {
        self.plugin().with_vm(|vm, serial| self.root(vm, serial).map(|_| ()))
    }

    /// Whether its owner has dropped it.
    pub(super) fn is_dropped(&self) -> bool {
        self.dropped.get()
    }

    /// Its plugin.
    #[inline]
    pub fn plugin(&self) -> &Rc<Plugin> {
        match &self.plugin {
            Some(plugin) => plugin,
            None => unreachable!("a plugin context that has ended is not used"),
        }
    }

    /// What it was made with.
    pub fn configuration(&self) -> &[u8] {
        &self.configuration
    }

    /// Starts a stream for a request, see [`Event::calls_hold`](crate::event::Event::calls_hold).
    pub fn start_stream(
        self: &Rc<Self>,
        request: RequestId,
        calls_hold: bool,
    ) -> Result<StreamRef, Error> {
        self.plugin().with_vm(|vm, serial| {
            let root = self.root(vm, serial)?;
            Ok(StreamRef { serial, id: vm.create_stream(root, request, calls_hold)? })
        })
    }

    /// Starts a stream for a request with its first event. `f` gets the VM, to which the stream was added: it calls
    /// [`Vm::run_first`].
    pub fn begin_stream<R, E: From<Error>>(
        self: &Rc<Self>,
        request: RequestId,
        calls_hold: bool,
        f: impl FnOnce(&mut Vm, StreamRef) -> Result<R, E>,
    ) -> Result<R, E> {
        self.plugin().with_vm(|vm, serial| {
            let root = self.root(vm, serial)?;
            let id = vm.add_stream(root, request, calls_hold);
            f(vm, StreamRef { serial, id })
        })
    }

    /// Works on the VM of a stream.
    pub fn with_stream<R>(
        &self,
        stream: StreamRef,
        f: impl FnOnce(&mut Vm) -> Result<R, Error>,
    ) -> Result<R, Error> {
        self.plugin().with_vm_of(stream, |vm, _| f(vm))
    }

    /// Ends a stream, and the context too when its owner has dropped it and this was its last one.
    pub fn end_stream(&self, stream: StreamRef) -> Result<(), Error> {
        let ended: Result<(), Box<Error>> = self.plugin().with_vm_of(stream, |vm, serial| {
            vm.end_stream(stream.id)?;
            if self.dropped.get() {
                self.end_root(vm, serial)?;
            }
            vm.end_when_unwanted();
            Ok(())
        });
        match ended {
            Ok(()) => Ok(()),
            Err(error) => gone_is_ended(Err(*error)),
        }
    }

    /// Its owner drops this context: it ends now, or with its last stream. One of a VM that was made
    /// before this process was forked is only forgotten.
    pub fn drop_by_owner(&self) -> Result<(), Error> {
        self.dropped.set(true);
        let Some((serial, id)) = self.root.get() else { return Ok(()) };
        if !self.plugin().has_vm_of() {
            return Ok(());
        }
        let ended = self
            .plugin()
            .with_vm_of(StreamRef { serial, id }, |vm, serial| self.end_root(vm, serial));
        gone_is_ended(ended)
    }

    fn end_root(&self, vm: &mut Vm, serial: u64) -> Result<(), Error> {
        let Some((of, id)) = self.root.get() else { return Ok(()) };
        let streams = vm.state().contexts.roots.get(&id).map_or(0, |root| root.streams);
        if of != serial || streams > 0 {
            return Ok(());
        }
        self.root.set(None);
        self.plugin().contexts.borrow_mut().remove(&id);
        vm.end_root(id)
    }

    /// The root context of this configuration in that VM.
    #[inline]
    fn root(self: &Rc<Self>, vm: &mut Vm, serial: u64) -> Result<ContextId, Error> {
        match self.root.get() {
            Some((of, id)) if of == serial => Ok(id),
            Some(_) => self.create_root_again(vm, serial),
            None => self.create_root(vm, serial),
        }
    }

    fn create_root(self: &Rc<Self>, vm: &mut Vm, serial: u64) -> Result<ContextId, Error> {
        let id = vm.create_root(&self.configuration)?;
        if self.plugin().host.is_ending() {
            self.plugin().host.callbacks_wait();
        }
        self.root.set(Some((serial, id)));
        self.plugin().contexts.borrow_mut().insert(id, Rc::downgrade(self));
        Ok(id)
    }

    /// Like [`Context::create_root`], for a configuration that an earlier VM took.
    fn create_root_again(self: &Rc<Self>, vm: &mut Vm, serial: u64) -> Result<ContextId, Error> {
        let mut backoff = self.backoff.borrow_mut();
        let now = self.plugin().host.monotonic_clock();
        backoff.check(now)?;
        let result = self.create_root(vm, serial);
        match &result {
            Ok(_) => self.plugin().tell(LogLevel::Warn, backoff.worked()),
            Err(error) => self.plugin().tell(LogLevel::Error, backoff.failed(now, error)),
        }
        result
    }
}

/// A context whose VM is gone has nothing left to end.
fn gone_is_ended(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::Lost(_)) => Ok(()),
        other => other,
    }
}

const NANOS_PER_MS: u64 = 1_000_000;
const NANOS_PER_SECOND: u64 = 1_000_000_000;
