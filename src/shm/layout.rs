//! What lies in the shared memory, and what a process keeps of it.
//!
//! | from the start | |
//! | --- | --- |
//! | [`Header`] | lock, counters, the roots of lists |
//! | buckets | a link each: the chains of the table of nodes |
//! | map | a bit for each page of the heap: taken |
//! | pages | a [`Page`] for each page of the heap |
//! | heap | nodes |
//!
//! Everything here may be what a killed process left behind, and some of it is read without the lock. So numbers are
//! atomics, places are links (offsets in units of [`UNIT`]) that are checked before they are followed, and bytes are read
//! and written under the lock only.

use std::sync::atomic::Ordering::Relaxed;

use super::sync::{AtomicBool, AtomicU32, AtomicU64};
use crate::limits;

/// Links count in this many bytes; every node begins at a multiple of it.
pub(super) const UNIT: usize = 16;

/// Bytes of a word, in which parts of nodes are read and written.
pub(super) const WORD: usize = size_of::<u64>();

/// Where a node is, 0 for nowhere.
pub(super) type Link = u32;

/// Workers that may say hello at the same time.
pub(super) const HELLOS: usize = 64;

/// Bytes of a page.
pub(super) const PAGE: usize = 4096;

/// Sizes that places are cut to. A page has at most 64 of the smallest, a bit of [`Page::used`] for each.
pub(super) const SIZES: [usize; 11] = [64, 96, 128, 192, 256, 384, 512, 768, 1024, 1360, 2048];
pub(super) const CLASSES: usize = SIZES.len();

/// Bytes of the head.
pub(super) const NODE: usize = size_of::<Node>();

/// Lines of a cache of its own: who waits for it must not take away what its holder works on.
#[repr(C, align(128))]
pub(super) struct Line<T>(pub T);

/// What is not in the heap. All zero is an empty region.
#[repr(C)]
pub(super) struct Header {
    /// See [`super::lock`].
    pub lock: Line<AtomicU64>,
    /// 1 when the least recently used entry gives way to a new one.
    pub evicts: AtomicU32,
    /// The last version number that an entry got.
    pub cas: AtomicU32,
    /// The last ticket of a queue's listener.
    pub tickets: AtomicU32,
    /// Ends of the list of entries by their last use, kept while `evicts` is set.
    pub newest: AtomicU32,
    /// See `newest`.
    pub oldest: AtomicU32,
    /// For each size of nodes, a place that is free but not given back: the next node gets it. Where one key is set again
    /// and again, its nodes take turns, and no page needs to be looked at.
    pub spare: [AtomicU32; CLASSES],
    /// Pages of the heap that are taken.
    pub used_pages: AtomicU32,
    /// Where the last free page was found.
    pub search_from: AtomicU32,
    /// For each size of nodes, the first page with room for one, plus 1.
    pub partial: [AtomicU32; CLASSES],
    /// See [`super::fast::replace`].
    pub journal: Journal,
    /// Queues by their ids, less 1.
    pub queues: [AtomicU32; limits::QUEUE_NAMES],
    /// What workers said whose sockets are not known yet, and where these are.
    pub hellos: [AtomicU64; HELLOS],
    /// See `hellos`.
    pub addresses: [AtomicU32; HELLOS],
    /// Who uses the region, by number less 1: processes as bits. One that has ended leaves its number to another.
    pub processes: [AtomicU64; limits::SHARED_PROCESSES],
    /// Where each of them is woken; 0 for one that is not.
    pub wakes: [AtomicU32; limits::SHARED_PROCESSES],
    /// The number of the last plan.
    pub plans: AtomicU32,
    /// How many upstreams are counted.
    pub upstreams: AtomicU32,
}

/// A page of the heap.
#[repr(C)]
pub(super) struct Page {
    /// Places that are taken.
    pub used: AtomicU64,
    /// [`FREE`], [`RUN`], or the class of its places plus 1.
    pub class: AtomicU32,
    /// The neighbours among pages of this class with room, each plus 1.
    pub next: AtomicU32,
    pub previous: AtomicU32,
    /// Pages of the run, in its first page.
    pub run: AtomicU32,
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub(super) enum Kind {
    /// An entry of shared data: vm_id and key.
    Entry = 1,
    /// A queue: vm_id and name.
    Queue = 2,
    /// A message in a queue.
    Message = 3,
    /// A metric that a guest defined: plugin and name.
    Metric = 4,
    /// Metrics of our own: plugin and the number of the process that writes them.
    PluginCounters = 5,
    /// How many metrics a plugin has.
    Count = 6,
    /// What plugins of that name were replaced with.
    Plan = 7,
    /// Calls of a plugin to an upstream.
    Upstream = 8,
}

/// The head of a node. It is filled before a link leads to it; then only the links in it change, each by one store.
/// Value, key and space follow it, in this order, each from a word on.
#[repr(C, align(8))]
#[derive(Default)]
pub(super) struct Node {
    /// The next one of the chain, or of the queue.
    pub next: AtomicU32,
    /// A [`Kind`].
    pub kind: AtomicU32,
    /// Of kind, space and key.
    pub hash: AtomicU32,
    /// An entry's version; what a metric counts.
    pub tag: AtomicU32,
    pub value: AtomicU32,
    pub space: AtomicU32,
    pub key: AtomicU32,
    /// How far behind the head the key begins.
    pub name_at: AtomicU32,
    /// The neighbours among entries by last use.
    pub newer: AtomicU32,
    /// See `newer`.
    pub older: AtomicU32,
}

impl Node {
    /// Bytes of the whole node. More than any region has when the numbers are nonsense.
    pub(super) fn size(&self) -> u64 {
        let word = WORD as u64;
        let padded = |size: &AtomicU32| u64::from(size.load(Relaxed)).next_multiple_of(word);
        NODE as u64 + padded(&self.name_at) + padded(&self.key) + padded(&self.space)
    }

    /// Bytes of the value.
    pub(super) fn value_size(&self) -> usize {
        self.value.load(Relaxed) as usize
    }

    /// Bytes of the first part of the name.
    pub(super) fn space_size(&self) -> usize {
        self.space.load(Relaxed) as usize
    }

    /// Bytes of the second part of the name.
    pub(super) fn key_size(&self) -> usize {
        self.key.load(Relaxed) as usize
    }

    /// How far behind the head the key begins.
    pub(super) fn name_at(&self) -> usize {
        self.name_at.load(Relaxed) as usize
    }

    /// Whether it is of that kind.
    pub(super) fn is(&self, kind: Kind) -> bool {
        self.kind.load(Relaxed) == kind as u32
    }
}

/// Bytes of the largest value that is replaced where it is. Others move, for which nothing needs to be written down.
pub(super) const LARGEST: usize = 256;

/// What a value was that is being replaced.
#[repr(C)]
#[derive(Default)]
pub(super) struct Journal {
    /// Its node; 0 when none is being replaced.
    pub link: AtomicU32,
    pub cas: AtomicU32,
    pub words: [AtomicU64; LARGEST / WORD],
}

/// What the holder of the lock knows of it, in its own process.
#[derive(Default)]
pub(super) struct Held {
    /// The lock's word, which no other process changes meanwhile.
    pub word: AtomicU64,
    /// A change was begun and has not ended.
    pub broken: AtomicBool,
}
