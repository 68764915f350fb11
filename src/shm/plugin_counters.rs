//! The counters of plugins in shared memory.
//!
//! A counter that one process writes needs no atomic addition, so each process has a block of its own for each plugin. A
//! process that ended leaves its number, and its blocks with what they count, to a new one: nothing counted is lost.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Shared;
use super::layout::{Kind, Link};
use super::lock::Locked;
use super::process::{Process, generation};
use super::region::{Region, Shareable};
use crate::abi::Callback;
use crate::store::{
    Count, CounterBlock, Counters, Presence, PresenceBlock, Refusal, Series, plugin_series,
};

// SAFETY: made of atomics.
unsafe impl Shareable for CounterBlock {}

/// Where one process counts what one plugin does.
pub struct PluginCounters {
    shared: Option<Place>,
    /// Written when there is no shared one. Nothing reads it.
    private: CounterBlock,
    /// See [`generation`]. To ask for the process's id would be a call of the kernel, several for each request.
    made_in: u32,
}

/// Where the block is. It stays there: nothing removes one, and the mapping lives as long as this.
struct Place {
    block: NonNull<CounterBlock>,
    _region: Arc<Region>,
}

// SAFETY: the block is made of atomics, and the region can be sent and shared.
unsafe impl Send for Place {}
// SAFETY: as above.
unsafe impl Sync for Place {}

impl PluginCounters {
    #[inline]
    fn block(&self) -> &CounterBlock {
        match &self.shared {
            // SAFETY: it was found in the region, which is mapped as long as this lives.
            Some(place) => unsafe { place.block.as_ref() },
            None => &self.private,
        }
    }

    /// Whether this process made it. A VM that a process inherited is another one's.
    #[inline]
    fn is_ours(&self) -> bool {
        self.shared.is_some() && self.made_in == generation()
    }
}

impl Counters for PluginCounters {
    fn callback(&self, callback: Callback) {
        self.block().callback(callback);
    }

    fn time(&self, nanoseconds: u64, weight: u64) {
        self.block().time(nanoseconds, weight);
    }

    fn count(&self, count: Count) {
        self.block().count(count);
    }

    fn memory_grows(&self, bytes: usize) {
        self.block().memory_grows(bytes);
    }

    fn memory_goes(&self, bytes: usize) {
        if self.is_ours() {
            self.block().memory_goes(bytes);
        }
    }

    fn presence(&self) -> Option<&PresenceBlock> {
        self.is_ours().then(|| &self.block().presence)
    }
}

impl Default for PluginCounters {
    /// One that nothing reads.
    fn default() -> Self {
        Self { shared: None, private: CounterBlock::default(), made_in: generation() }
    }
}

impl Shared {
    /// The ids of the processes that use the region, this one among them, and of some that have ended.
    pub fn processes(&self) -> Vec<u32> {
        let _ = self.region.number();
        let all = self.region.header().processes.iter();
        let ids = all.map(|process| Process::from_bits(process.load(Relaxed)).id);
        ids.filter(|id| *id != 0).collect()
    }

    /// The plugins of all processes that live, by name and process.
    pub fn presences(&self) -> Result<Vec<Presence>, Refusal> {
        let locked = self.lock()?;
        let mut all: Vec<Presence> = Vec::new();
        locked.for_each(|link, node| {
            if node.is(Kind::PluginCounters)
                && let Some(block) = locked.value::<CounterBlock>(link)
            {
                let process = Process::from_bits(block.process.load(Relaxed));
                let name = String::from_utf8_lossy(locked.space_of(link, node)).into_owned();
                // The master starts plugins only to see that they start.
                if process.id != std::os::unix::process::parent_id() && !process.is_gone() {
                    all.extend(block.read_presence(name, process.id));
                }
            }
        });
        all.sort_by(|a, b| (&a.name, a.pid).cmp(&(&b.name, b.pid)));
        Ok(all)
    }

    /// Where this process counts what a plugin does.
    pub fn own(&self, plugin: &str) -> PluginCounters {
        let link = self.own_block(plugin.as_bytes()).ok();
        let block = link.and_then(|link| self.region.value(link)).map(NonNull::from);
        let shared = block.map(|block| Place { block, _region: self.region.clone() });
        PluginCounters { shared, ..PluginCounters::default() }
    }

    fn own_block(&self, plugin: &[u8]) -> Result<Link, Refusal> {
        let locked = self.lock()?;
        let me = self.region.number()?;
        let number = me.to_le_bytes();
        let me = self.region.process(me).to_bits();
        let hash = self.hash(Kind::PluginCounters, plugin, &number);
        let place = locked.find(Kind::PluginCounters, hash, plugin, &number);
        let link = match place.link {
            0 => locked.change(|| {
                locked.add(
                    Kind::PluginCounters,
                    hash,
                    plugin,
                    &number,
                    &[0; size_of::<CounterBlock>()],
                )
            })?,
            link => link,
        };
        if let Some(block) = locked.value::<CounterBlock>(link)
            && block.process.load(Relaxed) != me
        {
            // It was another's, which ended.
            block.memory.store(0, Relaxed);
            block.presence.take_over();
            block.process.store(me, Relaxed);
        }
        Ok(link)
    }
}

impl Locked<'_> {
    /// What all processes counted, for each plugin.
    pub(super) fn own_metrics(&self) -> Vec<Series> {
        let mut blocks: Vec<(String, &CounterBlock)> = Vec::new();
        self.for_each(|link, node| {
            if node.is(Kind::PluginCounters)
                && let Some(block) = self.value::<CounterBlock>(link)
            {
                let plugin = String::from_utf8_lossy(self.space_of(link, node)).into_owned();
                blocks.push((plugin, block));
            }
        });
        blocks.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut all = Vec::new();
        for of_plugin in blocks.chunk_by(|(a, _), (b, _)| a == b) {
            let plugin = &of_plugin[0].0;
            let of_plugin: Vec<&CounterBlock> = of_plugin.iter().map(|(_, block)| *block).collect();
            let process = |block: &CounterBlock| {
                let process = Process::from_bits(block.process.load(Relaxed));
                (!process.is_gone()).then_some(process.id)
            };
            plugin_series(plugin, &of_plugin, process, &mut all);
        }
        all
    }
}
