//! Asynchronous functions of Lua that guests called.

use std::rc::Rc;

use crate::vm::{CallRef, Plugin};

/// A function of Lua.
pub(crate) struct Function {
    pub plugin: Rc<Plugin>,
    pub of: CallRef,
    /// When Lua called it.
    pub began: u64,
}
