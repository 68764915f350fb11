//! A module with all that it imports, ready to be made an instance of.

use wasmtime::{Extern, Instance, InstancePre, Linker, Store};

use super::front::{self, Front, Parts};
use super::{Code, linker};
use crate::abi::ALLOCATORS;
use crate::error::{Error, one_line};
use crate::guest::State;

/// See the module.
pub struct Linked {
    pre: InstancePre<State>,
    /// For a guest with a front: that, and where it has everything else from.
    front: Option<(&'static Parts, Linker<State>)>,
}

impl Linked {
    /// Links code. The texts are warnings for the log.
    pub fn new(code: &Code, store: &mut Store<State>) -> Result<(Self, Vec<String>), Error> {
        let module = &code.module;
        let (linker, warnings) = linker::for_module(module, store)?;
        let pre = linker.instantiate_pre(module).map_err(|e| Error::Import(one_line(&e)))?;
        let allocates = ALLOCATORS.iter().any(|name| module.get_export(name).is_some());
        // A start section runs before there is an allocator that its front could call.
        let has_front =
            allocates && !code.profile.starts && module.imports().any(|i| front::has(&i));
        let front = if has_front { Some((front::parts()?, linker)) } else { None };
        Ok((Self { pre, front }, warnings))
    }

    /// Whether each instance has a front, which is an instance as well, and one behind it.
    pub fn has_front(&self) -> bool {
        self.front.is_some()
    }

    /// An instance, and its front.
    pub fn instantiate(
        &self,
        store: &mut Store<State>,
    ) -> wasmtime::Result<(Instance, Option<Front>)> {
        let Some((parts, linker)) = &self.front else {
            return Ok((self.pre.instantiate(store)?, None));
        };
        let front = Front::new(parts, store)?;
        let module = self.pre.module();
        let imports: Option<Vec<Extern>> = module
            .imports()
            .map(|import| match front::has(&import) {
                true => front.function(store, import.name()).map(Extern::Func),
                false => linker.get_by_import(&mut *store, &import),
            })
            .collect();
        let imports = imports.ok_or_else(|| wasmtime::Error::msg("an import is gone"))?;
        Ok((Instance::new(store, module, &imports)?, Some(front)))
    }
}
