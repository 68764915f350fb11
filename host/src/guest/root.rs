//! A plugin (root) context.

use std::sync::Arc;

use super::{ContextId, Properties};
use crate::redis;
use crate::store::{QueueId, Ticket};

/// A plugin context: one configuration of a plugin in one VM.
#[derive(Debug)]
pub struct Root {
    /// Its id in the VM.
    pub id: ContextId,
    /// The plugin configuration, readable in every callback.
    pub configuration: Arc<[u8]>,
    /// Streams that have not ended.
    pub streams: u32,
    /// Milliseconds between ticks, 0 for none.
    pub tick_period: u32,
    /// When the next one is due, on the host's monotonic clock.
    pub tick_due: u64,
    /// Queues that it registered, and not another one of this VM since.
    pub queues: Vec<Listener>,
    /// `proxy_on_done` was called.
    pub ends: bool,
    /// `proxy_on_done` answered false: deleted when the guest calls `proxy_done`.
    pub awaits_done: bool,
    /// What the guest keeps under paths of its own.
    pub properties: Properties,
    /// The Redis servers that it began with, by their names.
    pub redis: Vec<(Box<[u8]>, Arc<redis::Target>)>,
}

/// A queue that a plugin context listens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The queue.
    pub id: QueueId,
    /// By which it is known as the listener, from when the worker can be reached.
    pub ticket: Option<Ticket>,
}

impl Root {
    /// A context without streams.
    pub fn new(id: ContextId, configuration: Arc<[u8]>) -> Self {
        Self {
            id,
            configuration,
            streams: 0,
            tick_period: 0,
            tick_due: 0,
            queues: Vec::new(),
            ends: false,
            awaits_done: false,
            properties: Properties::default(),
            redis: Vec::new(),
        }
    }

    /// The Redis server of that name.
    pub fn redis(&self, name: &[u8]) -> Option<&Arc<redis::Target>> {
        self.redis.iter().find(|(this, _)| **this == *name).map(|(_, target)| target)
    }

    /// Whether it is called outside of requests.
    pub fn is_active(&self) -> bool {
        self.tick_period != 0 || !self.queues.is_empty()
    }
}
