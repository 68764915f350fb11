//! The calls of the library that are on the stack, and who made them.

use std::cell::Cell;

use super::failure::Failure;
use crate::limits;

/// Who called the library.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Caller {
    /// nginx itself.
    #[default]
    Nginx,
    /// Lua that LuaJIT may have compiled.
    Lua,
    /// Lua that it has not.
    Interpreter,
}

/// See the module.
#[derive(Default)]
pub(super) struct Entries {
    caller: Cell<Caller>,
    depth: Cell<usize>,
}

impl Entries {
    /// Who called last.
    pub(super) fn caller(&self) -> Caller {
        self.caller.get()
    }

    /// Whether Lua is what called last.
    pub(super) fn is_below_lua(&self) -> bool {
        self.caller.get() != Caller::Nginx
    }

    /// A call from Lua, until what is returned is dropped.
    pub(super) fn enter(&self, caller: Caller) -> Result<CallGuard<'_>, Failure> {
        if self.depth.get() >= limits::NESTED_ENTRIES {
            return Err(Failure::new("foreign functions call filters, which call them, too deep"));
        }
        Ok(self.set(caller))
    }

    /// A call from nginx, until what is returned is dropped.
    pub(super) fn enter_from_nginx(&self) -> CallGuard<'_> {
        self.set(Caller::Nginx)
    }

    fn set(&self, caller: Caller) -> CallGuard<'_> {
        self.depth.set(self.depth.get() + 1);
        CallGuard { entries: self, before: self.caller.replace(caller) }
    }
}

/// A call of the library, until this is dropped.
pub(super) struct CallGuard<'a> {
    entries: &'a Entries,
    before: Caller,
}

impl Drop for CallGuard<'_> {
    fn drop(&mut self) {
        self.entries.caller.set(self.before);
        self.entries.depth.set(self.entries.depth.get() - 1);
    }
}
