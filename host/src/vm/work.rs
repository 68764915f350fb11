//! Background jobs of a plugin: calls, ticks, queue callbacks, contexts to make again.

use std::rc::Rc;

use super::Context;
use super::plugin::Plugin;
use crate::callout::{Failure, Response};
use crate::error::Error;
use crate::grpc::{Command, Event};
use crate::guest::{Dispatched, ForeignCall, Token};
use crate::redis;

/// A call, by the VM that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallRef {
    pub(super) serial: u64,
    /// 0 for all of that VM.
    pub(super) token: Token,
}

impl CallRef {
    pub(super) fn all(serial: u64) -> Self {
        Self { serial, token: 0 }
    }

    /// Whether this call is meant by `dropped`.
    pub fn is_of(self, dropped: Self) -> bool {
        self.serial == dropped.serial && (dropped.token == 0 || self.token == dropped.token)
    }
}

/// What there is to do.
#[derive(Debug, Default)]
pub struct Work {
    /// Calls to be made.
    pub calls: Vec<(CallRef, Dispatched)>,
    /// Functions of the embedder to be run.
    pub foreign: Vec<(CallRef, ForeignCall)>,
    /// What gRPC calls and streams come to, in order.
    pub grpc: Vec<(CallRef, Command)>,
    /// What is asked of Redis servers, in order.
    pub redis: Vec<(CallRef, redis::Command)>,
    /// Calls that nothing waits for any more.
    pub dropped: Vec<CallRef>,
    /// When to ask again, on the host's monotonic clock; `None` while nothing is to come.
    pub next: Option<u64>,
    /// A guest wants to listen to a queue, and the process does not listen yet.
    pub wants_to_listen: bool,
    /// What went wrong in ticks and for queues, which no caller waits for.
    pub errors: Vec<Error>,
    /// In a process that ends: no plugin context is left.
    pub over: bool,
}

impl Plugin {
    /// What the guest wants done, without entering it.
    pub fn requested(&self) -> Work {
        let mut work = Work::default();
        self.take_calls(&mut work);
        work.dropped.append(&mut self.dropped.borrow_mut());
        work
    }

    /// Runs some of the ticks that are due, tells of some messages in queues, and says what else there is to do. In a process
    /// that ends, contexts without streams end.
    pub fn work(&self) -> Work {
        let mut work = Work::default();
        let until = self.now() + QUANTUM_NANOS;
        let mut runs = self.has_work();
        if self.host().is_ending() {
            runs = self.end_contexts(until, &mut work);
        } else {
            if runs && let Err(error) = self.with_vm(|_, _| Ok(())) {
                work.errors.push(error);
            }
            self.revive(until, &mut work);
        }
        let mut next = work.next;
        if runs {
            match self.with_vm(|vm, _| {
                let due = vm.run_ticks(until)?;
                let until = vm.state().host.monotonic_clock() + QUANTUM_NANOS;
                Ok((due, vm.run_queues(until)?))
            }) {
                Ok((due, queues)) => {
                    next = [next, due, queues.next].into_iter().flatten().min();
                    work.wants_to_listen = queues.wants_to_listen;
                }
                // Busy: the call in progress says again that work waits.
                Err(Error::Busy(_)) => {}
                Err(error) => {
                    work.errors.push(error);
                    self.revive(until, &mut work);
                    next = [next, work.next].into_iter().flatten().min();
                }
            }
        }
        let Work { calls, foreign, grpc, redis, dropped, .. } = self.requested();
        Work { next, calls, foreign, grpc, redis, dropped, ..work }
    }

    /// Ends the contexts of a VM without streams. Returns whether there is still something to call in it.
    fn end_contexts(&self, until: u64, work: &mut Work) -> bool {
        let now = self.now();
        match self.end_roots(now, until) {
            Ok(left) => {
                work.over = left == 0;
                // Nothing tells when the last stream ends.
                work.next = (left > 0).then_some(now + LOOK_NANOS);
                left > 0
            }
            Err(error) => {
                work.errors.push(error);
                work.over = true;
                false
            }
        }
    }

    /// Tells the guest what came of a call.
    pub fn answer(&self, call: CallRef, result: Result<Response, Failure>) -> Result<(), Error> {
        let of = super::StreamRef { serial: call.serial, id: 0 };
        match self.with_vm_of(of, |vm, _| vm.http_call_response(call.token, result)) {
            // The guest that waited is gone.
            Err(Error::Lost(_)) => Ok(()),
            other => other,
        }
    }

    /// Tells the guest of an event of a gRPC call or stream.
    pub fn grpc_event(&self, call: CallRef, event: Event) -> Result<(), Error> {
        let of = super::StreamRef { serial: call.serial, id: 0 };
        match self.with_vm_of(of, |vm, _| vm.grpc_event(call.token, event)) {
            Err(Error::Lost(_)) => Ok(()),
            other => other,
        }
    }

    /// Tells the guest what came of a Redis call.
    pub fn redis_answer(
        &self,
        call: CallRef,
        result: Result<Vec<u8>, Failure>,
    ) -> Result<(), Error> {
        let of = super::StreamRef { serial: call.serial, id: 0 };
        match self.with_vm_of(of, |vm, _| vm.redis_call_response(call.token, result)) {
            Err(Error::Lost(_)) => Ok(()),
            other => other,
        }
    }

    /// Whether requests are under way in its VM.
    pub fn has_requests(&self) -> bool {
        self.vm_has_streams().unwrap_or(true)
    }

    /// Hands the guest the result of a function of the embedder.
    pub fn foreign_result(&self, call: CallRef, result: Vec<u8>, ok: bool) -> Result<(), Error> {
        let of = super::StreamRef { serial: call.serial, id: 0 };
        match self.with_vm_of(of, |vm, _| vm.foreign_result(call.token, result, ok)) {
            Err(Error::Lost(_)) => Ok(()),
            other => other,
        }
    }

    /// Makes the contexts again that ticked, or listened to queues, in a VM that is gone.
    fn revive(&self, until: u64, work: &mut Work) {
        let gone = std::mem::take(&mut *self.gone.borrow_mut());
        for context in gone {
            if self.now() > until {
                work.next = Some(until);
                self.gone.borrow_mut().push(context);
                continue;
            }
            let Some(alive) = context.upgrade().filter(|context| !context.is_dropped()) else {
                continue;
            };
            match alive.ensure() {
                Ok(()) => {}
                Err(Error::Waiting { wait_ms, .. }) => {
                    let at = self.now() + wait_ms * NANOS_PER_MS;
                    work.next = Some(work.next.map_or(at, |next| next.min(at)));
                    self.gone.borrow_mut().push(context);
                }
                Err(error) => {
                    work.errors.push(error);
                    let at = self.now() + RETRY_NANOS;
                    work.next = Some(work.next.map_or(at, |next| next.min(at)));
                    self.gone.borrow_mut().push(context);
                }
            }
        }
    }

    /// Makes all contexts in this process that were made before it was forked.
    pub fn prepare(&self) -> Vec<Error> {
        let contexts: Vec<Rc<Context>> = self.contexts_before();
        contexts.iter().filter_map(|context| context.ensure().err()).collect()
    }
}

const NANOS_PER_MS: u64 = 1_000_000;
/// After this time other plugins have a turn.
const QUANTUM_NANOS: u64 = NANOS_PER_MS;
/// How often a process that ends looks whether streams are left.
const LOOK_NANOS: u64 = 20 * NANOS_PER_MS;
/// A context that failed for the first time is asked for its delay.
const RETRY_NANOS: u64 = crate::limits::RETRY_MS * NANOS_PER_MS;
