//! Queues: messages in the order in which they came, taken by the first that asks, and one listener that is notified of each.

use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};

use super::layout::{HELLOS, Kind, Link, Node};
use super::lock::Locked;
use super::node::Parts;
use super::region::Shareable;
use super::repair::Repair;
use super::{Refusal, Shared};
use crate::limits;
use crate::store::{Address, QueueId, Series, Ticket, Type, Value};

/// A queue.
#[repr(C)]
struct Queue {
    /// Messages that were put in, and those that the listener was notified of.
    sent: AtomicU64,
    notified: AtomicU64,
    id: AtomicU32,
    /// The first message, and the last one.
    head: AtomicU32,
    tail: AtomicU32,
    length: AtomicU32,
    listener: AtomicU32,
    address: AtomicU32,
}

// SAFETY: made of atomics.
unsafe impl Shareable for Queue {}

impl Shared {
    /// The queue of that name; made when there is none.
    pub fn queue(&self, space: &[u8], name: &[u8]) -> Result<QueueId, Refusal> {
        if name.len() > limits::SHARED_KEY {
            return Err(Refusal::TooLarge);
        }
        let hash = self.hash(Kind::Queue, space, name);
        let locked = self.lock()?;
        let place = locked.find(Kind::Queue, hash, space, name);
        if let Some(queue) = locked.value::<Queue>(place.link) {
            return Ok(queue.id.load(Relaxed));
        }
        let queues = &locked.header().queues;
        let free = queues.iter().position(|queue| queue.load(Relaxed) == 0);
        let free = free.ok_or(Refusal::TooMany)?;
        locked.change(|| {
            let id = free as u32 + 1;
            let mut value = [0; size_of::<Queue>()];
            value[std::mem::offset_of!(Queue, id)..][..4].copy_from_slice(&id.to_ne_bytes());
            let link = locked.add(Kind::Queue, hash, space, name, &value)?;
            queues[free].store(link, Release);
            Ok(id)
        })
    }

    /// The queue of that name, if there is one.
    pub fn find_queue(&self, space: &[u8], name: &[u8]) -> Result<Option<QueueId>, Refusal> {
        if name.len() > limits::SHARED_KEY {
            return Ok(None);
        }
        let hash = self.hash(Kind::Queue, space, name);
        let locked = self.lock()?;
        let place = locked.find(Kind::Queue, hash, space, name);
        Ok(locked.value::<Queue>(place.link).map(|queue| queue.id.load(Relaxed)))
    }

    /// Makes the caller the listener, reached at that address. It is notified of the messages that wait, and of each that comes.
    pub fn listen(&self, id: QueueId, address: Address) -> Result<Option<Ticket>, Refusal> {
        let locked = self.lock()?;
        let Some(queue) = locked.queue(id) else { return Ok(None) };
        let tickets = &locked.header().tickets;
        let ticket = tickets.load(Relaxed).checked_add(1).unwrap_or(1);
        tickets.store(ticket, Relaxed);
        let waiting = u64::from(queue.length.load(Relaxed));
        queue.notified.store(queue.sent.load(Relaxed).saturating_sub(waiting), Relaxed);
        queue.address.store(address, Relaxed);
        queue.listener.store(ticket, Relaxed);
        Ok(Some(ticket))
    }

    /// Whether the listener of that ticket is to be notified of one more message; it counts as notified.
    pub fn must_notify(&self, id: QueueId, ticket: Ticket) -> Result<bool, Refusal> {
        let locked = self.lock()?;
        let Some(queue) = locked.queue(id) else { return Ok(false) };
        if queue.listener.load(Relaxed) != ticket {
            return Ok(false);
        }
        let (sent, notified) = (queue.sent.load(Relaxed), queue.notified.load(Relaxed));
        // Of a message that another worker took meanwhile no notification is due.
        let notified = if queue.head.load(Relaxed) == 0 { sent } else { notified };
        queue.notified.store(sent.min(notified + 1), Relaxed);
        Ok(notified < sent)
    }

