//! Room for nodes: pages that are cut into places of one size, and runs of pages for what is larger.
//!
//! Nothing here needs to survive a process that is killed in the middle of it: it follows from the nodes that can be
//! reached, and [`super::repair`] makes it again from them.

use std::sync::atomic::Ordering::Relaxed;

use super::layout::{Link, PAGE, SIZES};
use super::lock::Locked;

/// `Page::class` of a free page.
const FREE: u32 = 0;
/// `Page::class` of a page of a run.
const RUN: u32 = u32::MAX;

fn class_of(size: usize) -> Option<usize> {
    SIZES.iter().position(|place| *place >= size)
}

/// The bits of all places of a class.
fn full(class: usize) -> u64 {
    u64::MAX >> (64 - PAGE / SIZES[class])
}

impl Locked<'_> {
    /// Room for a node of that size, `None` when there is none.
    pub(super) fn allocate(&self, size: usize) -> Option<Link> {
        let Some(class) = class_of(size) else {
            let count = size.div_ceil(PAGE);
            let first = self.take_pages(count)?;
            self.pages()[first].run.store(count as u32, Relaxed);
            return Some(self.link_to(first, 0));
        };
        let spare = &self.header().spare[class];
        let link = spare.load(Relaxed);
        if link != 0 {
            spare.store(0, Relaxed);
            return Some(link);
        }
        let partial = &self.header().partial[class];
        let at = match partial.load(Relaxed) {
            0 => {
                let at = self.take_pages(1)?;
                self.pages()[at].class.store(class as u32 + 1, Relaxed);
                self.put_in_list(at, class);
                at
            }
            found => found as usize - 1,
        };
        let page = &self.pages()[at];
        let used = page.used.load(Relaxed);
        let place = used.trailing_ones() as usize;
        let used = used | 1 << place;
        page.used.store(used, Relaxed);
        if used == full(class) {
            self.take_from_list(at, class);
        }
        Some(self.link_to(at, place * SIZES[class]))
    }

    /// Gives the room of a node back.
    pub(super) fn free(&self, link: Link, size: usize) {
        if let Some(class) = class_of(size) {
            let spare = &self.header().spare[class];
            if spare.load(Relaxed) == 0 {
                return spare.store(link, Relaxed);
            }
        }
        self.free_place(link, size);
    }

    /// Gives free places back.
    pub(super) fn free_spare(&self) {
        for (spare, size) in self.header().spare.iter().zip(SIZES) {
            let link = spare.load(Relaxed);
            if link != 0 {
                spare.store(0, Relaxed);
                self.free_place(link, size);
            }
        }
    }

    fn free_place(&self, link: Link, size: usize) {
        let Some((at, offset)) = self.page_of(link) else { return };
        let page = &self.pages()[at];
        let Some(class) = class_of(size) else {
            let count = page.run.load(Relaxed) as usize;
            return self.give_pages(at, count);
        };
        let before = page.used.load(Relaxed);
        let used = before & !(1 << (offset / SIZES[class]));
        page.used.store(used, Relaxed);
        if before == full(class) {
            self.put_in_list(at, class);
        }
        if used == 0 {
            self.take_from_list(at, class);
            self.give_pages(at, 1);
        }
    }

    /// Forgets all that is taken.
    pub(super) fn forget_heap(&self) {
        for page in self.pages() {
            page.class.store(FREE, Relaxed);
            page.used.store(0, Relaxed);
        }
        self.map().iter().for_each(|word| word.store(0, Relaxed));
        self.header().partial.iter().for_each(|first| first.store(0, Relaxed));
        self.header().spare.iter().for_each(|spare| spare.store(0, Relaxed));
        self.header().used_pages.store(0, Relaxed);
        self.header().search_from.store(0, Relaxed);
    }

    /// Takes the room of a node that was found after [`Locked::forget_heap`]. False when it is none that
    /// [`Locked::allocate`] gives, or when another node has it.
    pub(super) fn claim(&self, link: Link, size: u64) -> bool {
        let (Some((at, offset)), Ok(size)) = (self.page_of(link), usize::try_from(size)) else {
            return false;
        };
        let Some(class) = class_of(size) else {
            let count = size.div_ceil(PAGE);
            let fits = offset == 0 && count <= self.pages().len() - at;
            let free = |page: usize| self.pages()[page].class.load(Relaxed) == FREE;
            if !fits || !(at..at + count).all(free) {
                return false;
            }
            self.mark(at, count, true);
            self.pages()[at].run.store(count as u32, Relaxed);
            return true;
        };
        let page = &self.pages()[at];
        let place = offset / SIZES[class];
        let used = page.used.load(Relaxed);
        let of = page.class.load(Relaxed);
        let is_place = offset % SIZES[class] == 0 && full(class) >> place & 1 == 1;
        if !is_place || used >> place & 1 == 1 || (of != FREE && of != class as u32 + 1) {
            return false;
        }
        if of == FREE {
            self.mark(at, 1, true);
            page.class.store(class as u32 + 1, Relaxed);
        }
        page.used.store(used | 1 << place, Relaxed);
        true
    }

    /// Lists the pages with room, after all nodes have theirs.
    pub(super) fn list_pages_with_room(&self) {
        for (at, page) in self.pages().iter().enumerate() {
            let class = page.class.load(Relaxed);
            if class != FREE && class != RUN {
                let class = class as usize - 1;
                if page.used.load(Relaxed) != full(class) {
                    self.put_in_list(at, class);
                }
            }
        }
    }

    /// The bytes that are taken, by whole pages.
    pub(super) fn used(&self) -> usize {
        self.header().used_pages.load(Relaxed) as usize * PAGE
    }

    fn put_in_list(&self, at: usize, class: usize) {
        let first = &self.header().partial[class];
        let next = first.load(Relaxed);
        let page = &self.pages()[at];
        page.next.store(next, Relaxed);
        page.previous.store(0, Relaxed);
        if next != 0 {
            self.pages()[next as usize - 1].previous.store(at as u32 + 1, Relaxed);
        }
        first.store(at as u32 + 1, Relaxed);
    }

    fn take_from_list(&self, at: usize, class: usize) {
        let page = &self.pages()[at];
        let (next, previous) = (page.next.load(Relaxed), page.previous.load(Relaxed));
        match previous {
            0 => self.header().partial[class].store(next, Relaxed),
            previous => self.pages()[previous as usize - 1].next.store(next, Relaxed),
        }
        if next != 0 {
            self.pages()[next as usize - 1].previous.store(previous, Relaxed);
        }
    }

    /// Takes pages in a row.
    fn take_pages(&self, count: usize) -> Option<usize> {
        self.find_free_pages(count).or_else(|| {
            self.free_spare();
            self.find_free_pages(count)
        })
    }

    fn find_free_pages(&self, count: usize) -> Option<usize> {
        let last = self.pages().len();
        let from = (self.header().search_from.load(Relaxed) as usize).min(last);
        let found = self.find_pages(from, last, count);
        let at = found.or_else(|| self.find_pages(0, last.min(from + count - 1), count))?;
        self.mark(at, count, true);
        self.header().search_from.store((at + count) as u32, Relaxed);
        Some(at)
    }

    fn give_pages(&self, at: usize, count: usize) {
        let count = count.min(self.pages().len() - at);
        self.mark(at, count, false);
    }

    fn mark(&self, at: usize, count: usize, taken: bool) {
        for page in at..at + count {
            let (word, bit) = (&self.map()[page / 64], 1 << (page % 64));
            let old = word.load(Relaxed);
            word.store(if taken { old | bit } else { old & !bit }, Relaxed);
            self.pages()[page].class.store(if taken { RUN } else { FREE }, Relaxed);
            self.pages()[page].used.store(0, Relaxed);
        }
        let used = &self.header().used_pages;
        let change = count as u32;
        let now = used.load(Relaxed);
        used.store(if taken { now + change } else { now.saturating_sub(change) }, Relaxed);
    }

    fn find_pages(&self, from: usize, to: usize, count: usize) -> Option<usize> {
        let (mut at, mut start) = (from, from);
        while at < to {
            let word = self.map()[at / 64].load(Relaxed) >> (at % 64);
            // Pages from here that are alike: free ones, or taken ones.
            let alike = |bits: u32| (bits as usize).clamp(1, 64 - at % 64);
            if word & 1 == 1 {
                at += alike(word.trailing_ones());
                start = at;
                continue;
            }
            at = to.min(at + alike(word.trailing_zeros()));
            if at - start >= count {
                return Some(start);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::lock::test_region;
    use super::*;

    #[test]
    fn every_size_has_a_place_and_every_place_comes_back() {
        let region = test_region();
        let heap = Locked::take(&region).expect("the lock");
        let mut taken = Vec::new();
        for round in 0..3 {
            for size in [1, 64, 65, 100, 500, 1360, 1361, 2048, 2049, 4096, 4097, 10_000] {
                for _ in 0..round + 1 {
                    taken.push((heap.allocate(size).expect("room"), size));
                }
            }
        }
        let mut places: Vec<(u64, u64)> = taken
            .iter()
            .map(|(link, size)| (u64::from(*link) * 16, u64::from(*link) * 16 + *size as u64))
            .collect();
        places.sort_unstable();
        assert!(places.windows(2).all(|pair| pair[0].1 <= pair[1].0), "no two overlap");
        let used = heap.used();
        heap.forget_heap();
        assert!(taken.iter().all(|(link, size)| heap.claim(*link, *size as u64)));
        assert!(taken.iter().all(|(link, size)| !heap.claim(*link, *size as u64)), "only once");
        heap.list_pages_with_room();
        assert_eq!(heap.used(), used);
        for (link, size) in taken {
            heap.free(link, size);
        }
        heap.free_spare();
        assert_eq!(heap.used(), 0);
    }

    #[test]
    fn a_full_heap_gives_nothing_and_then_all_of_it_again() {
        let region = test_region();
        let heap = Locked::take(&region).expect("the lock");
        for size in [64, 1360, 5000] {
            let fill = || std::iter::from_fn(|| heap.allocate(size)).collect::<Vec<_>>();
            let first = fill();
            let spare = heap.pages().len() * PAGE - heap.used();
            assert!(spare < size.next_multiple_of(PAGE), "{spare} bytes are left over");
            first.iter().for_each(|link| heap.free(*link, size));
            heap.free_spare();
            assert_eq!((heap.used(), fill().len()), (0, first.len()));
            first.iter().for_each(|link| heap.free(*link, size));
            heap.free_spare();
        }
    }

    #[test]
    fn places_that_are_none_are_not_claimed() {
        let region = test_region();
        let heap = Locked::take(&region).expect("the lock");
        let page = heap.link_to(0, 0);
        assert!(!heap.claim(0, 64) && !heap.claim(page - 1, 64) && !heap.claim(u32::MAX, 64));
        assert!(!heap.claim(page + 1, 64), "not at the beginning of a place");
        assert!(!heap.claim(heap.link_to(0, 42 * 96), 96), "behind the last place");
        assert!(!heap.claim(page, 1 << 40) && !heap.claim(heap.link_to(1, 16), 5000));
        assert!(heap.claim(page, 64) && !heap.claim(heap.link_to(0, 128), 100), "of another size");
    }
}
