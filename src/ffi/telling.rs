//! Telling guests what came of their jobs, in turn, and counting the time of jobs.

use std::rc::Rc;
use std::sync::Arc;

use super::failures::report;
use super::jobs::{Answer, Connections as _};
use super::worker::Worker;
use crate::ports::Host;
use crate::vm::Plugin;

/// What Lua and nginx need to move a piece of a response: about, since it is not measured.
pub(super) const PIECE_NANOS: u64 = 5_000;

/// Tells a guest what came of a job, and counts its time and what was taken before.
pub(super) fn tell(worker: &Worker, host: &Arc<dyn Host>, answer: Answer, before: u64) {
    let began = host.monotonic_clock();
    let plugin = answer.plugin().clone();
    let message = answer.grpc_message();
    if let Err(error) = answer.tell() {
        report(&plugin, &error);
    }
    if let Some((id, size)) = message {
        worker.grpc.borrow_mut().told(id, size);
        if worker.grpc.borrow().has_actions() {
            worker.announce();
        }
    }
    let took = host.monotonic_clock().saturating_sub(began);
    worker.jobs.borrow_mut().charge(&plugin, before + took);
}

/// Tells a guest now, or later when jobs have had their share of the time.
pub(super) fn tell_in_turn(worker: &Worker, host: &Arc<dyn Host>, answer: Answer, before: u64) {
    let now = host.monotonic_clock();
    let mut jobs = worker.jobs.borrow_mut();
    if jobs.may_tell(answer.plugin(), now) {
        drop(jobs);
        return tell(worker, host, answer, before);
    }
    jobs.charge(&answer.plugin().clone(), before);
    jobs.add_answer(answer);
    drop(jobs);
    worker.announce();
}

/// Counts time that a job of a plugin took. Returns the milliseconds to rest when jobs have had their share.
pub(super) fn charge(
    worker: &Worker,
    host: &Arc<dyn Host>,
    plugin: &Rc<Plugin>,
    nanos: u64,
) -> u32 {
    let mut jobs = worker.jobs.borrow_mut();
    jobs.charge(plugin, nanos);
    jobs.rest_ms(host.monotonic_clock())
}

/// Counts time that was spent for no plugin in particular. Returns the milliseconds to rest, 0 as a rule.
pub(super) fn spend(worker: &Worker, host: &Arc<dyn Host>, nanos: u64) -> u32 {
    let now = host.monotonic_clock();
    let rest = {
        let mut jobs = worker.jobs.borrow_mut();
        jobs.share.charge(nanos);
        jobs.rest_ms(now)
    };
    if rest > 0 {
        // The light thread of jobs ends the round.
        worker.announce();
    }
    rest
}
