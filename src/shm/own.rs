//! Metrics of our own: what plugins do, counted by each worker for itself.
//!
//! A counter that one process writes needs no atomic addition, so each process has a block of its own for each plugin. A
//! process that ended leaves its number, and its blocks with what they count, to a new one: nothing counted is lost.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::lock::Locked;
use super::node::Kind;
use super::process::Process;
use super::region::{Link, Region, Shareable};
use super::series::{Series, Type, Value};
use super::{Refusal, Shared};
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
}

type Label = Option<(&'static str, &'static str)>;

/// Each with its name, its help and a label.
const COUNTS: [(Count, &str, &str, Label); 10] = [
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
    (Count::FailedCalls, "proxy_wasm_failed_calls_total", FAILED_CALLS, HTTP),
    (Count::FailedGrpcCalls, "proxy_wasm_failed_calls_total", FAILED_CALLS, GRPC),
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
const GRPC: Label = Some(("kind", "grpc"));
const LIMITS: &str = "Limits that filters ran into";

/// See the module.
#[repr(C)]
#[derive(Default)]
struct Block {
    callbacks: [AtomicU64; Callback::ALL.len()],
    counts: [AtomicU64; COUNTS.len()],
    times: [AtomicU64; TIMES.len() + 1],
    /// Nanoseconds.
    time: AtomicU64,
    /// Bytes that the plugin's VMs have in the process that writes the block.
    memory: AtomicU64,
    /// That process, as bits.
    process: AtomicU64,
}

// SAFETY: made of atomics.
unsafe impl Shareable for Block {}

/// Where one process counts what one plugin does.
pub struct Own {
    shared: Option<(Arc<Region>, Link)>,
    /// Written when there is no shared one, and read by nobody.
    private: Block,
}

impl Own {
    fn block(&self) -> &Block {
        let shared = self.shared.as_ref().and_then(|(region, link)| region.value(*link));
        shared.unwrap_or(&self.private)
    }

    /// A callback is run.
    pub fn callback(&self, callback: Callback) {
        add(&self.block().callbacks[callback as usize], 1);
    }

    /// A callback took that many nanoseconds, and stands for as many as `weight`.
    pub fn time(&self, nanoseconds: u64, weight: u64) {
        let block = self.block();
        let bucket = TIMES.partition_point(|end| *end < nanoseconds);
        add(&block.times[bucket], weight);
        add(&block.time, nanoseconds.saturating_mul(weight));
    }

    /// Something happened.
    pub fn count(&self, count: Count) {
        add(&self.block().counts[count as usize], 1);
    }

    /// A VM's memory has grown.
    pub fn memory_grows(&self, bytes: usize) {
        add(&self.block().memory, bytes as u64);
    }

    /// A VM is gone with its memory. One that this process inherited is another one's.
    pub fn memory_goes(&self, bytes: usize) {
        let block = self.block();
        if Process::from_bits(block.process.load(Relaxed)).id == std::process::id() {
            block.memory.store(block.memory.load(Relaxed).saturating_sub(bytes as u64), Relaxed);
        }
    }
}

impl Default for Own {
    /// One that nobody reads.
    fn default() -> Self {
        Self { shared: None, private: Block::default() }
    }
}

/// This process alone writes it, and on one thread.
fn add(number: &AtomicU64, more: u64) {
    number.store(number.load(Relaxed).wrapping_add(more), Relaxed);
}

impl Shared {
    /// Where this process counts what a plugin does.
    pub fn own(&self, plugin: &str) -> Own {
        let link = self.own_block(plugin.as_bytes()).ok();
        Own { shared: link.map(|link| (self.region.clone(), link)), private: Block::default() }
    }

    fn own_block(&self, plugin: &[u8]) -> Result<Link, Refusal> {
        let locked = self.lock()?;
        let me = self.region.number()?;
        let number = me.to_le_bytes();
        let me = self.region.process(me).to_bits();
        let hash = self.hash(Kind::Own, plugin, &number);
        let place = locked.find(Kind::Own, hash, plugin, &number);
        let link = match place.link {
            0 => locked.change(|| {
                locked.add(Kind::Own, hash, plugin, &number, &[0; size_of::<Block>()])
            })?,
            link => link,
        };
        if let Some(block) = locked.value::<Block>(link)
            && block.process.load(Relaxed) != me
        {
            // It was another's, which ended.
            block.memory.store(0, Relaxed);
            block.process.store(me, Relaxed);
        }
        Ok(link)
    }
}

impl Locked<'_> {
    /// What all processes counted, for each plugin.
    pub(super) fn own_metrics(&self) -> Vec<Series> {
        let mut blocks: Vec<(String, &Block)> = Vec::new();
        self.for_each(|link, node| {
            if node.is(Kind::Own)
                && let Some(block) = self.value::<Block>(link)
            {
                let plugin = String::from_utf8_lossy(self.space_of(link, node)).into_owned();
                blocks.push((plugin, block));
            }
        });
        blocks.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut all = Vec::new();
        for of_plugin in blocks.chunk_by(|(a, _), (b, _)| a == b) {
            plugin_series(of_plugin, &mut all);
        }
        all
    }
}

fn plugin_series(blocks: &[(String, &Block)], all: &mut Vec<Series>) {
    let plugin = || ("plugin", blocks[0].0.clone());
    let sum = |f: &dyn Fn(&Block) -> &AtomicU64| -> u64 {
        blocks.iter().map(|(_, block)| f(block).load(Relaxed)).fold(0, u64::wrapping_add)
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
    for (_, block) in blocks {
        let process = Process::from_bits(block.process.load(Relaxed));
        if !process.is_gone() {
            push(
                "proxy_wasm_vm_memory_bytes",
                "Memory that the VMs of a process have",
                Type::Gauge,
                Some(("pid", process.id.to_string())),
                Value::Number(block.memory.load(Relaxed).into()),
            );
        }
    }
}

const NANOS: f64 = 1e9;
