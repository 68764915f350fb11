//! Notifying guests of messages in the queues that they listen to.

use super::Vm;
use crate::abi::Callback;
use crate::error::Error;
use crate::guest::ContextId;
use crate::limits;
use crate::ports::Listening;
use crate::store::{QueueId, Ticket};

/// What is left to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queues {
    /// A guest wants to listen, and the process does not listen yet.
    pub wants_to_listen: bool,
    /// When to look again, on the host's monotonic clock.
    pub next: Option<u64>,
}

impl Vm {
    /// Notifies the guest of messages that came, of each once: of one at least, and of others as long as it is not later than
    /// `until`. The queues take turns.
    pub fn run_queues(&mut self, until: u64) -> Result<Queues, Error> {
        let mut left = Queues::default();
        if self.exports.queue_ready.is_none() {
            return Ok(left);
        }
        let mut listeners = self.listeners(&mut left);
        let first = listeners
            .iter()
            .position(|(root, id, _)| (*root, *id) > self.notified_last)
            .unwrap_or(0);
        listeners.rotate_left(first);
        let mut calls = 0;
        for (root, id, ticket) in listeners {
            while self.must_notify(id, ticket) {
                self.call(Callback::QueueReady, root, |store, exports| {
                    exports.queue_ready.as_ref().map_or(Ok(()), |f| f.call(store, (root, id)))
                })?;
                self.notified_last = (root, id);
                calls += 1;
                let now = self.state().host.monotonic_clock();
                if now > until {
                    left.next = Some(now);
                    return Ok(left);
                }
                if calls == limits::QUEUE_CALLS {
                    // The worker serves others first.
                    left.next = Some(self.state().host.monotonic_clock() + NANOS_PER_MS);
                    return Ok(left);
                }
            }
        }
        Ok(left)
    }

    /// The queues that plugin contexts listen to. Those that want to, do so from now on.
    fn listeners(&mut self, left: &mut Queues) -> Vec<(ContextId, QueueId, Ticket)> {
        let state = self.state_mut();
        let listening = state.host.listening();
        let host = state.host.clone();
        let mut listeners = Vec::new();
        for root in state.contexts.roots.values_mut() {
            for queue in &mut root.queues {
                let address = match listening {
                    Listening::NotYet => {
                        left.wants_to_listen = true;
                        continue;
                    }
                    Listening::At(address) => address,
                    Listening::Polls => {
                        left.next = Some(host.monotonic_clock() + POLL_NANOS);
                        0
                    }
                };
                if queue.ticket.is_none() {
                    queue.ticket = host
                        .shared()
                        .and_then(|shared| shared.listen(queue.id, address).ok().flatten());
                }
                listeners.extend(queue.ticket.map(|ticket| (root.id, queue.id, ticket)));
            }
        }
        listeners.sort_unstable();
        listeners
    }

    fn must_notify(&self, id: QueueId, ticket: Ticket) -> bool {
        let shared = self.state().host.shared();
        shared.is_some_and(|shared| shared.must_notify(id, ticket).unwrap_or(false))
    }
}

const NANOS_PER_MS: u64 = 1_000_000;
/// Twenty times a second.
const POLL_NANOS: u64 = 50 * NANOS_PER_MS;
