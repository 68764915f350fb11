//! The mapping of a model: a lock, one chain, and three nodes of three words.

use loom::sync::atomic::Ordering::Relaxed;
use loom::sync::atomic::{AtomicU32, AtomicU64};
use loom::sync::{Arc, Mutex};

use crate::layout::{Held, Journal, Link, Node, WORD};
use crate::lock::Locked;

/// The one key, which fills a word.
pub const KEY: &[u8] = b"the key!";

/// Behind the head of a node: two words of a value and one of the key.
type Words = [AtomicU64; 3];

/// What processes share.
#[derive(Default)]
pub struct Memory {
    lock: AtomicU64,
    header: Header,
    bucket: [AtomicU32; 1],
    nodes: [(Node, Words); 3],
    /// The nodes that are taken, changed under the lock only.
    taken: [AtomicU32; 3],
}

#[derive(Default)]
pub struct Header {
    pub evicts: AtomicU32,
    pub newest: AtomicU32,
    pub plans: AtomicU32,
    pub journal: Journal,
    pub processes: [AtomicU64; 4],
    pub wakes: [AtomicU32; 4],
}

/// What one process has of it.
pub struct Region {
    memory: Arc<Memory>,
    pub me: AtomicU64,
    pub entering: Mutex<()>,
    pub held: Held,
}

impl Region {
    pub fn new(memory: &Arc<Memory>, number: u32) -> Self {
        memory.header.processes[number as usize - 1].store(u64::from(number), Relaxed);
        Self {
            memory: memory.clone(),
            me: AtomicU64::new(number.into()),
            entering: Mutex::new(()),
            held: Held::default(),
        }
    }

    pub fn header(&self) -> &Header {
        &self.memory.header
    }

    pub fn lock_word(&self) -> &AtomicU64 {
        &self.memory.lock
    }

    pub fn buckets(&self) -> &[AtomicU32] {
        &self.memory.bucket
    }

    pub fn node(&self, link: Link) -> Option<&Node> {
        let at = (link as usize).checked_sub(1)?;
        self.memory.nodes.get(at).map(|(node, _)| node)
    }

    pub fn words(&self, link: Link, skip: usize, length: usize) -> Option<&[AtomicU64]> {
        let (_, words) = self.memory.nodes.get((link as usize).checked_sub(1)?)?;
        words.get(skip / WORD..(skip + length).div_ceil(WORD))
    }

    pub fn read(&self, link: Link, skip: usize, out: &mut [u8]) -> bool {
        let Some(words) = self.words(link, skip, out.len()) else { return false };
        for (bytes, word) in out.chunks_mut(WORD).zip(words) {
            bytes.copy_from_slice(&word.load(Relaxed).to_ne_bytes());
        }
        true
    }

    pub fn write(&self, link: Link, skip: usize, bytes: &[u8]) {
        let words = self.words(link, skip, bytes.len()).expect("a part of a node");
        for (bytes, word) in bytes.chunks(WORD).zip(words) {
            word.store(u64::from_ne_bytes(bytes.try_into().expect("a word")), Relaxed);
        }
    }

    pub fn copy_words(&self, from: &[AtomicU64], to: &[AtomicU64]) {
        for (from, to) in from.iter().zip(to) {
            to.store(from.load(Relaxed), Relaxed);
        }
    }

    pub fn is(&self, link: Link, skip: usize, bytes: &[u8]) -> bool {
        let mut found = vec![0; bytes.len()];
        self.read(link, skip, &mut found) && found == bytes
    }

    pub fn bytes(&self, _: Link, _: usize, _: usize) -> &[u8] {
        unreachable!("models read words")
    }
}

impl Locked<'_> {
    pub fn allocate(&self, _: usize) -> Option<Link> {
        let taken = &self.memory.taken;
        let free = taken.iter().position(|taken| taken.load(Relaxed) == 0)?;
        taken[free].store(1, Relaxed);
        Some(free as Link + 1)
    }

    pub fn free(&self, link: Link, _: usize) {
        self.memory.taken[link as usize - 1].store(0, Relaxed);
    }

    pub fn evict_for(&self, _: usize) -> Option<Link> {
        None
    }
}
