//! VMs: compiling modules, starting instances, and calling guests.

mod analysis;
mod backoff;
#[allow(unsafe_code, reason = "the chunk of an event is lent to the guest's context")]
mod bodies;
mod bodiless;
mod callback;
mod calls;

pub mod deadline;
mod enter;
mod exports;
mod grpc;
mod lifecycle;
mod load;
mod module;
mod plugin;
mod queues;
mod redis;
mod run;
mod sequences;
mod share;
mod shim;
mod slot;
mod spare;
mod start;
mod stopwatch;
mod waiting;
mod work;

use std::sync::Arc;

use wasmtime::Store;

pub use analysis::proposals;
pub use deadline::TimeLimits;
pub use load::baseline::{BASELINES, Baseline, EntryState, KeepError, Kept, examine};
pub use load::cache::{Cache, Images, Loaded, Origin, Sources};
pub use load::code::Code;
pub use load::code_store::{CodeStore, StoreError, Turn};
pub use load::watch::{Progress, Stage};
pub use module::{Module, Options, host_functions};
pub use plugin::{Context, Plugin, StreamRef};
pub use queues::Queues;
pub use run::{BeginError, Outcome};
pub use share::{NEVER, Share};
pub use spare::SpareContexts;
pub use work::{CallRef, Work};

use crate::error::Error;
use crate::guest::{ContextId, State};
use crate::store::QueueId;
use exports::Exports;
use sequences::Sequences;

/// A running instance of a module with all contexts that live in it.
pub struct Vm {
    store: Store<State>,
    exports: Exports,
    sequences: Sequences,
    module: Arc<Module>,
    /// The last headers callback answered that the body waits, too.
    stops_all: bool,
    /// Why nothing may be called any more.
    dead: Option<Error>,
    /// The queue that the guest was notified of last.
    notified_last: (ContextId, QueueId),
}

impl Vm {
    /// The cause of the VM's end, once it has ended.
    pub fn dead(&self) -> Option<&Error> {
        self.dead.as_ref()
    }

    /// The contexts of the VM and the call in progress.
    pub fn state(&self) -> &State {
        self.store.data()
    }

    /// See [`Vm::state`].
    pub fn state_mut(&mut self) -> &mut State {
        self.store.data_mut()
    }
}
