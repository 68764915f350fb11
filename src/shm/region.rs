//! The memory that workers share: mapped before they are forked, so it is at one address in all of them.
//! [`super::layout`] says what lies where.

use std::io;
use std::mem::size_of;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

use super::layout::{Header, Held, Link, NODE, Node, PAGE, Page, UNIT, WORD};
use super::process::watch_forks;
use crate::limits;

/// A mapping. Forked processes share what it holds.
pub struct Region {
    base: NonNull<u8>,
    size: usize,
    buckets: usize,
    map_at: usize,
    pages_at: usize,
    pages: usize,
    heap_at: usize,
    /// The number of this process, below the generation in which it got that; 0 for none.
    pub(super) me: AtomicU64,
    /// Held while that changes.
    pub(super) entering: Mutex<()>,
    pub(super) held: Held,
}

// SAFETY: what lies in the mapping is atomics, and bytes that are touched under the lock only.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Maps that many bytes.
    pub fn new(size: usize) -> io::Result<Self> {
        let size = size.max(limits::MIN_SHARED_MEMORY).next_multiple_of(PAGE);
        // SAFETY: a new anonymous mapping touches no memory that exists.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(io::Error::last_os_error)?;

        // A bucket for each 256 to 512 bytes: an entry is hardly smaller on average, so chains stay short.
        let buckets = (size / 256).next_power_of_two() / 2;
        let map_at = size_of::<Header>().next_multiple_of(UNIT) + buckets * size_of::<AtomicU32>();
        let most = size / PAGE;
        let pages_at = map_at + most.div_ceil(64) * size_of::<AtomicU64>();
        let heap_at = (pages_at + most * size_of::<Page>()).next_multiple_of(PAGE);
        let pages = (size - heap_at) / PAGE;
        watch_forks();
        Ok(Self {
            base,
            size,
            buckets,
            map_at,
            pages_at,
            pages,
            heap_at,
            me: AtomicU64::new(0),
            entering: Mutex::default(),
            held: Held::default(),
        })
    }

    /// Its bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    pub(super) fn header(&self) -> &Header {
        // SAFETY: the mapping begins with it; it is made of atomics.
        unsafe { self.base.cast::<Header>().as_ref() }
    }

    pub(super) fn lock_word(&self) -> &AtomicU64 {
        &self.header().lock.0
    }

    pub(super) fn buckets(&self) -> &[AtomicU32] {
        self.list(size_of::<Header>().next_multiple_of(UNIT), self.buckets)
    }

    pub(super) fn map(&self) -> &[AtomicU64] {
        self.list(self.map_at, self.pages.div_ceil(64))
    }

    pub(super) fn pages(&self) -> &[Page] {
        self.list(self.pages_at, self.pages)
    }

    fn list<T: Shareable>(&self, at: usize, count: usize) -> &[T] {
        assert!(at.is_multiple_of(align_of::<T>()) && at + count * size_of::<T>() <= self.size);
        // SAFETY: inside the mapping and aligned, as checked; `T` is made of atomics, for which all bits are values.
        unsafe { std::slice::from_raw_parts(self.base.add(at).cast::<T>().as_ptr(), count) }
    }

    /// Numbers that stand at the beginning of a node's value.
    pub(super) fn value<T: Shareable>(&self, link: Link) -> Option<&T> {
        let node = self.node(link)?;
        let fits = node.value_size() >= size_of::<T>() && self.holds(link, node);
        fits.then(|| &self.list::<T>(at(link) + NODE, 1)[0])
    }

    /// The node at a link, of which the head is inside the heap.
    pub(super) fn node(&self, link: Link) -> Option<&Node> {
        let at = at(link);
        // SAFETY: inside the mapping, and every link is to a multiple of what a node is aligned to; it is made of atomics.
        (at >= self.heap_at && at + NODE <= self.size)
            .then(|| unsafe { self.base.add(at).cast::<Node>().as_ref() })
    }

    /// Whether all of a node is inside the heap.
    pub(super) fn holds(&self, link: Link, node: &Node) -> bool {
        (at(link) as u64) + node.size() <= self.size as u64
    }

    /// The page of the heap that a link points into, and how far into it.
    pub(super) fn page_of(&self, link: Link) -> Option<(usize, usize)> {
        let offset = at(link).checked_sub(self.heap_at)?;
        let page = offset / PAGE;
        (page < self.pages).then_some((page, offset % PAGE))
    }

    /// The link to a place in a page.
    pub(super) fn link_to(&self, page: usize, offset: usize) -> Link {
        // Sizes are capped so that every place has a link.
        ((self.heap_at + page * PAGE + offset) / UNIT) as Link
    }

    /// Bytes of a node, `skip` behind its head. Under the lock only.
    pub(super) fn bytes(&self, link: Link, skip: usize, length: usize) -> &[u8] {
        let words = self.words(link, skip, length).expect("a part of a node");
        // SAFETY: the words have that many bytes; bytes of nodes change under the lock only, which the caller holds, and
        // nothing changes them while it reads.
        unsafe { std::slice::from_raw_parts(words.as_ptr().cast::<u8>(), length) }
    }

    /// The words that hold those bytes, the last one filled up with zeros; `None` when they are not in the mapping. `skip`
    /// is a multiple of their size.
    pub(super) fn words(&self, link: Link, skip: usize, length: usize) -> Option<&[AtomicU64]> {
        let (at, count) = (at(link) + NODE + skip, length.div_ceil(WORD));
        let inside = at >= self.heap_at && at + count * WORD <= self.size;
        // SAFETY: inside the mapping, and `at` is a multiple of their size as its parts are; words are atomics.
        (inside && skip.is_multiple_of(WORD)).then(|| unsafe {
            std::slice::from_raw_parts(self.base.add(at).cast::<AtomicU64>().as_ptr(), count)
        })
    }

    /// Writes bytes of a node by words, the last one filled up with zeros. Under the lock only.
    pub(super) fn write(&self, link: Link, skip: usize, bytes: &[u8]) {
        let words = self.words(link, skip, bytes.len()).expect("a part of a node");
        let whole = bytes.as_chunks().0;
        for (word, bytes) in words.iter().zip(whole) {
            word.store(u64::from_ne_bytes(*bytes), Relaxed);
        }
        if let Some(last) = words.get(whole.len()) {
            last.store(last_word(bytes), Relaxed);
        }
    }

    /// Copies such words to a place that is read and written under the lock only; so must this be called.
    pub(super) fn copy_words(&self, from: &[AtomicU64], to: &[AtomicU64]) {
        let count = from.len().min(to.len());
        // SAFETY: both are in the mapping. Nothing writes to either meanwhile, and nothing reads the second.
        unsafe {
            std::ptr::copy_nonoverlapping(
                from.as_ptr().cast::<u64>(),
                to.as_ptr().cast::<u64>().cast_mut(),
                count,
            );
        }
    }

    /// Whether a part of a node is those bytes. False when it is not in the mapping.
    #[inline(never)]
    pub(super) fn is(&self, link: Link, skip: usize, bytes: &[u8]) -> bool {
        let Some(words) = self.words(link, skip, bytes.len()) else { return false };
        let (whole, rest) = bytes.as_chunks();
        words
            .iter()
            .zip(whole)
            .all(|(word, bytes)| word.load(Relaxed) == u64::from_ne_bytes(*bytes))
            && (rest.is_empty() || words[whole.len()].load(Relaxed) == last_word(bytes))
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new`, and every reference into it borrows the region.
        unsafe {
            libc::munmap(self.base.as_ptr().cast(), self.size);
        }
    }
}

/// What is left of bytes behind their last whole word, filled up with zeros. There is something left.
#[inline]
fn last_word(bytes: &[u8]) -> u64 {
    let rest = bytes.len() % WORD;
    // From parts that overlap, by shifts: a word that is put together byte by byte takes much longer.
    let word = if let Some(last) = bytes.last_chunk() {
        u64::from_le_bytes(*last) >> (8 * (WORD - rest))
    } else if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        u64::from(u32::from_le_bytes(*first))
            | u64::from(u32::from_le_bytes(*last)) << (8 * (rest - 4))
    } else {
        let byte = |at: usize| u64::from(bytes[at]) << (8 * at);
        byte(0) | byte(rest / 2) | byte(rest - 1)
    };
    word.to_le()
}

fn at(link: Link) -> usize {
    link as usize * UNIT
}

/// Types that are made of atomics only, so that other processes may change them at any time.
///
/// # Safety
/// All bits are values of the type, it has no padding that matters, and no drop glue.
pub(super) unsafe trait Shareable {}

// SAFETY: atomics.
unsafe impl Shareable for AtomicU32 {}
// SAFETY: atomics.
unsafe impl Shareable for AtomicU64 {}
// SAFETY: made of atomics.
unsafe impl Shareable for Page {}
// SAFETY: made of atomics.
unsafe impl Shareable for Node {}
