//! What a process has of a plugin: which module runs in it, since when, how much of it lives, and what went wrong last.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::series::{Type, Value};

const DIGEST: usize = 32;
/// Bytes that are kept of an error.
const ERROR: usize = 256;

/// Where code comes from, in the order of [`Origin`](crate::vm::Origin).
const ORIGINS: [&str; 4] = ["memory", "shared", "cache_dir", "compiled"];
const COMPILED: usize = 3;
/// Upper ends of the buckets of the time that compiles take, in seconds.
const COMPILES: [f64; 9] = [0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// The same of the time that VMs take to start.
const STARTS: [f64; 8] = [0.0001, 0.0005, 0.001, 0.005, 0.025, 0.1, 1.0, 10.0];
const NANOS: f64 = 1e9;

/// See the module. As a part of a [`CounterBlock`](super::CounterBlock), written as that is. Times are seconds of Unix time.
#[repr(C)]
#[derive(Default)]
pub struct PresenceBlock {
    contexts: AtomicU64,
    streams: AtomicU64,
    memory_limit: AtomicU64,
    digest: [AtomicU64; DIGEST / 8],
    since: AtomicU64,
    version: AtomicU64,
    /// 1 when something went wrong since.
    failing: AtomicU64,
    error_at: AtomicU64,
    error: [AtomicU64; ERROR / 8],
    loading: AtomicU64,
    loading_since: AtomicU64,
    /// Stage, functions that are compiled, and all of them.
    loading_at: [AtomicU64; 3],
    origins: [AtomicU64; ORIGINS.len()],
    compiles: [AtomicU64; COMPILES.len() + 1],
    /// Nanoseconds.
    compile_time: AtomicU64,
    starts: [AtomicU64; STARTS.len() + 1],
    /// Nanoseconds.
    start_time: AtomicU64,
}

/// A plugin as one process has it. Times are seconds of Unix time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// The plugin's name.
    pub name: String,
    /// The process.
    pub pid: u32,
    /// SHA-256 of the module that its last VM runs.
    pub digest: [u8; DIGEST],
    /// The number of the plan that brought it; 0 for the module that was loaded.
    pub version: u64,
    /// When that VM started.
    pub since: u64,
    /// Plugin contexts that are alive.
    pub contexts: u64,
    /// Streams that are alive.
    pub streams: u64,
    /// Bytes of memory that its VMs have.
    pub memory: u64,
    /// Bytes that one of them may have.
    pub memory_limit: u64,
    /// VMs that were lost, also in processes of before whose place this one has.
    pub traps: u64,
    /// Something went wrong since that VM started.
    pub failing: bool,
    /// Loads of modules in the background that are under way.
    pub loading: u64,
    /// Since when the first of them is.
    pub loading_since: u64,
    /// What the last of them is at, a [`Stage`](crate::vm::Stage) as a number, how many functions are compiled, and of how many.
    pub loading_at: [u64; 3],
    /// The last thing that went wrong, empty for nothing.
    pub error: String,
    /// When.
    pub error_at: u64,
}

impl PresenceBlock {
    /// A VM starts that runs this module and may have that much memory.
    pub fn code(&self, digest: &[u8; DIGEST], memory_limit: usize, now: u64) {
        write(&self.digest, digest);
        self.memory_limit.store(memory_limit as u64, Relaxed);
        self.since.store(now, Relaxed);
        self.failing.store(0, Relaxed);
    }

    /// The module that runs was brought by the plan of that number.
    pub fn version(&self, plan: u64) {
        self.version.store(plan, Relaxed);
    }

    /// Something went wrong.
    pub fn error(&self, text: &str, now: u64) {
        write(&self.error, &text.as_bytes()[..text.floor_char_boundary(ERROR)]);
        self.error_at.store(now, Relaxed);
        self.failing.store(1, Relaxed);
    }

    /// Another number of plugin contexts and streams is alive in a VM.
    pub fn alive(&self, before: (usize, usize), now: (usize, usize)) {
        change(&self.contexts, before.0, now.0);
        self.streams(before.1, now.1);
    }

    /// Another number of streams is alive in a VM.
    #[inline]
    pub fn streams(&self, before: usize, now: usize) {
        change(&self.streams, before, now);
    }

    /// Code was found in memory (0), in that of another process (1), in the store (2), or compiled (3), which took so long.
    pub fn found(&self, origin: usize, nanoseconds: u64) {
        if let Some(count) = self.origins.get(origin) {
            count.store(number(count) + 1, Relaxed);
        }
        if origin == COMPILED {
            time(&COMPILES, &self.compiles, &self.compile_time, nanoseconds);
        }
    }

    /// A VM was made and its start code has run, which took so long.
    pub fn started(&self, nanoseconds: u64) {
        time(&STARTS, &self.starts, &self.start_time, nanoseconds);
    }

    /// A load in the background begins.
    pub fn loading_begins(&self, now: u64) {
        if number(&self.loading) == 0 {
            self.loading_since.store(now, Relaxed);
        }
        change(&self.loading, 0, 1);
        self.loading_is_at([0; 3]);
    }

    /// How far a load in the background is.
    pub fn loading_is_at(&self, now: [u64; 3]) {
        self.loading_at.iter().zip(now).for_each(|(at, now)| at.store(now, Relaxed));
    }

