//! The shared memory as a [`Store`].

use std::sync::Arc;

use super::Shared;
use crate::abi::MetricType;
use crate::store::{
    Address, Cas, Counters, Metric, Metrics, QueueId, Queues, Refusal, Series, SharedData, Store,
    Ticket,
};

impl Store for Shared {
    fn counters(&self, plugin: &str) -> Arc<dyn Counters> {
        Arc::new(self.own(plugin))
    }
}

impl SharedData for Shared {
    fn get(&self, space: &[u8], key: &[u8], out: &mut Vec<u8>) -> Result<Option<Cas>, Refusal> {
        self.get(space, key, out)
    }

    fn set(&self, space: &[u8], key: &[u8], value: &[u8], cas: Cas) -> Result<Cas, Refusal> {
        self.set(space, key, value, cas)
    }

    fn delete(&self, space: &[u8], key: &[u8]) -> Result<bool, Refusal> {
        self.delete(space, key)
    }

    fn keys(&self, space: &[u8], most: usize) -> Result<Vec<Vec<u8>>, Refusal> {
        self.keys(space, most)
    }
}

impl Queues for Shared {
    fn queue(&self, space: &[u8], name: &[u8]) -> Result<QueueId, Refusal> {
        self.queue(space, name)
    }

    fn find_queue(&self, space: &[u8], name: &[u8]) -> Result<Option<QueueId>, Refusal> {
        self.find_queue(space, name)
    }

    fn listen(&self, id: QueueId, address: Address) -> Result<Option<Ticket>, Refusal> {
        self.listen(id, address)
    }

    fn must_notify(&self, id: QueueId, ticket: Ticket) -> Result<bool, Refusal> {
        self.must_notify(id, ticket)
    }

    fn enqueue(&self, id: QueueId, message: &[u8]) -> Result<Option<Address>, Refusal> {
        self.enqueue(id, message)
    }

    fn dequeue(&self, id: QueueId, out: &mut Vec<u8>) -> Result<Option<bool>, Refusal> {
        self.dequeue(id, out)
    }
}

impl Metrics for Shared {
    fn define(&self, plugin: &[u8], kind: MetricType, name: &[u8]) -> Result<Metric, Refusal> {
        self.define(plugin, kind, name)
    }

    fn add(&self, metric: Metric, delta: i64) -> bool {
        self.add(metric, delta)
    }

    fn record(&self, metric: Metric, value: i64) {
        self.record(metric, value);
    }

    fn read(&self, metric: Metric) -> Option<u64> {
        self.read(metric)
    }

    fn stand_in(&self, plugin: &[u8], function: &[u8], calls: i64) -> Result<(), Refusal> {
        self.stand_in(plugin, function, calls)
    }

    fn metrics(&self) -> Result<Vec<Series>, Refusal> {
        self.metrics()
    }
}
