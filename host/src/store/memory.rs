//! A store for one process.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::thread::ThreadId;

use parking_lot::{Mutex, MutexGuard};

use super::{
    Address, BUCKETS, Cas, CounterBlock, Counters, Metric, Metrics, QueueId, Queues, Refusal,
    Series, SharedData, Store, Ticket, Type, Value, in_order, plugin_series,
};
use crate::abi::MetricType;
use crate::limits;

/// A [`Store`] in the memory of this process: for embedders that do not fork. What keys, values and messages may take is
/// bounded; when there is no room, nothing gives way.
pub struct MemoryStore {
    inner: Mutex<Inner>,
    most: usize,
}

type Name = (Vec<u8>, Vec<u8>);

#[derive(Default)]
struct Inner {
    /// Bytes of keys, values and messages.
    used: usize,
    entries: HashMap<Name, (Vec<u8>, Cas)>,
    last_cas: Cas,
    queues: Vec<Queue>,
    last_ticket: Ticket,
    metrics: Vec<Defined>,
    /// By plugin and thread: one thread writes each.
    counters: BTreeMap<String, Vec<(ThreadId, Arc<CounterBlock>)>>,
}

#[derive(Default)]
struct Queue {
    name: Name,
    messages: VecDeque<Vec<u8>>,
    /// Messages at the end of `messages` that the listener was not notified of.
    unnotified: usize,
    listener: Ticket,
    address: Address,
}

struct Defined {
    plugin: Vec<u8>,
    kind: MetricType,
    name: Vec<u8>,
    /// The name is that of a function which the host does not have.
    stand_in: bool,
    number: u64,
    /// Of a histogram.
    counts: [u64; BUCKETS.len() + 1],
}

/// What an entry or a message takes beside its bytes.
const OVERHEAD: usize = 64;

impl MemoryStore {
    /// An empty one that keeps at most that many bytes.
    pub fn new(bytes: usize) -> Self {
        Self { inner: Mutex::default(), most: bytes }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }
}

impl MemoryStore {
    fn define_as(
        &self,
        stand_in: bool,
        plugin: &[u8],
        kind: MetricType,
        name: &[u8],
    ) -> Result<Metric, Refusal> {
        if name.len() >= limits::SHARED_KEY {
            return Err(Refusal::TooLarge);
        }
        let mut inner = self.lock();
        let is = |m: &Defined| {
            m.plugin == plugin && m.kind == kind && m.name == name && m.stand_in == stand_in
        };
        if let Some(at) = inner.metrics.iter().position(is) {
            return Ok(Metric { id: at as u32, kind });
        }
        let of_plugin = inner.metrics.iter().filter(|m| m.plugin == plugin).count();
        if of_plugin as u64 >= limits::METRIC_NAMES {
            return Err(Refusal::TooMany);
        }
        inner.metrics.push(Defined {
            plugin: plugin.to_vec(),
            kind,
            name: name.to_vec(),
            stand_in,
            number: 0,
            counts: [0; BUCKETS.len() + 1],
        });
        Ok(Metric { id: inner.metrics.len() as u32 - 1, kind })
    }
}

impl Store for MemoryStore {
    fn counters(&self, plugin: &str) -> Arc<dyn Counters> {
        let thread = std::thread::current().id();
        let mut inner = self.lock();
        let of_plugin = inner.counters.entry(plugin.into()).or_default();
        if let Some((_, block)) = of_plugin.iter().find(|(of, _)| *of == thread) {
            return block.clone();
        }
        let block = Arc::new(CounterBlock::default());
        of_plugin.push((thread, block.clone()));
        block
    }
}

impl SharedData for MemoryStore {
    fn get(&self, space: &[u8], key: &[u8], out: &mut Vec<u8>) -> Result<Option<Cas>, Refusal> {
        out.clear();
        let inner = self.lock();
        let found = inner.entries.get(&(space.to_vec(), key.to_vec()));
        Ok(found.map(|(value, cas)| {
            out.extend_from_slice(value);
            *cas
        }))
    }