    /// Puts a message in. Returns where the listener is; `None` when there is no such queue.
    pub fn enqueue(&self, id: QueueId, message: &[u8]) -> Result<Option<Address>, Refusal> {
        if message.len() > limits::SHARED_VALUE {
            return Err(Refusal::TooLarge);
        }
        let locked = self.lock()?;
        let Some(queue) = locked.queue(id) else { return Ok(None) };
        if queue.length.load(Relaxed) >= limits::QUEUE_MESSAGES {
            return Err(Refusal::TooMany);
        }
        locked.change(|| {
            let parts = Parts {
                kind: Kind::Message,
                hash: 0,
                tag: 0,
                value: message,
                space: b"",
                key: b"",
            };
            let link = locked.make(&parts).ok_or(Refusal::Full)?;
            match locked.node(queue.tail.load(Relaxed)) {
                Some(last) if queue.head.load(Relaxed) != 0 => last.next.store(link, Release),
                _ => queue.head.store(link, Release),
            }
            queue.tail.store(link, Relaxed);
            queue.length.store(queue.length.load(Relaxed) + 1, Relaxed);
            queue.sent.store(queue.sent.load(Relaxed) + 1, Relaxed);
            Ok(Some(queue.address.load(Relaxed)))
        })
    }

    /// Takes the first message out, into `out` (cleared first): whether there was one. `None` when there is no such queue.
    pub fn dequeue(&self, id: QueueId, out: &mut Vec<u8>) -> Result<Option<bool>, Refusal> {
        out.clear();
        let locked = self.lock()?;
        let Some(queue) = locked.queue(id) else { return Ok(None) };
        let first = queue.head.load(Relaxed);
        let Some(node) = locked.node(first) else { return Ok(Some(false)) };
        out.extend_from_slice(locked.value_of(first, node));
        locked.change(|| {
            queue.head.store(node.next.load(Relaxed), Release);
            let length = queue.length.load(Relaxed);
            queue.length.store(length.saturating_sub(1), Relaxed);
            locked.free_node(first, node);
        });
        Ok(Some(true))
    }

    /// The address of the worker that has sent this hello. `recv` returns each hello that was received, and the address of
    /// its sender: all workers receive from one socket.
    pub fn address_of(
        &self,
        hello: u64,
        mut recv: impl FnMut() -> Option<(u64, Address)>,
    ) -> Result<Option<Address>, Refusal> {
        let locked = self.lock()?;
        let (hellos, addresses) = (&locked.header().hellos, &locked.header().addresses);
        // A process may receive the hello of another one. It keeps it here, and the other one looks here, too.
        while let Some((received, from)) = recv() {
            let at = received as usize % HELLOS;
            addresses[at].store(from, Relaxed);
            hellos[at].store(received, Relaxed);
        }
        let at = hello as usize % HELLOS;
        if hellos[at].load(Relaxed) != hello {
            return Ok(None);
        }
        hellos[at].store(0, Relaxed);
        Ok(Some(addresses[at].load(Relaxed)))
    }

    /// Forgets a listener that cannot be reached.
    pub fn forget_listener(&self, address: Address) {
        let Ok(locked) = self.lock() else { return };
        for id in 1..=limits::QUEUE_NAMES as QueueId {
            if let Some(queue) = locked.queue(id)
                && queue.address.load(Relaxed) == address
            {
                queue.address.store(0, Relaxed);
            }
        }
    }
}

