//! What all workers share: values by key, queues, and metrics.
//!
//! [`Shared`] is the whole of it. Underneath, from the bottom: `region` is the mapping, `node` and `heap` are what it
//! holds and where, `lock` and `repair` keep it whole when a worker is killed, `table` finds nodes by name, `fast` makes
//! changes of shared data faster.
//!
//! A worker may be killed at any instruction. Then its lock passes on, and what it changed is made whole
//! by the next holder of the lock: each change is one store of a link, before which the new is complete and after which
//! the old is not needed, or one of which the old value was written down (`fast::replace`). Everything else (which room is
//! taken, what was used last) follows from the nodes.

mod data;
mod fast;
mod heap;
mod layout;
mod lock;
mod metric;
mod node;
mod plan;
mod plugin_counters;
mod process;
mod queue;
mod region;
mod repair;
mod store;
mod sync;
mod table;
mod upstream;
mod verify;
mod wake;

use std::hash::Hasher as _;
use std::io;
use std::sync::Arc;

pub use plugin_counters::PluginCounters;
pub use process::{generation, watch_forks};
pub use region::Region;
pub use repair::Repair;
pub use upstream::CallKind;
pub use wake::PlanNumber;

use fast::back_off::BackOff;
use foldhash::SharedSeed;
use foldhash::quality::FoldHasher;
use layout::Kind;
use lock::Locked;

use crate::store::{Refusal, Series, Type, Value, in_order};

/// See the module. Made before processes are forked; each has its own copy of it over the same region.
pub struct Shared {
    region: Arc<Region>,
    /// They are secret, so that no client can choose names that all fall into one bucket.
    seeds: (u64, SharedSeed),
    on_repair: fn(&Repair),
    back_off: BackOff,
}

impl Shared {
    /// An empty one of that many bytes. `on_repair` is called in the process that had to repair it.
    pub fn new(size: usize, on_repair: fn(&Repair)) -> io::Result<Self> {
        let region = Arc::new(Region::new(size)?);
        let seed = || getrandom::u64().map_err(io::Error::other);
        Ok(Self {
            region,
            seeds: (seed()?, SharedSeed::from_u64(seed()?)),
            on_repair,
            back_off: BackOff::default(),
        })
    }

    /// Its bytes, and how many of them are taken.
    pub fn size(&self) -> Result<(usize, usize), Refusal> {
        let locked = self.lock()?;
        locked.change(|| locked.free_spare());
        Ok((self.region.size(), locked.used()))
    }

    /// All metrics: our own first, then those of guests, each by name, type and labels.
    pub fn metrics(&self) -> Result<Vec<Series>, Refusal> {
        let locked = self.lock()?;
        let (mut own, of_guests) = (locked.own_metrics(), locked.metrics());
        own.append(&mut locked.upstream_metrics());
        own.extend(locked.stand_ins());
        own.append(&mut locked.queue_metrics());
        let used = locked.used();
        drop(locked);
        for (name, help, bytes) in [
            ("proxy_wasm_shared_memory_bytes", "Memory that workers share", self.region.size()),
            ("proxy_wasm_shared_memory_used_bytes", "What is taken of it", used),
        ] {
            own.push(Series {
                name: name.into(),
                help: help.into(),
                kind: Type::Gauge,
                labels: Vec::new(),
                value: Value::Number(bytes as i128),
            });
        }
        own.push(Series {
            name: "proxy_wasm_build_info".into(),
            help: "The library: always 1".into(),
            kind: Type::Gauge,
            labels: vec![
                ("version", env!("CARGO_PKG_VERSION").into()),
                ("arch", std::env::consts::ARCH.into()),
            ],
            value: Value::Number(1),
        });
        Ok(in_order(own, of_guests))
    }

    fn hash(&self, kind: Kind, space: &[u8], key: &[u8]) -> u32 {
        // The length keeps apart where one ends and the other begins.
        let what = (space.len() as u64) << 8 | kind as u64;
        let mut hasher = FoldHasher::with_seed(self.seeds.0 ^ what, &self.seeds.1);
        if !space.is_empty() {
            hasher.write(space);
        }
        hasher.write(key);
        // Half of it is enough for buckets, and to tell most names apart.
        hasher.finish() as u32
    }

    #[inline]
    fn lock(&self) -> Result<Locked<'_>, Refusal> {
        let locked = Locked::take(&self.region)?;
        if locked.is_torn() {
            self.repair(&locked);
        }
        Ok(locked)
    }

    #[cold]
    fn repair(&self, locked: &Locked<'_>) {
        let repair = locked.change(|| locked.repair());
        (self.on_repair)(&repair);
    }
}