    /// A load in the background is over.
    pub fn loading_ends(&self) {
        change(&self.loading, 1, 0);
    }

    /// Another process takes the block: what it counts stays, what it says of the one before goes.
    pub fn take_over(&self) {
        for number in [
            &self.contexts,
            &self.streams,
            &self.since,
            &self.version,
            &self.failing,
            &self.error_at,
            &self.loading,
            &self.loading_since,
        ] {
            number.store(0, Relaxed);
        }
    }

    /// What it says. `None` when its process has had neither a VM nor a load.
    pub(super) fn read(&self, name: String, pid: u32, memory: u64, traps: u64) -> Option<Presence> {
        if number(&self.since) == 0 && number(&self.loading) == 0 {
            return None;
        }
        let error_at = number(&self.error_at);
        let error: [u8; ERROR] = if error_at == 0 { [0; ERROR] } else { read(&self.error) };
        let end = error.iter().position(|byte| *byte == 0).unwrap_or(ERROR);
        Some(Presence {
            name,
            pid,
            digest: read(&self.digest),
            version: number(&self.version),
            since: number(&self.since),
            contexts: number(&self.contexts),
            streams: number(&self.streams),
            memory,
            memory_limit: number(&self.memory_limit),
            traps,
            failing: number(&self.failing) != 0,
            loading: number(&self.loading),
            loading_since: number(&self.loading_since),
            loading_at: [0, 1, 2].map(|at| number(&self.loading_at[at])),
            error: String::from_utf8_lossy(&error[..end]).into_owned(),
            error_at,
        })
    }
}

/// A metric: name, help, label and value.
type Pushed = (&'static str, &'static str, Type, Option<(&'static str, String)>, Value);

/// The metrics of a plugin, from what all processes have of it.
pub(super) fn totals(blocks: &[&PresenceBlock], mut push: impl FnMut(Pushed)) {
    let sum = |f: &dyn Fn(&PresenceBlock) -> &AtomicU64| -> u64 {
        blocks.iter().map(|block| number(f(block))).fold(0, u64::wrapping_add)
    };
    let compiles = (0..=COMPILES.len()).map(|at| sum(&|block| &block.compiles[at]));
    let time = sum(&|block| &block.compile_time) as f64 / NANOS;
    push((
        "proxy_wasm_compile_seconds",
        "Time of loads whose module was compiled",
        Type::Histogram,
        None,
        Value::histogram(COMPILES.into_iter(), compiles, time),
    ));
    let starts = (0..=STARTS.len()).map(|at| sum(&|block| &block.starts[at]));
    let time = sum(&|block| &block.start_time) as f64 / NANOS;
    push((
        "proxy_wasm_vm_start_seconds",
        "Time that VMs took to be made and to run their start code",
        Type::Histogram,
        None,
        Value::histogram(STARTS.into_iter(), starts, time),
    ));
    for (at, origin) in ORIGINS.iter().enumerate() {
        push((
            "proxy_wasm_loads_total",
            "Modules that were loaded, by where their code came from",
            Type::Counter,
            Some(("origin", (*origin).into())),
            Value::Number(sum(&|block| &block.origins[at]).into()),
        ));
    }
}

/// The metrics of a plugin in one process.
pub(super) fn of_process(block: &PresenceBlock, pid: u32, mut push: impl FnMut(Pushed)) {
    for (name, help, count) in [
        ("proxy_wasm_contexts", "Plugin contexts that are alive in a process", &block.contexts),
        ("proxy_wasm_streams", "Streams that are alive in a process", &block.streams),
        (
            "proxy_wasm_loading",
            "Loads in the background that are under way in a process",
            &block.loading,
        ),
    ] {
        let label = Some(("pid", pid.to_string()));
        push((name, help, Type::Gauge, label, Value::Number(number(count).into())));
    }
}

/// Counts a time in a histogram.
fn time(ends: &[f64], buckets: &[AtomicU64], sum: &AtomicU64, nanoseconds: u64) {
    let seconds = nanoseconds as f64 / NANOS;
    let bucket = &buckets[ends.partition_point(|end| *end < seconds)];
    bucket.store(number(bucket) + 1, Relaxed);
    sum.store(number(sum) + nanoseconds, Relaxed);
}

fn number(of: &AtomicU64) -> u64 {
    of.load(Relaxed)
}

#[inline]
fn change(of: &AtomicU64, before: usize, now: usize) {
    let changed = number(of).saturating_add(now as u64).saturating_sub(before as u64);
    of.store(changed, Relaxed);
}

/// Fills words with these bytes, and with zeros behind them.
fn write(words: &[AtomicU64], bytes: &[u8]) {
    for (at, word) in words.iter().enumerate() {
        let mut part = [0; 8];
        let rest = bytes.get(at * 8..).unwrap_or_default();
        let length = rest.len().min(8);
        part[..length].copy_from_slice(&rest[..length]);
        word.store(u64::from_ne_bytes(part), Relaxed);
    }
}

fn read<const N: usize>(words: &[AtomicU64]) -> [u8; N] {
    let mut bytes = [0; N];
    let words = words.iter().map(|word| number(word).to_ne_bytes());
    bytes.chunks_exact_mut(8).zip(words).for_each(|(part, word)| part.copy_from_slice(&word));
    bytes
}
