//! What a guest may have of memory and tables, and the account of it.

use std::sync::Arc;

use wasmtime::{ResourceLimiter, StoreLimits, StoreLimitsBuilder};

use super::cached_memory::CachedMemory;
use crate::limits;
use crate::store::{Count, Counters};

/// See the module.
pub struct Limiter {
    limits: StoreLimits,
    own: Arc<dyn Counters>,
    /// Which memory is made next, when an instance with one of our own is made: the guest's comes first.
    pub memories_to_come: Option<MemoryToCome>,
    /// Bytes of memory.
    memory: usize,
    /// Plugin contexts and streams.
    alive: (usize, usize),
    /// Where that is. Here, because nothing grows without asking here.
    pub cached: CachedMemory,
}

/// See [`Limiter::memories_to_come`].
#[derive(Clone, Copy)]
pub enum MemoryToCome {
    /// The guest's.
    OfGuest,
    /// Our own, which does not count.
    Own,
}

impl Limiter {
    /// For a guest that may have that many bytes of memory. Beside it is one instance of our own. The guest's instance may
    /// have one memory of our own behind its own.
    pub fn new(memory_limit: usize, own: Arc<dyn Counters>) -> Self {
        let limits = StoreLimitsBuilder::new()
            .memory_size(memory_limit)
            .table_elements(limits::TABLE_ELEMENTS)
            .tables(limits::TABLES)
            .instances(2)
            .memories(2)
            .build();
        Self {
            limits,
            own,
            memories_to_come: None,
            memory: 0,
            alive: (0, 0),
            cached: CachedMemory::default(),
        }
    }

    /// Where it counts.
    pub fn own(&self) -> &Arc<dyn Counters> {
        &self.own
    }

    /// Says how many plugin contexts and streams the guest has now.
    pub fn alive(&mut self, contexts: usize, streams: usize) {
        let before = std::mem::replace(&mut self.alive, (contexts, streams));
        if let Some(presence) = self.own.presence() {
            presence.alive(before, self.alive);
        }
    }

    /// Says how many streams it has now.
    #[inline]
    pub fn streams(&mut self, streams: usize) {
        let before = std::mem::replace(&mut self.alive.1, streams);
        if let Some(presence) = self.own.presence() {
            presence.streams(before, streams);
        }
    }

    /// Bytes of memory that the guest has.
    pub fn memory_size(&self) -> usize {
        self.memory
    }

    fn counted(&self, allowed: bool) -> bool {
        if !allowed {
            self.own.count(Count::MemoryLimits);
        }
        allowed
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        match self.memories_to_come {
            None => {}
            Some(MemoryToCome::OfGuest) => self.memories_to_come = Some(MemoryToCome::Own),
            Some(MemoryToCome::Own) => {
                self.memories_to_come = None;
                return Ok(true);
            }
        }
        self.cached.forget();
        let allowed = self.limits.memory_growing(current, desired, maximum)?;
        if allowed && maximum.is_none_or(|maximum| desired <= maximum) {
            self.memory += desired - current;
            self.own.memory_grows(desired - current);
        }
        Ok(self.counted(allowed))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let allowed = self.limits.table_growing(current, desired, maximum)?;
        Ok(self.counted(allowed))
    }

    fn instances(&self) -> usize {
        self.limits.instances()
    }

    fn tables(&self) -> usize {
        self.limits.tables()
    }

    fn memories(&self) -> usize {
        self.limits.memories()
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.own.memory_goes(self.memory);
        self.alive(0, 0);
    }
}
