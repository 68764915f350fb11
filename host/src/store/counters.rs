//! Metrics of the library: what plugins do.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::presence::{self, Presence, PresenceBlock};
use super::series::{Series, Type, Value};
use crate::abi::Callback;

/// Upper ends of the buckets of the time that callbacks take, in nanoseconds.
const TIMES: [u64; 15] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    100_000_000,
    1_000_000_000,
];

/// What is counted beside callbacks and their time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// VMs that ended in a trap, an exit or by a limit.
    Traps,
    /// Callbacks that a time limit stopped.
    TimeLimits,
    /// Memory or tables that were refused to a guest.
    MemoryLimits,
    /// Requests that waited for longer than `pause_timeout`.
    PauseLimits,
    /// VMs that took the place of one that was lost.
    Rebuilds,
    /// Calls that guests made.
    Calls,
    /// Those that failed.
    FailedCalls,
    /// Calls of functions that the host does not have.
    StandIns,
    /// Calls and streams of gRPC that guests began.
    GrpcCalls,
    /// Those that failed.
    FailedGrpcCalls,
    /// Redis calls that guests made.
    RedisCalls,
    /// Those that failed.
    FailedRedisCalls,
}

type Label = Option<(&'static str, &'static str)>;

/// Each with its name, its help and a label.
const COUNTS: [(Count, &str, &str, Label); 12] = [
    (
        Count::Traps,
        "proxy_wasm_traps_total",
        "VMs that ended in a trap, an exit or by a limit",
        None,
    ),
    (Count::TimeLimits, "proxy_wasm_limits_total", LIMITS, Some(("limit", "time"))),
    (Count::MemoryLimits, "proxy_wasm_limits_total", LIMITS, Some(("limit", "memory"))),
    (Count::PauseLimits, "proxy_wasm_limits_total", LIMITS, Some(("limit", "pause"))),
    (Count::Rebuilds, "proxy_wasm_rebuilds_total", "VMs that took the place of a lost one", None),
    (Count::Calls, "proxy_wasm_calls_total", CALLS, HTTP),
    (Count::GrpcCalls, "proxy_wasm_calls_total", CALLS, GRPC),
    (Count::RedisCalls, "proxy_wasm_calls_total", CALLS, REDIS),
    (Count::FailedCalls, "proxy_wasm_failed_calls_total", FAILED_CALLS, HTTP),
    (Count::FailedGrpcCalls, "proxy_wasm_failed_calls_total", FAILED_CALLS, GRPC),
    (Count::FailedRedisCalls, "proxy_wasm_failed_calls_total", FAILED_CALLS, REDIS),
    (
        Count::StandIns,
        "proxy_wasm_stand_ins_total",
        "Calls of functions that the host does not have",
        None,
    ),
];
const CALLS: &str = "Calls that filters made";
const FAILED_CALLS: &str = "Calls of filters that failed";
const HTTP: Label = Some(("kind", "http"));
const REDIS: Label = Some(("kind", "redis"));
const GRPC: Label = Some(("kind", "grpc"));
const LIMITS: &str = "Limits that filters ran into";

/// The counters of one plugin in one process, as they may lie in memory that processes share. One process writes it, on one
/// thread, so that no addition needs to be atomic. All zero is an empty one.
#[repr(C)]
#[derive(Default)]
pub struct CounterBlock {
    callbacks: [AtomicU64; Callback::ALL.len()],
    counts: [AtomicU64; COUNTS.len()],
    times: [AtomicU64; TIMES.len() + 1],
    /// Nanoseconds.
    time: AtomicU64,
    /// Bytes that the plugin's VMs have in the process that writes the block.
    pub memory: AtomicU64,
    /// That process, in a form of the store's own.
    pub process: AtomicU64,
    /// What that process has of the plugin.
    pub presence: PresenceBlock,
}

/// Counts what one plugin does in one process.
pub trait Counters: Send + Sync {
    /// A callback is run.
    fn callback(&self, callback: Callback);
    /// A callback took that many nanoseconds, and stands for as many as `weight`.
    fn time(&self, nanoseconds: u64, weight: u64);
    /// Something happened.
    fn count(&self, count: Count);
    /// A VM's memory has grown.
    fn memory_grows(&self, bytes: usize);
    /// A VM is gone with its memory.
    fn memory_goes(&self, bytes: usize);
    /// Where this process says what it has of the plugin; `None` when no one reads that.
    fn presence(&self) -> Option<&PresenceBlock> {
        None
    }
}

impl CounterBlock {
    /// The number of bytes that its VMs have.
    fn memory(&self) -> u64 {
        self.memory.load(Relaxed)
    }

