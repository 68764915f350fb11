//! A loaded plugin and its plugin contexts, over the VMs that come and go beneath them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::{Module, Vm};
use crate::error::Error;
use crate::guest::ContextId;
use crate::ports::{Host, RequestId};

/// A loaded plugin: a module, and one VM at a time.
///
/// A VM belongs to the process that made it. A worker that finds one from before its fork makes its own: a
/// forked guest would share random state and timers with its siblings.
pub struct Plugin {
    module: Arc<Module>,
    host: Arc<dyn Host>,
    slot: RefCell<Slot>,
}

#[derive(Default)]
struct Slot {
    vm: Option<Vm>,
    /// The process that made the VM.
    process: u64,
    /// Counts the VMs that this plugin has had: contexts of another number are gone.
    serial: u64,
    /// Why the VM before this one ended.
    cause: String,
}

impl Slot {
    /// What a stream of an earlier VM, or of this one once it is dead, is told.
    fn lost(&self, serial: u64) -> Error {
        match self.vm.as_ref().and_then(Vm::dead) {
            Some(error) if serial == self.serial => error.lost(),
            _ => Error::Lost(self.cause.clone()),
        }
    }

    /// Makes room for a VM of that process.
    fn renew(&mut self, process: u64) {
        if let Some(vm) = self.vm.take() {
            self.cause = match vm.dead() {
                Some(Error::Lost(cause)) => cause.clone(),
                Some(error) => error.to_string(),
                None => "it belonged to another process".into(),
            };
        }
        self.process = process;
        self.serial += 1;
    }
}

/// A plugin context that Lua holds: a configuration, made a root context in each VM that it is used in.
pub struct Context {
    plugin: Rc<Plugin>,
    configuration: Vec<u8>,
    root: Cell<Option<(u64, ContextId)>>,
    dropped: Cell<bool>,
}

/// A stream context, by the VM that it lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamRef {
    serial: u64,
    /// Its id in that VM.
    pub id: ContextId,
}

impl Plugin {
    /// Starts a first VM, so that a module that cannot start is an error now.
    pub fn new(module: Module, host: Arc<dyn Host>, process: u64) -> Result<Rc<Self>, Error> {
        let plugin = Self { module: Arc::new(module), host, slot: RefCell::default() };
        plugin.with_vm(process, |_, _| Ok(()))?;
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

    /// Milliseconds that a request may wait for the guest to go on.
    pub fn pause_timeout(&self) -> u32 {
        self.module.pause_timeout()
    }

    /// True while a callback of this plugin runs.
    pub fn is_busy(&self) -> bool {
        self.slot.try_borrow_mut().is_err()
    }

    /// Whether the last VM was made in this process; one that runs was.
    fn has_vm_of(&self, process: u64) -> bool {
        self.slot.try_borrow().map_or(true, |slot| slot.process == process)
    }

    /// Enters the VM of this process, made anew when there is none that lives.
    fn with_vm<R>(
        &self,
        process: u64,
        f: impl FnOnce(&mut Vm, u64) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let mut slot = self.slot.try_borrow_mut().map_err(|_| Error::Busy(self.name().into()))?;
        if slot.process != process || slot.vm.as_ref().is_none_or(|vm| vm.dead().is_some()) {
            slot.renew(process);
            slot.vm = Some(self.module.start(&self.host)?);
        }
        self.enter(&mut slot, f)
    }

    /// Enters the VM that a stream lives in, if it still lives.
    fn with_vm_of<R>(
        &self,
        stream: StreamRef,
        f: impl FnOnce(&mut Vm, u64) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let mut slot = self.slot.try_borrow_mut().map_err(|_| Error::Busy(self.name().into()))?;
        let lives =
            slot.serial == stream.serial && slot.vm.as_ref().is_some_and(|vm| vm.dead().is_none());
        if !lives {
            return Err(slot.lost(stream.serial));
        }
        self.enter(&mut slot, f)
    }

    fn enter<R>(
        &self,
        slot: &mut Slot,
        f: impl FnOnce(&mut Vm, u64) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let serial = slot.serial;
        let Some(vm) = slot.vm.as_mut() else { return Err(Error::Lost(slot.cause.clone())) };
        let guard = KillOnPanic(vm);
        let result = f(guard.0, serial);
        let finished = guard.0.delete_finished();
        result.and_then(|value| finished.map(|()| value))
    }
}

/// A host fault inside a guest call leaves the guest's state half changed: nothing more is called on it.
struct KillOnPanic<'a>(&'a mut Vm);

impl Drop for KillOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.kill(Error::Lost(
                "the host panicked inside a call; this is a bug of the host".into(),
            ));
        }
    }
}

impl Context {
    /// Makes a plugin context and configures it.
    pub fn new(plugin: &Rc<Plugin>, configuration: &[u8], process: u64) -> Result<Rc<Self>, Error> {
        let context = Self {
            plugin: plugin.clone(),
            configuration: configuration.to_vec(),
            root: Cell::new(None),
            dropped: Cell::new(false),
        };
        plugin.with_vm(process, |vm, serial| context.root(vm, serial))?;
        Ok(Rc::new(context))
    }

    /// Its plugin.
    pub fn plugin(&self) -> &Rc<Plugin> {
        &self.plugin
    }

    /// Starts a stream for a request.
    pub fn start_stream(&self, request: RequestId, process: u64) -> Result<StreamRef, Error> {
        self.plugin.with_vm(process, |vm, serial| {
            let root = self.root(vm, serial)?;
            Ok(StreamRef { serial, id: vm.create_stream(root, request)? })
        })
    }

    /// Works on the VM of a stream.
    pub fn with_stream<R>(
        &self,
        stream: StreamRef,
        f: impl FnOnce(&mut Vm) -> Result<R, Error>,
    ) -> Result<R, Error> {
        self.plugin.with_vm_of(stream, |vm, _| f(vm))
    }

    /// Ends a stream, and the context too when Lua has dropped it and this was its last one.
    pub fn end_stream(&self, stream: StreamRef) -> Result<(), Error> {
        let ended = self.plugin.with_vm_of(stream, |vm, serial| {
            vm.end_stream(stream.id)?;
            if self.dropped.get() { self.end_root(vm, serial) } else { Ok(()) }
        });
        gone_is_ended(ended)
    }

    /// Lua holds this context no longer: it ends now, or with its last stream. One of a VM that was made
    /// before this process was forked is only forgotten.
    pub fn drop_by_owner(&self, process: u64) -> Result<(), Error> {
        self.dropped.set(true);
        let Some((serial, id)) = self.root.get() else { return Ok(()) };
        if !self.plugin.has_vm_of(process) {
            return Ok(());
        }
        let ended = self
            .plugin
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
        vm.end_root(id)
    }

    /// The root context of this configuration in that VM.
    fn root(&self, vm: &mut Vm, serial: u64) -> Result<ContextId, Error> {
        match self.root.get() {
            Some((of, id)) if of == serial => Ok(id),
            _ => {
                let id = vm.create_root(&self.configuration)?;
                self.root.set(Some((serial, id)));
                Ok(id)
            }
        }
    }
}

/// A context whose VM is gone has nothing left to end.
fn gone_is_ended(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::Lost(_)) => Ok(()),
        other => other,
    }
}
