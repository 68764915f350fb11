//! Ends that could not happen when they were due.
//!
//! Lua's collector runs finalizers at any allocation, and a request can end while a callback of the same
//! plugin runs. Neither may enter a guest then, so the ending waits for the next call from Lua.

use std::cell::RefCell;
use std::rc::Rc;

use super::nginx;
use crate::abi::LogLevel;
use crate::error::Error;
use crate::ports::RequestId;
use crate::vm::{Context, Plugin, SpareContexts, StreamRef};

enum Ending {
    Context(Rc<Context>),
    Stream(Rc<Context>, StreamRef),
}

/// What waits to end.
#[derive(Default)]
pub(super) struct Endings {
    waiting: RefCell<Vec<Ending>>,
    /// What has ended.
    pub spare: SpareContexts,
}

impl Endings {
    /// Lua dropped a plugin context.
    pub(super) fn queue_context(&self, context: Rc<Context>) {
        self.waiting.borrow_mut().push(Ending::Context(context));
    }

    /// Ends a stream now, or later when its plugin is busy.
    pub(super) fn end_stream(
        &self,
        request: Option<RequestId>,
        context: &Rc<Context>,
        stream: StreamRef,
    ) {
        if context.plugin().is_busy() {
            self.waiting.borrow_mut().push(Ending::Stream(context.clone(), stream));
        } else {
            report(request, context, context.end_stream(stream));
        }
    }

    /// Whether anything waits.
    #[inline]
    pub(super) fn any(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// Does what waits, as far as it can be done now. `keep` is given plugins whose contexts have not ended yet.
    #[cold]
    pub(super) fn run(&self, keep: impl Fn(&Rc<Plugin>)) {
        for ending in self.waiting.take() {
            let context = match &ending {
                Ending::Context(context) | Ending::Stream(context, _) => context,
            };
            if context.plugin().is_busy() {
                self.waiting.borrow_mut().push(ending);
                continue;
            }
            match ending {
                Ending::Context(context) => {
                    report(None, &context, context.drop_by_owner());
                    if context.plugin().awaits_ends() {
                        keep(context.plugin());
                    }
                    self.spare.keep(context);
                }
                // The request is freed, so its streams cannot be told from which one they were.
                Ending::Stream(context, stream) => {
                    report(None, &context, context.end_stream(stream));
                }
            }
        }
    }
}

/// No caller waits for an ending, so what fails in it goes to the log.
#[inline]
fn report(request: Option<RequestId>, context: &Context, result: Result<(), Error>) {
    if let Err(error) = result {
        report_error(request, context, &error);
    }
}

#[cold]
fn report_error(request: Option<RequestId>, context: &Context, error: &Error) {
    let line = format!("wasm plugin \"{}\": {error}", context.plugin().name());
    nginx::log(request, LogLevel::Error, line.as_bytes());
}