    /// What the process of that id has of the plugin of that name. `None` when it has had neither a VM nor a load.
    pub fn read_presence(&self, plugin: String, pid: u32) -> Option<Presence> {
        let traps = COUNTS.iter().position(|(count, ..)| *count == Count::Traps);
        let traps = traps.map_or(0, |at| self.counts[at].load(Relaxed));
        self.presence.read(plugin, pid, self.memory(), traps)
    }
}

impl Counters for CounterBlock {
    #[inline]
    fn callback(&self, callback: Callback) {
        add(&self.callbacks[callback as usize], 1);
    }

    fn time(&self, nanoseconds: u64, weight: u64) {
        let bucket = TIMES.partition_point(|end| *end < nanoseconds);
        add(&self.times[bucket], weight);
        add(&self.time, nanoseconds.saturating_mul(weight));
    }

    fn count(&self, count: Count) {
        add(&self.counts[count as usize], 1);
    }

    fn memory_grows(&self, bytes: usize) {
        add(&self.memory, bytes as u64);
    }

    fn memory_goes(&self, bytes: usize) {
        self.memory.store(self.memory().saturating_sub(bytes as u64), Relaxed);
    }

    fn presence(&self) -> Option<&PresenceBlock> {
        Some(&self.presence)
    }
}

/// One process alone writes it, and on one thread.
#[inline]
fn add(number: &AtomicU64, more: u64) {
    number.store(number.load(Relaxed).wrapping_add(more), Relaxed);
}

/// Counts nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCounters;

impl Counters for NoCounters {
    fn callback(&self, _: Callback) {}
    fn time(&self, _: u64, _: u64) {}
    fn count(&self, _: Count) {}
    fn memory_grows(&self, _: usize) {}
    fn memory_goes(&self, _: usize) {}
}

/// The metrics of a plugin, from its blocks in all processes. `process` tells the id of the process that writes a block;
/// `None` when it has ended.
pub fn plugin_series(
    plugin: &str,
    blocks: &[&CounterBlock],
    process: impl Fn(&CounterBlock) -> Option<u32>,
    all: &mut Vec<Series>,
) {
    let plugin = || ("plugin", plugin.to_string());
    let sum = |f: &dyn Fn(&CounterBlock) -> &AtomicU64| -> u64 {
        blocks.iter().map(|block| f(block).load(Relaxed)).fold(0, u64::wrapping_add)
    };
    let mut push = |name: &str, help: &str, kind, label: Option<(&'static str, String)>, value| {
        let labels = std::iter::once(plugin()).chain(label).collect();
        all.push(Series { name: name.into(), help: help.into(), kind, labels, value });
    };
    for callback in Callback::ALL {
        let count = sum(&|block| &block.callbacks[*callback as usize]);
        if count > 0 {
            push(
                "proxy_wasm_callbacks_total",
                "Callbacks of filters that were run",
                Type::Counter,
                Some(("callback", callback.name().into())),
                Value::Number(count.into()),
            );
        }
    }
    let times: Vec<u64> = (0..=TIMES.len()).map(|at| sum(&|block| &block.times[at])).collect();
    let ends = TIMES.iter().map(|end| *end as f64 / NANOS);
    push(
        "proxy_wasm_callback_seconds",
        "Time that callbacks took, an estimate from a sample",
        Type::Histogram,
        None,
        Value::histogram(ends, times.into_iter(), sum(&|block| &block.time) as f64 / NANOS),
    );
    for (count, name, help, label) in COUNTS {
        let value = Value::Number(sum(&|block| &block.counts[count as usize]).into());
        push(name, help, Type::Counter, label.map(|(name, value)| (name, value.into())), value);
    }
    let presences: Vec<&PresenceBlock> = blocks.iter().map(|block| &block.presence).collect();
    presence::totals(&presences, |(name, help, kind, label, value)| {
        push(name, help, kind, label, value);
    });
    for block in blocks {
        if let Some(id) = process(block) {
            presence::of_process(&block.presence, id, |(name, help, kind, label, value)| {
                push(name, help, kind, label, value);
            });
        }
    }
    let mut memory: BTreeMap<u32, u64> = BTreeMap::new();
    for block in blocks {
        if let Some(id) = process(block) {
            *memory.entry(id).or_default() += block.memory();
        }
    }
    for (id, bytes) in memory {
        push(
            "proxy_wasm_vm_memory_bytes",
            "Memory that the VMs of a process have",
            Type::Gauge,
            Some(("pid", id.to_string())),
            Value::Number(bytes.into()),
        );
    }
}

const NANOS: f64 = 1e9;
