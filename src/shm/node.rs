//! What the heap holds: a head, a value, and the two parts of a name.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use super::region::{Link, Region};

/// Bytes of the head.
pub(super) const NODE: usize = size_of::<Node>();

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
}

/// The head of a node. It is filled before a link leads to it; then only the links in it change, each by one store.
/// Value, space and key follow it, in this order.
#[repr(C, align(8))]
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
        let sum: usize = sizes.iter().try_fold(NODE, |sum, size| sum.checked_add(*size))?;
        u32::try_from(sum).is_ok().then_some(sum)
    }
}

impl Node {
    /// Bytes of the whole node. More than any region has when the numbers are nonsense.
    pub fn size(&self) -> u64 {
        let sizes = [&self.value, &self.space, &self.key];
        NODE as u64 + sizes.iter().map(|size| u64::from(size.load(Relaxed))).sum::<u64>()
    }

    /// Bytes of the value.
    pub fn value_size(&self) -> usize {
        self.value.load(Relaxed) as usize
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
        self.write(link, 0, parts.value);
        self.write(link, parts.value.len(), parts.space);
        self.write(link, parts.value.len() + parts.space.len(), parts.key);
    }

    /// The value of a node. Under the lock only, but for metrics.
    pub(super) fn value_of(&self, link: Link, node: &Node) -> &[u8] {
        self.bytes(link, 0, node.value_size())
    }

    /// The first part of its name.
    pub(super) fn space_of(&self, link: Link, node: &Node) -> &[u8] {
        self.bytes(link, node.value_size(), node.space.load(Relaxed) as usize)
    }

    /// The second part of its name.
    pub(super) fn key_of(&self, link: Link, node: &Node) -> &[u8] {
        let (value, space) = (node.value_size(), node.space.load(Relaxed) as usize);
        self.bytes(link, value + space, node.key.load(Relaxed) as usize)
    }

    /// Whether a node has that name.
    pub(super) fn is_named(&self, link: Link, node: &Node, space: &[u8], key: &[u8]) -> bool {
        node.key.load(Relaxed) as usize == key.len()
            && node.space.load(Relaxed) as usize == space.len()
            && self.key_of(link, node) == key
            && self.space_of(link, node) == space
    }
}
