//! What is done when a change was left half done: what can be reached stays, all else is made again from it.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, Release};

use super::layout::{Kind, Node};
use super::lock::Locked;

/// What a repair found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repair {
    /// Entries, queues, messages and metrics that are there.
    pub kept: usize,
    /// Ends of chains that led nowhere. Never more than 0, unless somebody wrote where nothing was theirs.
    pub cut: usize,
}

impl Locked<'_> {
    /// Ends a change that somebody began. To be called again from the beginning when it does not come to its end.
    pub(super) fn repair(&self) -> Repair {
        let mut repair = Repair::default();
        self.undo_replace();
        self.forget_heap();
        for bucket in self.buckets() {
            self.keep_chain(bucket, &mut repair, |node| !node.is(Kind::Message));
        }
        self.repair_queues(&mut repair);
        self.list_pages_with_room();
        self.reorder_entries();
        repair
    }

    /// Gives the nodes of a chain their room. The chain ends in front of a node that cannot be one.
    pub(super) fn keep_chain(
        &self,
        first: &AtomicU32,
        repair: &mut Repair,
        belongs: impl Fn(&Node) -> bool,
    ) {
        let mut slot = first;
        loop {
            let link = slot.load(Relaxed);
            if link == 0 {
                return;
            }
            let node = self.node(link).filter(|node| belongs(node) && self.holds(link, node));
            // A node that another chain has, or this one has twice, is claimed already.
            let Some(node) = node.filter(|node| self.claim(link, node.size())) else {
                slot.store(0, Release);
                repair.cut += 1;
                return;
            };
            repair.kept += 1;
            slot = &node.next;
        }
    }
}