    fn set(&self, space: &[u8], key: &[u8], value: &[u8], cas: Cas) -> Result<Cas, Refusal> {
        if key.len() > limits::SHARED_KEY || value.len() > limits::SHARED_VALUE {
            return Err(Refusal::TooLarge);
        }
        let inner = &mut *self.lock();
        let name = (space.to_vec(), key.to_vec());
        let size = |value: &[u8]| space.len() + key.len() + value.len() + OVERHEAD;
        let old = inner.entries.get(&name);
        if old.is_some_and(|(_, now)| cas != 0 && *now != cas) {
            return Err(Refusal::Mismatch);
        }
        let used = inner.used - old.map_or(0, |(value, _)| size(value)) + size(value);
        if used > self.most {
            return Err(Refusal::Full);
        }
        inner.used = used;
        inner.last_cas = inner.last_cas.checked_add(1).unwrap_or(1);
        inner.entries.insert(name, (value.to_vec(), inner.last_cas));
        Ok(inner.last_cas)
    }

    fn delete(&self, space: &[u8], key: &[u8]) -> Result<bool, Refusal> {
        let mut inner = self.lock();
        let removed = inner.entries.remove(&(space.to_vec(), key.to_vec()));
        if let Some((value, _)) = &removed {
            inner.used -= space.len() + key.len() + value.len() + OVERHEAD;
        }
        Ok(removed.is_some())
    }

    fn keys(&self, space: &[u8], most: usize) -> Result<Vec<Vec<u8>>, Refusal> {
        let inner = self.lock();
        let of_space = inner.entries.keys().filter(|(of, _)| of == space);
        Ok(of_space.take(most).map(|(_, key)| key.clone()).collect())
    }
}

impl Inner {
    fn queue(&mut self, id: QueueId) -> Option<&mut Queue> {
        self.queues.get_mut((id as usize).checked_sub(1)?)
    }

    fn find_queue(&self, space: &[u8], name: &[u8]) -> Option<QueueId> {
        let is = |queue: &Queue| queue.name.0 == space && queue.name.1 == name;
        self.queues.iter().position(is).map(|at| at as QueueId + 1)
    }
}

impl Queues for MemoryStore {
    fn queue(&self, space: &[u8], name: &[u8]) -> Result<QueueId, Refusal> {
        if name.len() > limits::SHARED_KEY {
            return Err(Refusal::TooLarge);
        }
        let mut inner = self.lock();
        if let Some(id) = inner.find_queue(space, name) {
            return Ok(id);
        }
        if inner.queues.len() >= limits::QUEUE_NAMES {
            return Err(Refusal::TooMany);
        }
        inner.queues.push(Queue { name: (space.to_vec(), name.to_vec()), ..Queue::default() });
        Ok(inner.queues.len() as QueueId)
    }

    fn find_queue(&self, space: &[u8], name: &[u8]) -> Result<Option<QueueId>, Refusal> {
        Ok(self.lock().find_queue(space, name))
    }

    fn listen(&self, id: QueueId, address: Address) -> Result<Option<Ticket>, Refusal> {
        let inner = &mut *self.lock();
        let ticket = inner.last_ticket.checked_add(1).unwrap_or(1);
        let Some(queue) = inner.queue(id) else { return Ok(None) };
        queue.unnotified = queue.messages.len();
        (queue.listener, queue.address) = (ticket, address);
        inner.last_ticket = ticket;
        Ok(Some(ticket))
    }

    fn must_notify(&self, id: QueueId, ticket: Ticket) -> Result<bool, Refusal> {
        let mut inner = self.lock();
        let Some(queue) = inner.queue(id).filter(|queue| queue.listener == ticket) else {
            return Ok(false);
        };
        let must_notify = queue.unnotified > 0;
        queue.unnotified = queue.unnotified.saturating_sub(1);
        Ok(must_notify)
    }

