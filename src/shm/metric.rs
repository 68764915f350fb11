//! Metrics that guests define. They are counted without the lock, and so are never taken back.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::layout::{Kind, Link};
use super::lock::Locked;
use super::node::Parts;
use super::region::Shareable;
use super::{Refusal, Shared};
use crate::abi::MetricType;
use crate::limits;
use crate::store::{BUCKETS, Metric, Series, Type, Value, stand_in_series};

/// What a histogram counts.
#[repr(C)]
struct Histogram {
    /// How many values fell into each bucket; the last one is for what is more.
    counts: [AtomicU64; BUCKETS.len() + 1],
    sum: AtomicU64,
}

// SAFETY: made of atomics.
unsafe impl Shareable for Histogram {}

/// In place of the type: the name is that of a function which this host does not have.
const STAND_IN: u8 = u8::MAX;

impl Shared {
    /// The metric of that name, type and plugin; made when there is none.
    pub fn define(&self, plugin: &[u8], kind: MetricType, name: &[u8]) -> Result<Metric, Refusal> {
        // Another type makes another metric: the name may have changed its type with a reload, while the old one counts.
        self.define_as(kind as u8, plugin, kind, name)
    }

    /// Counts calls of a function that the host does not have, from 0 on. It counts among the metrics of its plugin.
    pub fn stand_in(&self, plugin: &[u8], function: &[u8], calls: i64) -> Result<(), Refusal> {
        let metric = self.define_as(STAND_IN, plugin, MetricType::Counter, function)?;
        self.add(metric, calls);
        Ok(())
    }

    fn define_as(
        &self,
        tag: u8,
        plugin: &[u8],
        kind: MetricType,
        name: &[u8],
    ) -> Result<Metric, Refusal> {
        if name.len() >= limits::SHARED_KEY {
            return Err(Refusal::TooLarge);
        }
        let key = [&[tag], name].concat();
        let hash = self.hash(Kind::Metric, plugin, &key);
        let count_hash = self.hash(Kind::Count, plugin, b"");
        let locked = self.lock()?;
        let place = locked.find(Kind::Metric, hash, plugin, &key);
        if place.link != 0 {
            return Ok(Metric { id: place.link, kind });
        }
        locked.change(|| {
            let count = locked.find(Kind::Count, count_hash, plugin, b"");
            let count = if count.link == 0 {
                locked.add(Kind::Count, count_hash, plugin, b"", &[0; 8])?
            } else {
                count.link
            };
            let count = locked.value::<AtomicU64>(count).ok_or(Refusal::Full)?;
            if count.load(Relaxed) >= limits::METRIC_NAMES {
                return Err(Refusal::TooMany);
            }
            let size = match kind {
                MetricType::Histogram => size_of::<Histogram>(),
                MetricType::Counter | MetricType::Gauge => size_of::<AtomicU64>(),
            };
            let value = &[0; size_of::<Histogram>()][..size];
            let link = locked.add(Kind::Metric, hash, plugin, &key, value)?;
            count.store(count.load(Relaxed) + 1, Relaxed);
            Ok(Metric { id: link, kind })
        })
    }

    /// Adds to a counter or a gauge; false when it is neither.
    pub fn add(&self, metric: Metric, delta: i64) -> bool {
        match self.region.value::<AtomicU64>(metric.id) {
            Some(value) if metric.kind != MetricType::Histogram => {
                value.fetch_add(delta.cast_unsigned(), Relaxed);
                true
            }
            _ => false,
        }
    }

    /// Adds to a counter, sets a gauge, or puts a value into a histogram.
    pub fn record(&self, metric: Metric, value: i64) {
        let number = value.cast_unsigned();
        if metric.kind == MetricType::Histogram {
            if let Some(histogram) = self.region.value::<Histogram>(metric.id) {
                let bucket = BUCKETS.partition_point(|end| *end < number);
                histogram.counts[bucket].fetch_add(1, Relaxed);
                histogram.sum.fetch_add(number, Relaxed);
            }
        } else if let Some(counted) = self.region.value::<AtomicU64>(metric.id) {
            match metric.kind {
                MetricType::Counter => {
                    counted.fetch_add(number, Relaxed);
                }
                _ => counted.store(number, Relaxed),
            }
        }
    }

    /// What a counter or a gauge shows; `None` for a histogram.
    pub fn read(&self, metric: Metric) -> Option<u64> {
        let counts = metric.kind != MetricType::Histogram;
        let value = self.region.value::<AtomicU64>(metric.id).filter(|_| counts)?;
        Some(value.load(Relaxed))
    }
}

impl Locked<'_> {
    /// Adds a node of that name, of which there is none yet.
    pub(super) fn add(
        &self,
        kind: Kind,
        hash: u32,
        space: &[u8],
        key: &[u8],
        value: &[u8],
    ) -> Result<Link, Refusal> {
        let parts = Parts { kind, hash, tag: 0, value, space, key };
        let link = self.make(&parts).ok_or(Refusal::Full)?;
        let place = self.find(kind, hash, space, key);
        self.put(place, link);
        Ok(link)
    }

    /// All metrics of guests.
    pub(super) fn metrics(&self) -> Vec<Series> {
        let mut all = Vec::new();
        self.for_each(|link, node| {
            if node.is(Kind::Metric)
                && let Some((kind, name)) = self.key_of(link, node).split_first()
                && let Ok(kind) = MetricType::try_from(u32::from(*kind))
                && let Some(value) = self.series_value(link, kind)
            {
                let plugin = String::from_utf8_lossy(self.space_of(link, node)).into_owned();
                let name = String::from_utf8_lossy(name).into_owned();
                all.push(Series {
                    help: name.clone(),
                    name,
                    kind: match kind {
                        MetricType::Counter => Type::Counter,
                        MetricType::Gauge => Type::Gauge,
                        MetricType::Histogram => Type::Histogram,
                    },
                    labels: vec![("plugin", plugin)],
                    value,
                });
            }
        });
        all
    }

    /// The functions that the host does not have and modules ask for.
    pub(super) fn stand_ins(&self) -> Vec<Series> {
        let mut all = Vec::new();
        self.for_each(|link, node| {
            if node.is(Kind::Metric)
                && let Some((&STAND_IN, name)) = self.key_of(link, node).split_first()
                && let Some(calls) = self.value::<AtomicU64>(link)
            {
                all.push(stand_in_series(self.space_of(link, node), name, calls.load(Relaxed)));
            }
        });
        all
    }

    fn series_value(&self, link: Link, kind: MetricType) -> Option<Value> {
        let number = || self.value::<AtomicU64>(link).map(|value| value.load(Relaxed));
        Some(match kind {
            MetricType::Counter => Value::Number(number()?.into()),
            MetricType::Gauge => Value::Number(number()?.cast_signed().into()),
            MetricType::Histogram => {
                let histogram = self.value::<Histogram>(link)?;
                let counts = histogram.counts.iter().map(|count| count.load(Relaxed));
                let ends = BUCKETS.iter().map(|end| *end as f64);
                Value::histogram(ends, counts, histogram.sum.load(Relaxed) as f64)
            }
        })
    }
}
