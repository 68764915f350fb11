//! Nodes by name: chains of a fixed number of buckets.
//!
//! A node is in the table from the one store that makes a link lead to it, and out of it by the one that makes that link
//! lead past it. So a process may be killed between any two instructions, and who comes after it sees either.

use std::sync::atomic::Ordering::{Relaxed, Release};

use super::layout::{Kind, Link, Node};
use super::lock::Locked;
use super::node::Parts;
use super::region::Region;
use super::sync::{AtomicU32, fence};

/// A place in the table: the link that leads to a node, and where it leads.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    slot: &'a AtomicU32,
    /// 0 when there is no such node.
    pub link: Link,
}

impl Region {
    /// The link that a chain begins with.
    pub(super) fn bucket(&self, hash: u32) -> &AtomicU32 {
        let buckets = self.buckets();
        &buckets[hash as usize & (buckets.len() - 1)]
    }
}

impl<'a> Locked<'a> {
    /// The place of a name, or where its node would be added.
    pub(super) fn find(&self, kind: Kind, hash: u32, space: &[u8], key: &[u8]) -> Place<'_> {
        let first = self.bucket(hash);
        let mut slot = first;
        loop {
            let link = slot.load(Relaxed);
            let Some(node) = self.node(link) else { return Place { slot: first, link: 0 } };
            let same = node.hash.load(Relaxed) == hash && node.is(kind);
            if same && self.is_named(link, node, space, key) {
                return Place { slot, link };
            }
            slot = &node.next;
        }
    }

    /// Puts a filled node into the place of its name. A node that is there leaves the table, and its room with it.
    pub(super) fn put(&self, place: Place<'_>, link: Link) {
        let Some(node) = self.node(link) else { return };
        match self.node(place.link) {
            Some(old) => {
                node.next.store(old.next.load(Relaxed), Relaxed);
                // A process that sees the link sees the node as it was filled.
                place.slot.store(link, Release);
                self.free_node(place.link, old);
            }
            None => {
                node.next.store(place.slot.load(Relaxed), Relaxed);
                place.slot.store(link, Release);
            }
        }
    }

    /// Takes a node out, and gives its room back.
    pub(super) fn remove(&self, place: Place<'_>) {
        let Some(node) = self.node(place.link) else { return };
        place.slot.store(node.next.load(Relaxed), Release);
        // The same change may write another node there. Not before this one has left: the process may be killed between.
        fence(Release);
        self.free_node(place.link, node);
    }

    pub(super) fn free_node(&self, link: Link, node: &Node) {
        self.free(link, usize::try_from(node.size()).unwrap_or(usize::MAX));
    }

    /// A filled node of these parts, for which entries give way when they may; `None` when there is no room.
    pub(super) fn make(&self, parts: &Parts<'_>) -> Option<Link> {
        let size = parts.size()?;
        let link = self.allocate(size).or_else(|| self.evict_for(size))?;
        self.fill(link, parts);
        Some(link)
    }

    /// Each node of the table, by its link.
    pub(super) fn for_each(&self, mut f: impl FnMut(Link, &Node)) {
        for bucket in self.buckets() {
            let mut link = bucket.load(Relaxed);
            while let Some(node) = self.node(link) {
                // Read first: `f` may end the node.
                let next = node.next.load(Relaxed);
                f(link, node);
                link = next;
            }
        }
    }
}
