//! A module's own start code, in the order that toolchains expect.

use wasmtime::{Instance, InstancePre, Store};

use super::callback::cause;
use super::deadline;
use super::exports::typed;
use super::shim::extended;
use crate::error::Error;
use crate::guest::{MemoryToCome, State};

/// How to run it. The time limit is one for all of its steps.
#[derive(Clone, Copy)]
pub(super) struct StartCode {
    pub limit_ms: u32,
}

impl StartCode {
    /// Makes an instance, which runs the start section.
    pub(super) fn instantiate(
        self,
        linked: &InstancePre<State>,
        is_extended: bool,
        store: &mut Store<State>,
    ) -> Result<Instance, Error> {
        deadline::set(&mut *store, self.limit_ms);
        let has_own = is_extended && linked.module().get_export(extended::MEMORY).is_some();
        store.data_mut().limits.memories_to_come = has_own.then_some(MemoryToCome::OfGuest);
        linked.instantiate(store).map_err(|e| self.error("instantiation", &e))
    }

    /// Runs `_initialize` and then `main`; without `_initialize`, `_start`; never both.
    pub(super) fn run(self, instance: &Instance, store: &mut Store<State>) -> Result<(), Error> {
        let Some(initialize) = typed::<(), ()>(instance, store, "_initialize")? else {
            return match typed::<(), ()>(instance, store, "_start")? {
                Some(start) => self.step("_start", || start.call(store, ())),
                None => Ok(()),
            };
        };
        self.step("_initialize", || initialize.call(&mut *store, ()))?;
        // An export of that name with another type is not the C main.
        if let Ok(Some(main)) = typed::<(u32, u32), u32>(instance, store, "main") {
            return self.step("main", || main.call(store, (0, 0)).map(|_| ()));
        }
        if let Ok(Some(main)) = typed::<(), u32>(instance, store, "__main_void") {
            return self.step("__main_void", || main.call(store, ()).map(|_| ()));
        }
        Ok(())
    }

    /// A clean exit at the end of a step is how C's runtime says that main returned.
    fn step(
        self,
        name: &'static str,
        call: impl FnOnce() -> wasmtime::Result<()>,
    ) -> Result<(), Error> {
        match call() {
            Ok(()) => Ok(()),
            Err(error) => match error.downcast_ref::<wasmtime_wasi::I32Exit>() {
                Some(exit) if exit.0 == 0 => Ok(()),
                _ => Err(self.error(name, &error)),
            },
        }
    }

    fn error(self, step: &'static str, error: &wasmtime::Error) -> Error {
        Error::Start { step, cause: cause(error, self.limit_ms) }
    }
}