    fn enqueue(&self, id: QueueId, message: &[u8]) -> Result<Option<Address>, Refusal> {
        if message.len() > limits::SHARED_VALUE {
            return Err(Refusal::TooLarge);
        }
        let inner = &mut *self.lock();
        let used = inner.used + message.len() + OVERHEAD;
        let Some(queue) = inner.queue(id) else { return Ok(None) };
        if queue.messages.len() >= limits::QUEUE_MESSAGES as usize {
            return Err(Refusal::TooMany);
        }
        if used > self.most {
            return Err(Refusal::Full);
        }
        queue.messages.push_back(message.to_vec());
        queue.unnotified += 1;
        let address = queue.address;
        inner.used = used;
        Ok(Some(address))
    }

    fn dequeue(&self, id: QueueId, out: &mut Vec<u8>) -> Result<Option<bool>, Refusal> {
        out.clear();
        let inner = &mut *self.lock();
        let Some(queue) = inner.queue(id) else { return Ok(None) };
        let Some(message) = queue.messages.pop_front() else { return Ok(Some(false)) };
        // Of a message that another one took no notification is due.
        queue.unnotified = queue.unnotified.min(queue.messages.len());
        *out = message;
        inner.used -= out.len() + OVERHEAD;
        Ok(Some(true))
    }
}

impl Metrics for MemoryStore {
    fn define(&self, plugin: &[u8], kind: MetricType, name: &[u8]) -> Result<Metric, Refusal> {
        self.define_as(false, plugin, kind, name)
    }

    fn stand_in(&self, plugin: &[u8], function: &[u8], calls: i64) -> Result<(), Refusal> {
        let metric = self.define_as(true, plugin, MetricType::Counter, function)?;
        self.add(metric, calls);
        Ok(())
    }

    fn add(&self, metric: Metric, delta: i64) -> bool {
        let mut inner = self.lock();
        match inner.metrics.get_mut(metric.id as usize) {
            Some(found) if found.kind != MetricType::Histogram => {
                found.number = found.number.wrapping_add(delta.cast_unsigned());
                true
            }
            _ => false,
        }
    }

    fn record(&self, metric: Metric, value: i64) {
        let mut inner = self.lock();
        let Some(found) = inner.metrics.get_mut(metric.id as usize) else { return };
        let number = value.cast_unsigned();
        match found.kind {
            MetricType::Gauge => found.number = number,
            MetricType::Counter => found.number = found.number.wrapping_add(number),
            MetricType::Histogram => {
                found.counts[BUCKETS.partition_point(|end| *end < number)] += 1;
                found.number = found.number.wrapping_add(number);
            }
        }
    }

    fn read(&self, metric: Metric) -> Option<u64> {
        let inner = self.lock();
        let found = inner.metrics.get(metric.id as usize)?;
        (found.kind != MetricType::Histogram).then_some(found.number)
    }

    fn metrics(&self) -> Result<Vec<Series>, Refusal> {
        let inner = self.lock();
        let mut of_library = Vec::new();
        for (plugin, blocks) in &inner.counters {
            let blocks: Vec<&CounterBlock> = blocks.iter().map(|(_, block)| &**block).collect();
            plugin_series(plugin, &blocks, |_| Some(std::process::id()), &mut of_library);
        }
        let (stand_ins, of_guests): (Vec<&Defined>, Vec<&Defined>) =
            inner.metrics.iter().partition(|metric| metric.stand_in);
        of_library
            .extend(stand_ins.iter().map(|m| super::stand_in_series(&m.plugin, &m.name, m.number)));
        Ok(in_order(of_library, of_guests.into_iter().map(Defined::series).collect()))
    }
}

