//! Reading shared data without the lock.
//!
//! The word of the lock tells whether somebody has it and how often something was changed. What was read counts only if
//! no process had it before and the word is still the same; until then it may be nonsense: parts of other nodes, and links and
//! sizes that never were any. So words are read as atomics, and places are checked before they are followed.

use std::sync::atomic::Ordering::{Acquire, Relaxed};

use super::super::layout::Kind;
use super::super::lock::holder;
use super::super::region::Region;
use super::super::sync::{TRIES, fence, spin};
use crate::limits;
use crate::store::Cas;

/// What an entry is looked for by.
pub(in super::super) struct Name<'a> {
    /// Of the other two.
    pub hash: u32,
    pub space: &'a [u8],
    pub key: &'a [u8],
}

/// Why an entry is to be read under the lock.
pub(in super::super) enum Unsure {
    /// Somebody changed something meanwhile.
    Changed,
    /// Its use is to be noted, or it is at the end of a long chain.
    Hidden,
}

/// Nodes of a chain that are looked at; chains are shorter, as a rule.
const CHAIN: usize = 16;

impl Region {
    /// Puts the value of an entry into `out` and returns its version; `None` when there is no entry.
    pub(in super::super) fn peek(
        &self,
        name: &Name<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Cas>, Unsure> {
        let mut seen = self.peek_once(name, out);
        for tries in 0..TRIES {
            if !matches!(seen, Err(Unsure::Changed)) {
                break;
            }
            spin(8 << tries);
            seen = self.peek_once(name, out);
        }
        seen
    }

    #[inline(never)]
    fn peek_once(&self, name: &Name<'_>, out: &mut Vec<u8>) -> Result<Option<Cas>, Unsure> {
        let before = self.lock_word().load(Acquire);
        if holder(before) != 0 {
            return Err(Unsure::Changed);
        }
        let seen = self.look(name, out);
        fence(Acquire);
        if self.lock_word().load(Relaxed) == before { seen } else { Err(Unsure::Changed) }
    }

    fn look(&self, name: &Name<'_>, out: &mut Vec<u8>) -> Result<Option<Cas>, Unsure> {
        let mut link = self.bucket(name.hash).load(Relaxed);
        for _ in 0..CHAIN {
            if link == 0 {
                out.clear();
                return Ok(None);
            }
            let node = self.node(link).ok_or(Unsure::Changed)?;
            if node.hash.load(Relaxed) == name.hash
                && node.is(Kind::Entry)
                && self.is_named(link, node, name.space, name.key)
            {
                // Where entries give way, it must be noted which one was used last.
                let header = self.header();
                if header.evicts.load(Relaxed) != 0 && header.newest.load(Relaxed) != link {
                    return Err(Unsure::Hidden);
                }
                let size = node.value_size();
                if size > limits::SHARED_VALUE {
                    return Err(Unsure::Changed);
                }
                // Not cleared first, for what is overwritten need not be made zero.
                if out.len() != size {
                    out.resize(size, 0);
                }
                let read = self.read(link, 0, out);
                return read.then(|| Some(node.tag.load(Relaxed))).ok_or(Unsure::Changed);
            }
            link = node.next.load(Relaxed);
        }
        Err(Unsure::Hidden)
    }
}
