//! What the heap holds: a head, a value, and the two parts of a name.

use std::sync::atomic::Ordering::Relaxed;

use super::region::{Link, Region, WORD};
use super::sync::AtomicU32;

/// Bytes of the head.
pub(super) const NODE: usize = size_of::<Node>();

fn padded(size: usize) -> usize {
    size.next_multiple_of(WORD)
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
    Own = 5,
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
    value: AtomicU32,
    space: AtomicU32,
    key: AtomicU32,
    /// How far behind the head the key begins.
    name_at: AtomicU32,
    /// The neighbours among entries by last use.
    pub newer: AtomicU32,
    /// See `newer`.
    pub older: AtomicU32,
}

/// The parts of a node that is about to be made.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    pub kind: Kind,
    pub hash: u32,
    pub tag: u32,
    pub value: &'a [u8],
    pub space: &'a [u8],
    pub key: &'a [u8],
}

impl Parts<'_> {
    /// Bytes of the node that they make; `None` when these cannot be counted.
    pub fn size(&self) -> Option<usize> {
        let sizes = [self.value.len(), self.space.len(), self.key.len()];
        let sum = sizes.iter().try_fold(NODE, |sum, size| sum.checked_add(padded(*size)))?;
        u32::try_from(sum).is_ok().then_some(sum)
    }

    /// How far behind the head key and space begin.
    fn name_at(&self) -> (usize, usize) {
        let key_at = padded(self.value.len());
        (key_at, key_at + padded(self.key.len()))
    }
}

impl Node {
    /// Bytes of the whole node. More than any region has when the numbers are nonsense.
    pub fn size(&self) -> u64 {
        let word = WORD as u64;
        let padded = |size: &AtomicU32| u64::from(size.load(Relaxed)).next_multiple_of(word);
        NODE as u64 + padded(&self.name_at) + padded(&self.key) + padded(&self.space)
    }

    /// Bytes of the value.
    pub fn value_size(&self) -> usize {
        self.value.load(Relaxed) as usize
    }

    fn space_size(&self) -> usize {
        self.space.load(Relaxed) as usize
    }

    fn key_size(&self) -> usize {
        self.key.load(Relaxed) as usize
    }

    fn name_at(&self) -> usize {
        self.name_at.load(Relaxed) as usize
    }

    /// Whether it is of that kind.
    pub fn is(&self, kind: Kind) -> bool {
        self.kind.load(Relaxed) == kind as u32
    }
}

impl Region {
    /// Fills a node that nothing leads to yet.
    pub(super) fn fill(&self, link: Link, parts: &Parts<'_>) {
        let Some(node) = self.node(link) else { return };
        node.next.store(0, Relaxed);
        node.kind.store(parts.kind as u32, Relaxed);
        node.hash.store(parts.hash, Relaxed);
        node.tag.store(parts.tag, Relaxed);
        // `Parts::size` has counted them.
        node.value.store(parts.value.len() as u32, Relaxed);
        node.space.store(parts.space.len() as u32, Relaxed);
        node.key.store(parts.key.len() as u32, Relaxed);
        node.newer.store(0, Relaxed);
        node.older.store(0, Relaxed);
        let (key_at, space_at) = parts.name_at();
        node.name_at.store(key_at as u32, Relaxed);
        self.write(link, 0, parts.value);
        self.write(link, key_at, parts.key);
        self.write(link, space_at, parts.space);
    }

    /// The value of a node. Under the lock only, but for metrics.
    pub(super) fn value_of(&self, link: Link, node: &Node) -> &[u8] {
        self.bytes(link, 0, node.value_size())
    }

    /// The first part of its name.
    pub(super) fn space_of(&self, link: Link, node: &Node) -> &[u8] {
        self.bytes(link, node.name_at() + padded(node.key_size()), node.space_size())
    }

    /// The second part of its name.
    pub(super) fn key_of(&self, link: Link, node: &Node) -> &[u8] {
        self.bytes(link, node.name_at(), node.key_size())
    }

    /// Whether a node has that name.
    pub(super) fn is_named(&self, link: Link, node: &Node, space: &[u8], key: &[u8]) -> bool {
        node.key_size() == key.len()
            && node.space_size() == space.len()
            && self.is(link, node.name_at(), key)
            && (space.is_empty() || self.is(link, node.name_at() + padded(key.len()), space))
    }
}