impl Defined {
    fn series(&self) -> Series {
        let name = String::from_utf8_lossy(&self.name).into_owned();
        let (kind, value) = match self.kind {
            MetricType::Counter => (Type::Counter, Value::Number(self.number.into())),
            MetricType::Gauge => (Type::Gauge, Value::Number(self.number.cast_signed().into())),
            MetricType::Histogram => {
                let ends = BUCKETS.iter().map(|end| *end as f64);
                let counts = self.counts.iter().copied();
                (Type::Histogram, Value::histogram(ends, counts, self.number as f64))
            }
        };
        let plugin = String::from_utf8_lossy(&self.plugin).into_owned();
        Series { help: name.clone(), name, kind, labels: vec![("plugin", plugin)], value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_versions_and_bounds() {
        let store = MemoryStore::new(1000);
        let mut out = b"before".to_vec();
        assert_eq!((store.get(b"s", b"k", &mut out), out.len()), (Ok(None), 0));
        assert_eq!(store.set(b"s", b"k", b"one", 9), Ok(1));
        assert_eq!(store.set(b"s", b"k", b"two", 9), Err(Refusal::Mismatch));
        assert_eq!(store.set(b"s", b"k", b"two", 1), Ok(2));
        assert_eq!((store.get(b"s", b"k", &mut out), &*out), (Ok(Some(2)), &b"two"[..]));
        assert_eq!(store.get(b"other", b"k", &mut out), Ok(None));
        assert_eq!(store.set(b"s", b"large", &[0; 1000], 0), Err(Refusal::Full));
        assert_eq!(store.set(b"s", b"k", &[0; 900], 0), Ok(3), "in place of the old one");
        assert_eq!(store.set(b"s", &[0; limits::SHARED_KEY + 1], b"", 0), Err(Refusal::TooLarge));
        assert_eq!(store.keys(b"s", 9), Ok(vec![b"k".to_vec()]));
        assert_eq!((store.delete(b"s", b"k"), store.delete(b"s", b"k")), (Ok(true), Ok(false)));
        assert_eq!(store.lock().used, 0);
    }

    #[test]
    fn messages_come_in_order_to_one_listener() {
        let store = MemoryStore::new(10_000);
        assert_eq!(store.find_queue(b"s", b"q"), Ok(None));
        let id = store.queue(b"s", b"q").expect("room");
        assert_eq!((store.queue(b"s", b"q"), store.queue(b"s", b"r")), (Ok(id), Ok(id + 1)));
        assert_eq!(store.enqueue(id, b"1"), Ok(Some(0)));
        let first = store.listen(id, 7).expect("room").expect("a queue");
        assert_eq!(store.enqueue(id, b"2"), Ok(Some(7)));
        let must_notify = |ticket| store.must_notify(id, ticket).expect("an answer");
        assert_eq!(
            [must_notify(first), must_notify(first), must_notify(first)],
            [true, true, false]
        );
        let second = store.listen(id, 8).expect("room").expect("a queue");
        let mut out = Vec::new();
        assert_eq!((store.dequeue(id, &mut out), &*out), (Ok(Some(true)), &b"1"[..]));
        assert_eq!(
            [must_notify(first), must_notify(second), must_notify(second)],
            [false, true, false]
        );
        assert_eq!((store.dequeue(id, &mut out), &*out), (Ok(Some(true)), &b"2"[..]));
        assert_eq!(store.dequeue(id, &mut out), Ok(Some(false)));
        assert_eq!((store.dequeue(99, &mut out), store.enqueue(0, b"")), (Ok(None), Ok(None)));
        assert_eq!(store.lock().used, 0);
    }

    #[test]
    fn metrics_by_type() {
        let store = MemoryStore::new(0);
        let define = |kind| store.define(b"p", kind, b"m").expect("room");
        let [counter, gauge, histogram] =
            [MetricType::Counter, MetricType::Gauge, MetricType::Histogram].map(define);
        assert!(store.add(counter, 2) && store.add(gauge, -3) && !store.add(histogram, 1));
        [counter, gauge, histogram].iter().for_each(|metric| store.record(*metric, 5));
        assert_eq!([counter, gauge, histogram].map(|m| store.read(m)), [Some(7), Some(5), None]);
        assert_eq!(define(MetricType::Gauge), gauge);
        store.counters("p").callback(crate::abi::Callback::Log);
        let all = store.metrics().expect("metrics");
        let named = |name: &str| all.iter().filter(|series| series.name == name).count();
        assert_eq!((named("m"), named("proxy_wasm_callbacks_total")), (3, 1));
    }
}
