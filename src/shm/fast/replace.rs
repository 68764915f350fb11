//! Replacing a value by another one of the same size, where it is: what filters that count do again and again.
//!
//! Its node stays in the table, so what the old value was is written down first. Should the process be killed before the
//! new one is complete, the next holder of the lock puts the old one back.

use std::sync::atomic::Ordering::{Relaxed, Release};

use super::super::layout::{LARGEST, Link, Node};
use super::super::lock::Locked;
use super::super::sync::{AtomicU64, fence};
use crate::store::Cas;

impl Locked<'_> {
    /// Whether [`Locked::replace`] can be used.
    pub(in super::super) fn can_replace(&self, node: &Node, value: &[u8]) -> bool {
        value.len() == node.value_size() && value.len() <= LARGEST
    }

    /// Gives an entry another value and version. A change must have begun.
    pub(in super::super) fn replace(&self, link: Link, node: &Node, value: &[u8], cas: Cas) {
        self.note_value(link, node);
        self.write(link, 0, value);
        node.tag.store(cas, Relaxed);
        self.header().journal.link.store(0, Release);
    }

    pub(in super::super) fn note_value(&self, link: Link, node: &Node) {
        let journal = &self.header().journal;
        self.copy_words(self.value_words(link, node), &journal.words);
        journal.cas.store(node.tag.load(Relaxed), Relaxed);
        // All of it is there before it counts, and it counts before anything is replaced.
        journal.link.store(link, Release);
        fence(Release);
    }

    /// Puts back what was being replaced when a process was killed.
    pub(in super::super) fn undo_replace(&self) {
        let journal = &self.header().journal;
        let link = journal.link.load(Relaxed);
        let Some(node) = self.node(link) else { return };
        for (noted, word) in journal.words.iter().zip(self.value_words(link, node)) {
            word.store(noted.load(Relaxed), Relaxed);
        }
        node.tag.store(journal.cas.load(Relaxed), Relaxed);
        // Not before: this process may be killed as well.
        journal.link.store(0, Release);
    }

    pub(in super::super) fn value_words(&self, link: Link, node: &Node) -> &[AtomicU64] {
        self.words(link, 0, node.value_size()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Shared;
    use super::super::super::layout::Kind;

    #[test]
    fn what_was_half_replaced_comes_back() {
        let shared = Shared::new(crate::limits::MIN_SHARED_MEMORY, |repair| {
            assert_eq!((repair.kept, repair.cut), (1, 0));
        })
        .expect("a mapping");
        let old = [b'o'; 100];
        let cas = shared.set(b"", b"key", &old, 0).expect("room");
        for written in [0, 1, 12, 13] {
            let locked = shared.lock().expect("the lock");
            let hash = shared.hash(Kind::Entry, b"", b"key");
            let link = locked.find(Kind::Entry, hash, b"", b"key").link;
            let node = locked.node(link).expect("an entry");
            locked.begin_change();
            locked.note_value(link, node);
            for word in &locked.value_words(link, node)[..written] {
                word.store(u64::MAX, std::sync::atomic::Ordering::Relaxed);
            }
            node.tag.store(cas + 1, std::sync::atomic::Ordering::Relaxed);
            drop(locked);

            let mut value = Vec::new();
            assert_eq!(shared.get(b"", b"key", &mut value), Ok(Some(cas)), "{written}");
            assert_eq!(value, old, "{written}");
        }
        shared.verify().expect("all in order");
    }
}
