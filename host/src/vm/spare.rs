//! The memory of plugin contexts that have ended, for the next ones. Who makes one in each request, and has them ended by the
//! thousand when a collector finds them, would ask the allocator for each.

use std::cell::RefCell;
use std::rc::Rc;

use super::Context;
use crate::guest::SPARE_ROOTS;

/// See the module.
#[derive(Default)]
pub struct SpareContexts(RefCell<Vec<Rc<Context>>>);

/// One with a larger configuration is not kept: its memory is mostly that.
const SMALL: usize = 4096;

impl SpareContexts {
    /// Puts a context into the memory of another, when there is some.
    pub(super) fn place(&self, context: Context) -> Rc<Context> {
        if let Some(mut spare) = self.0.borrow_mut().pop()
            && let Some(place) = Rc::get_mut(&mut spare)
        {
            *place = context;
            return spare;
        }
        Rc::new(context)
    }

    /// Takes a context that has ended, unless something else still has it.
    pub fn keep(&self, mut context: Rc<Context>) {
        if context.configuration().len() > SMALL || self.0.borrow().len() >= SPARE_ROOTS {
            return;
        }
        // Nothing but it may have the plugin, which then ends.
        let plugin = Rc::get_mut(&mut context).and_then(Context::leave_plugin);
        if plugin.is_some() {
            self.0.borrow_mut().push(context);
        }
    }
}
