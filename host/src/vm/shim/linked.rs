//! A module with all that it imports, ready to be made an instance of.

use wasmtime::{Extern, Instance, InstancePre, Linker, Store};

use super::allocator_shim::{self, AllocatorShim, Parts};
use crate::abi::ALLOCATORS;
use crate::error::{Error, one_line};
use crate::guest::{MemoryToCome, State};
use crate::vm::Code;
use crate::vm::load::linker;

/// See the module.
pub(crate) struct Linked {
    pre: InstancePre<State>,
    /// It has a memory of our own behind the guest's.
    is_extended: bool,
    /// For a guest with a shim: that, and where it has everything else from.
    shim: Option<(&'static Parts, Linker<State>)>,
}

impl Linked {
    /// Links code. The texts are warnings for the log.
    pub(crate) fn new(code: &Code, store: &mut Store<State>) -> Result<(Self, Vec<String>), Error> {
        let module = &code.module;
        let (linker, warnings) = linker::for_module(code, store)?;
        let pre = linker.instantiate_pre(module).map_err(|e| Error::Import(one_line(&e)))?;
        let allocates = ALLOCATORS.iter().any(|name| module.get_export(name).is_some());
        // A start section runs before there is an allocator that its shim could call.
        let has_shim =
            allocates && !code.profile.starts && module.imports().any(|i| allocator_shim::has(&i));
        let shim =
            if has_shim { Some((allocator_shim::parts(code.engine)?, linker)) } else { None };
        Ok((Self { pre, is_extended: code.profile.extended, shim }, warnings))
    }

    /// Whether each instance has a shim. That takes two more instances: the shim, and what it calls.
    pub(crate) fn has_shim(&self) -> bool {
        self.shim.is_some()
    }

    /// An instance, and its shim.
    pub(crate) fn instantiate(
        &self,
        store: &mut Store<State>,
    ) -> wasmtime::Result<(Instance, Option<AllocatorShim>)> {
        // A shim has no memory.
        store.data_mut().limits.memories_to_come =
            self.is_extended.then_some(MemoryToCome::OfGuest);
        let Some((parts, linker)) = &self.shim else {
            return Ok((self.pre.instantiate(store)?, None));
        };
        let shim = AllocatorShim::new(parts, store)?;
        let module = self.pre.module();
        let imports: Option<Vec<Extern>> = module
            .imports()
            .map(|import| match allocator_shim::has(&import) {
                true => shim.function(store, import.name()).map(Extern::Func),
                false => linker.get_by_import(&mut *store, &import),
            })
            .collect();
        let imports = imports.ok_or_else(|| wasmtime::Error::msg("an import is gone"))?;
        Ok((Instance::new(store, module, &imports)?, Some(shim)))
    }
}
