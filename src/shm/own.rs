//! The counters of plugins in shared memory.
//!
//! A counter that one process writes needs no atomic addition, so each process has a block of its own for each plugin. A
//! process that ended leaves its number, and its blocks with what they count, to a new one: nothing counted is lost.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Shared;
use super::lock::Locked;
use super::node::Kind;
use super::process::Process;
use super::region::{Link, Region, Shareable};
use crate::abi::Callback;
use crate::store::{Count, CounterBlock, Counters, Refusal, Series, plugin_series};

// SAFETY: made of atomics.
unsafe impl Shareable for CounterBlock {}

/// Where one process counts what one plugin does.
pub struct Own {
    shared: Option<(Arc<Region>, Link)>,
    /// Written when there is no shared one, and read by nobody.
    private: CounterBlock,
}

impl Own {
    fn block(&self) -> &CounterBlock {
        let shared = self.shared.as_ref().and_then(|(region, link)| region.value(*link));
        shared.unwrap_or(&self.private)
    }
}

impl Counters for Own {
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

    /// A VM that this process inherited is another one's.
    fn memory_goes(&self, bytes: usize) {
        let block = self.block();
        if Process::from_bits(block.process.load(Relaxed)).id == std::process::id() {
            block.memory_goes(bytes);
        }
    }
}

impl Default for Own {
    /// One that nobody reads.
    fn default() -> Self {
        Self { shared: None, private: CounterBlock::default() }
    }
}

impl Shared {
    /// Where this process counts what a plugin does.
    pub fn own(&self, plugin: &str) -> Own {
        let link = self.own_block(plugin.as_bytes()).ok();
        Own {
            shared: link.map(|link| (self.region.clone(), link)),
            private: CounterBlock::default(),
        }
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
                locked.add(Kind::Own, hash, plugin, &number, &[0; size_of::<CounterBlock>()])
            })?,
            link => link,
        };
        if let Some(block) = locked.value::<CounterBlock>(link)
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
        let mut blocks: Vec<(String, &CounterBlock)> = Vec::new();
        self.for_each(|link, node| {
            if node.is(Kind::Own)
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
