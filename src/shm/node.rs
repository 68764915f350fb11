//! Filling and reading nodes: a head, a value, and the two parts of a name.

use std::sync::atomic::Ordering::Relaxed;

use super::layout::{Kind, Link, NODE, Node, WORD};
use super::region::Region;

fn padded(size: usize) -> usize {
    size.next_multiple_of(WORD)
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
    pub(super) fn size(&self) -> Option<usize> {
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