impl Locked<'_> {
    fn queue(&self, id: QueueId) -> Option<&Queue> {
        let at = (id as usize).checked_sub(1)?;
        self.value(self.header().queues.get(at)?.load(Relaxed))
    }

    /// Finds the messages of all queues again, and the queues by their ids.
    pub(super) fn repair_queues(&self, repair: &mut Repair) {
        self.header().queues.iter().for_each(|queue| queue.store(0, Relaxed));
        self.for_each(|link, node| {
            if !node.is(Kind::Queue) {
                return;
            }
            let Some(queue) = self.value::<Queue>(link) else { return };
            let at = (queue.id.load(Relaxed) as usize).wrapping_sub(1);
            if let Some(slot) = self.header().queues.get(at) {
                slot.store(link, Release);
            }
            let before = repair.kept;
            self.keep_chain(&queue.head, repair, |node| node.is(Kind::Message));
            let length = (repair.kept - before) as u32;
            queue.length.store(length, Relaxed);
            queue.tail.store(self.last_of(queue), Relaxed);
            // One that was put in just now may not have been counted, and one that was taken out may have been.
            let least = queue.notified.load(Relaxed) + u64::from(length);
            if queue.sent.load(Relaxed) < least && length > 0 {
                queue.sent.store(least, Relaxed);
            }
        });
    }

    /// Whether the queues are as they should be; the error says what is not.
    pub(super) fn verify_queues(&self) -> Result<(), String> {
        for id in 1..=limits::QUEUE_NAMES as QueueId {
            let Some(queue) = self.queue(id) else { continue };
            let (mut length, mut last) = (0, 0);
            let mut link = queue.head.load(Relaxed);
            while let Some(node) = self.node(link) {
                (length, last) = (length + 1, link);
                link = node.next.load(Relaxed);
            }
            let (counted, tail) = (queue.length.load(Relaxed), queue.tail.load(Relaxed));
            if counted != length || (length > 0 && tail != last) || queue.id.load(Relaxed) != id {
                return Err(format!(
                    "queue {id} of {counted} messages has {length}, or another end"
                ));
            }
        }
        Ok(())
    }

    /// How many messages wait in each queue, and how many came.
    pub(super) fn queue_metrics(&self) -> Vec<Series> {
        let mut all = Vec::new();
        for id in 1..=limits::QUEUE_NAMES as QueueId {
            let Some(queue) = self.queue(id) else { continue };
            let link = self.header().queues[id as usize - 1].load(Relaxed);
            let Some(node) = self.node(link) else { continue };
            let text = |bytes: &[u8]| {
                let cut = &bytes[..bytes.len().min(limits::QUEUE_LABEL_BYTES)];
                String::from_utf8_lossy(cut).into_owned()
            };
            let labels = vec![
                // Tells queues apart whose names are alike as far as they are shown.
                ("id", id.to_string()),
                ("queue", text(self.key_of(link, node))),
                ("vm_id", text(self.space_of(link, node))),
            ];
            for (name, help, kind, number) in [
                (
                    "proxy_wasm_queue_messages",
                    "Messages that wait in a queue",
                    Type::Gauge,
                    queue.length.load(Relaxed).into(),
                ),
                (
                    "proxy_wasm_queue_messages_total",
                    "Messages that were put into a queue",
                    Type::Counter,
                    queue.sent.load(Relaxed).into(),
                ),
            ] {
                all.push(Series {
                    name: name.into(),
                    help: help.into(),
                    kind,
                    labels: labels.clone(),
                    value: Value::Number(number),
                });
            }
        }
        all
    }

    fn last_of(&self, queue: &Queue) -> Link {
        let mut last = queue.head.load(Relaxed);
        while let Some(next) = self.node(last).map(|node| node.next.load(Relaxed))
            && next != 0
        {
            last = next;
        }
        last
    }

    /// Calls `f` with each message of each queue.
    pub(super) fn for_each_message(&self, mut f: impl FnMut(Link, &Node)) {
        for id in 1..=limits::QUEUE_NAMES as QueueId {
            let mut link = self.queue(id).map_or(0, |queue| queue.head.load(Relaxed));
            while let Some(node) = self.node(link) {
                f(link, node);
                link = node.next.load(Relaxed);
            }
        }
    }
}
