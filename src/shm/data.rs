//! Shared data: values by key, each with a version, in a space of keys for each vm_id.

use std::sync::atomic::Ordering::Relaxed;

use super::layout::{Kind, Link, Node};
use super::lock::Locked;
use super::node::Parts;
use super::{Refusal, Shared};
use crate::limits;
use crate::store::Cas;

impl Shared {
    /// Puts the value of a key into `out` (cleared first) and returns its version; `None` when there is none.
    pub fn get(&self, space: &[u8], key: &[u8], out: &mut Vec<u8>) -> Result<Option<Cas>, Refusal> {
        if key.len() > limits::SHARED_KEY {
            return Ok(None);
        }
        let hash = self.hash(Kind::Entry, space, key);
        let locked = self.lock()?;
        let place = locked.find(Kind::Entry, hash, space, key);
        out.clear();
        let Some(node) = locked.node(place.link) else { return Ok(None) };
        out.extend_from_slice(locked.value_of(place.link, node));
        if locked.evicts() {
            locked.change(|| locked.used_now(place.link, node));
        }
        Ok(Some(node.tag.load(Relaxed)))
    }

    /// Sets the value of a key, and returns its new version. With a `cas` that is not 0 an entry that is there must have
    /// that version.
    pub fn set(&self, space: &[u8], key: &[u8], value: &[u8], cas: Cas) -> Result<Cas, Refusal> {
        if key.len() > limits::SHARED_KEY || value.len() > limits::SHARED_VALUE {
            return Err(Refusal::TooLarge);
        }
        let hash = self.hash(Kind::Entry, space, key);
        let locked = self.lock()?;
        let place = locked.find(Kind::Entry, hash, space, key);
        if let Some(node) = locked.node(place.link) {
            if cas != 0 && node.tag.load(Relaxed) != cas {
                drop(locked);
                self.back_off.miss();
                return Err(Refusal::Mismatch);
            }
            self.back_off.hit();
            if locked.can_replace(node, value) {
                return Ok(locked.change(|| {
                    let tag = locked.next_cas();
                    locked.replace(place.link, node, value, tag);
                    if locked.evicts() {
                        locked.used_now(place.link, node);
                    }
                    tag
                }));
            }
        }
        locked.change(|| {
            let tag = locked.next_cas();
            let parts = Parts { kind: Kind::Entry, hash, tag, value, space, key };
            let link = locked.make(&parts).ok_or(Refusal::Full)?;
            let mut place = place;
            if locked.evicts() {
                // Making room may have taken nodes out, the old one and its neighbours among them.
                place = locked.find(Kind::Entry, hash, space, key);
                if let Some(old) = locked.node(place.link) {
                    locked.leave_uses(old);
                }
                if let Some(node) = locked.node(link) {
                    locked.join_uses(link, node);
                }
            }
            locked.put(place, link);
            Ok(tag)
        })
    }

    /// Takes a key out. False when it is not there.
    pub fn delete(&self, space: &[u8], key: &[u8]) -> Result<bool, Refusal> {
        if key.len() > limits::SHARED_KEY {
            return Ok(false);
        }
        let hash = self.hash(Kind::Entry, space, key);
        let locked = self.lock()?;
        let place = locked.find(Kind::Entry, hash, space, key);
        let Some(node) = locked.node(place.link) else { return Ok(false) };
        locked.change(|| {
            if locked.evicts() {
                locked.leave_uses(node);
            }
            locked.remove(place);
        });
        Ok(true)
    }

    /// The keys of a space, in no order, and at most `most` of them.
    pub fn keys(&self, space: &[u8], most: usize) -> Result<Vec<Vec<u8>>, Refusal> {
        let locked = self.lock()?;
        let mut keys = Vec::new();
        locked.for_each(|link, node| {
            if keys.len() < most && node.is(Kind::Entry) && locked.space_of(link, node) == space {
                keys.push(locked.key_of(link, node).to_vec());
            }
        });
        Ok(keys)
    }

    /// Whether the entry that was not used for the longest time gives way to a new one when there is no room.
    pub fn set_eviction(&self, evicts: bool) -> Result<(), Refusal> {
        let locked = self.lock()?;
        let evicts = u32::from(evicts);
        if locked.header().evicts.load(Relaxed) != evicts {
            locked.change(|| {
                locked.header().evicts.store(evicts, Relaxed);
                locked.reorder_entries();
            });
        }
        Ok(())
    }
}

impl Locked<'_> {
    pub(super) fn evicts(&self) -> bool {
        self.header().evicts.load(Relaxed) != 0
    }

    fn next_cas(&self) -> Cas {
        let last = &self.header().cas;
        let next = last.load(Relaxed).checked_add(1).unwrap_or(1);
        last.store(next, Relaxed);
        next
    }

    /// Room of that size, for which entries give way; `None` when they may not, or when too many would have to.
    pub(super) fn evict_for(&self, size: usize) -> Option<Link> {
        if !self.evicts() {
            return None;
        }
        for _ in 0..limits::SHARED_EVICTIONS {
            let oldest = self.header().oldest.load(Relaxed);
            let node = self.node(oldest)?;
            let hash = node.hash.load(Relaxed);
            let place = self.find(
                Kind::Entry,
                hash,
                self.space_of(oldest, node),
                self.key_of(oldest, node),
            );
            self.leave_uses(node);
            self.remove(place);
            if let Some(link) = self.allocate(size) {
                return Some(link);
            }
        }
        None
    }

    fn used_now(&self, link: Link, node: &Node) {
        if self.header().newest.load(Relaxed) != link {
            self.leave_uses(node);
            self.join_uses(link, node);
        }
    }

    /// Puts an entry in front of the list of uses.
    pub(super) fn join_uses(&self, link: Link, node: &Node) {
        let header = self.header();
        let before = header.newest.load(Relaxed);
        node.newer.store(0, Relaxed);
        node.older.store(before, Relaxed);
        match self.node(before) {
            Some(before) => before.newer.store(link, Relaxed),
            None => header.oldest.store(link, Relaxed),
        }
        header.newest.store(link, Relaxed);
    }

    /// Takes an entry out of that list.
    fn leave_uses(&self, node: &Node) {
        let (newer, older) = (node.newer.load(Relaxed), node.older.load(Relaxed));
        match self.node(newer) {
            Some(newer) => newer.older.store(older, Relaxed),
            None => self.header().newest.store(older, Relaxed),
        }
        match self.node(older) {
            Some(older) => older.newer.store(newer, Relaxed),
            None => self.header().oldest.store(newer, Relaxed),
        }
    }

    /// Makes the list of uses from the entries that there are, or none when entries stay. Which one was used last is
    /// forgotten.
    pub(super) fn reorder_entries(&self) {
        self.header().newest.store(0, Relaxed);
        self.header().oldest.store(0, Relaxed);
        if self.evicts() {
            self.for_each(|link, node| {
                if node.is(Kind::Entry) {
                    self.join_uses(link, node);
                }
            });
        }
    }
}
