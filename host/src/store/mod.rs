//! What plugins share: values by key, queues, metrics, and the counters of each plugin.
//!
//! The traits are implemented by [`MemoryStore`], for embedders with one process, and by shared memory that several worker
//! processes map.

mod counters;
mod memory;
mod presence;
mod series;

use std::sync::Arc;

use crate::abi::MetricType;

pub use counters::{Count, CounterBlock, Counters, NoCounters, plugin_series};
pub use memory::MemoryStore;
pub use presence::{Presence, PresenceBlock};
pub use series::{Series, Type, Value, exposition};

/// The version of an entry of shared data, for compare and swap. Never 0.
pub type Cas = u32;

/// How filters know a queue: from 1, the same in all VMs.
pub type QueueId = u32;

/// How to reach the process of a queue's listener; 0 for none.
pub type Address = u32;

/// Says who listens to a queue: the last ticket that was given out for it counts. Never 0.
pub type Ticket = u32;

/// The upper ends of the buckets of a guest's histogram: Envoy's, which are made for milliseconds. One more bucket is for what
/// is larger.
pub const BUCKETS: [u64; 18] = [
    1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000, 600_000,
    1_800_000, 3_600_000,
];

/// Why something is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no room.
    Full,
    /// A key or a value passes its limit.
    TooLarge,
    /// A plugin has too many of these.
    TooMany,
    /// The version is another one.
    Mismatch,
    /// More processes use the memory than it has room for.
    TooManyProcesses,
}

/// A metric that was defined, good for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// The store's number for it.
    pub id: u32,
    /// Its type.
    pub kind: MetricType,
}

/// Values by key, each with a version, in a space of keys for each vm_id.
pub trait SharedData {
    /// Puts the value of a key into `out` (cleared first) and returns its version; `None` when there is none.
    fn get(&self, space: &[u8], key: &[u8], out: &mut Vec<u8>) -> Result<Option<Cas>, Refusal>;

    /// Sets the value of a key, and returns its new version. With a `cas` that is not 0 an entry that is there must have
    /// that version.
    fn set(&self, space: &[u8], key: &[u8], value: &[u8], cas: Cas) -> Result<Cas, Refusal>;

    /// Takes a key out. False when it is not there.
    fn delete(&self, space: &[u8], key: &[u8]) -> Result<bool, Refusal>;

    /// The keys of a space, in no order, and at most `most` of them.
    fn keys(&self, space: &[u8], most: usize) -> Result<Vec<Vec<u8>>, Refusal>;
}

/// Queues: messages in the order in which they came, for the first that takes them, and one listener that is told of each.
pub trait Queues {
    /// The queue of that name in a space; made when there is none.
    fn queue(&self, space: &[u8], name: &[u8]) -> Result<QueueId, Refusal>;

    /// The queue of that name, if there is one.
    fn find_queue(&self, space: &[u8], name: &[u8]) -> Result<Option<QueueId>, Refusal>;

    /// Makes the caller the listener, reached at that address. It is notified of the messages that wait, and of each
    /// that comes.
    /// `None` when there is no such queue.
    fn listen(&self, id: QueueId, address: Address) -> Result<Option<Ticket>, Refusal>;

    /// Whether the listener of that ticket is to be notified of one more message; it counts as notified.
    fn must_notify(&self, id: QueueId, ticket: Ticket) -> Result<bool, Refusal>;

    /// Puts a message in. Returns where the listener is; `None` when there is no such queue.
    fn enqueue(&self, id: QueueId, message: &[u8]) -> Result<Option<Address>, Refusal>;

    /// Takes the first message out, into `out` (cleared first): whether there was one. `None` when there is no such queue.
    fn dequeue(&self, id: QueueId, out: &mut Vec<u8>) -> Result<Option<bool>, Refusal>;
}

/// Metrics that guests define.
pub trait Metrics {
    /// The metric of that name, type and plugin; made when there is none.
    fn define(&self, plugin: &[u8], kind: MetricType, name: &[u8]) -> Result<Metric, Refusal>;

    /// Adds to a counter or a gauge; false when it is neither.
    fn add(&self, metric: Metric, delta: i64) -> bool;

    /// Adds to a counter, sets a gauge, or puts a value into a histogram.
    fn record(&self, metric: Metric, value: i64);

    /// The value of a counter or a gauge; `None` for a histogram.
    fn read(&self, metric: Metric) -> Option<u64>;

    /// Counts calls of a function that the host does not have, from 0 on. It counts among the metrics of its plugin.
    fn stand_in(&self, plugin: &[u8], function: &[u8], calls: i64) -> Result<(), Refusal>;

    /// All metrics: those of the library first, then those of guests, each by name, type and labels.
    fn metrics(&self) -> Result<Vec<Series>, Refusal>;
}

/// All that plugins share.
pub trait Store: SharedData + Queues + Metrics + Send + Sync {
    /// Where what a plugin does in this process, and on this thread, is counted.
    fn counters(&self, plugin: &str) -> Arc<dyn Counters>;
}

/// How a count of [`Metrics::stand_in`] is shown.
pub fn stand_in_series(plugin: &[u8], function: &[u8], calls: u64) -> Series {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Series {
        name: "proxy_wasm_stand_in_calls_total".into(),
        help: "Calls of each function that the host does not have".into(),
        kind: Type::Counter,
        labels: vec![("plugin", text(plugin)), ("function", text(function))],
        value: Value::Number(calls.into()),
    }
}

/// The order in which metrics are shown.
pub fn in_order(mut of_library: Vec<Series>, mut of_guests: Vec<Series>) -> Vec<Series> {
    let order = |series: &Series| (series.name.clone(), series.kind, series.labels.clone());
    of_library.sort_by_cached_key(order);
    of_guests.sort_by_cached_key(order);
    of_library.append(&mut of_guests);
    of_library
}
