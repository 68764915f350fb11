//! Contexts and requests by their ids.
//!
//! Every host function and every callback looks its context up, some several times, so this is a hash table that does
//! nothing but that: ids are numbers, and a look-up is a multiplication and, as a rule, one comparison. Most look-ups are of
//! the entry that was added last, which stays beside the table, or of the one that was looked up before.

use std::cell::Cell;
use std::marker::PhantomData;

/// What an [`IdMap`] has its entries by.
pub trait Id: Copy {
    /// A number that no other id has; never 0.
    fn number(self) -> u64;
}

impl Id for u32 {
    #[inline]
    fn number(self) -> u64 {
        self.into()
    }
}

/// See the module. `V` is best something small: entries move.
#[derive(Debug)]
pub struct IdMap<K, V> {
    /// The entry that was added last, until it is taken out or another one is added.
    newest: Slot<V>,
    others: Table<V>,
    key: PhantomData<K>,
}

#[derive(Debug)]
struct Table<V> {
    /// A power of two of them, at least twice as many as there are entries.
    slots: Box<[Slot<V>]>,
    len: usize,
    /// What a hash is shifted by to be a place in `slots`.
    shift: u32,
    /// Where the last one was found.
    last: Cell<usize>,
}

#[derive(Debug)]
struct Slot<V> {
    /// 0 where there is none.
    id: u64,
    value: Option<V>,
}

impl<V> Slot<V> {
    const EMPTY: Self = Self { id: 0, value: None };
}

const LEAST: usize = 8;

impl<K: Id, V> Default for IdMap<K, V> {
    fn default() -> Self {
        Self { newest: Slot::EMPTY, others: Table::with_slots(LEAST), key: PhantomData }
    }
}

impl<K: Id, V> IdMap<K, V> {
    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.others.len + usize::from(self.newest.value.is_some())
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry of that id.
    #[inline]
    pub fn get(&self, id: &K) -> Option<&V> {
        let id = id.number();
        if self.newest.id == id { self.newest.value.as_ref() } else { self.others.get(id) }
    }

    /// See [`IdMap::get`].
    #[inline]
    pub fn get_mut(&mut self, id: &K) -> Option<&mut V> {
        let id = id.number();
        if self.newest.id == id { self.newest.value.as_mut() } else { self.others.get_mut(id) }
    }

    /// Whether there is one of that id.
    #[inline]
    pub fn contains_key(&self, id: &K) -> bool {
        self.get(id).is_some()
    }

    /// Adds an entry, in place of the one of that id.
    #[inline]
    pub fn insert(&mut self, id: K, value: V) {
        let slot = Slot { id: id.number(), value: Some(value) };
        if self.newest.id != slot.id && !self.is_empty() {
            self.make_way(slot.id);
        }
        self.newest = slot;
    }

    /// The entry of that id, or what `make` makes. `None` when there is none, and none is made.
    #[inline]
    pub fn get_or_add(&mut self, id: K, make: impl FnOnce() -> Option<V>) -> Option<&mut V> {
        if self.contains_key(&id) {
            return self.get_mut(&id);
        }
        self.insert(id, make()?);
        self.newest.value.as_mut()
    }

    /// Moves the newest one to the others, for one of that id.
    #[inline(never)]
    fn make_way(&mut self, id: u64) {
        self.others.remove(id);
        let before = std::mem::replace(&mut self.newest, Slot::EMPTY);
        if before.value.is_some() {
            self.others.insert(before);
        }
    }

    /// Takes an entry out.
    #[inline]
    pub fn remove(&mut self, id: &K) -> Option<V> {
        let id = id.number();
        if self.newest.id == id {
            self.newest.id = 0;
            return self.newest.value.take();
        }
        self.others.remove(id)
    }

    /// Takes all entries out.
    pub fn take_all(&mut self) -> impl Iterator<Item = V> + use<K, V> {
        let Self { newest, others, .. } = std::mem::take(self);
        others.slots.into_iter().chain([newest]).filter_map(|slot| slot.value)
    }

    /// All entries, in no order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.others.slots.iter().chain([&self.newest]).filter_map(|slot| slot.value.as_ref())
    }

    /// See [`IdMap::values`].
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.others
            .slots
            .iter_mut()
            .chain([&mut self.newest])
            .filter_map(|slot| slot.value.as_mut())
    }
}

impl<V> Table<V> {
    fn with_slots(count: usize) -> Self {
        Self {
            slots: std::iter::repeat_with(|| Slot::EMPTY).take(count).collect(),
            len: 0,
            shift: u64::BITS - count.trailing_zeros(),
            last: Cell::new(0),
        }
    }

    #[inline]
    fn get(&self, id: u64) -> Option<&V> {
        if self.len == 0 {
            return None;
        }
        self.slots[self.find(id)].value.as_ref()
    }

    #[inline]
    fn get_mut(&mut self, id: u64) -> Option<&mut V> {
        if self.len == 0 {
            return None;
        }
        let at = self.find(id);
        self.slots[at].value.as_mut()
    }

    /// Adds an entry whose id is not there.
    fn insert(&mut self, slot: Slot<V>) {
        if (self.len + 1) * 2 > self.slots.len() {
            self.grow();
        }
        let at = self.search(slot.id);
        self.len += 1;
        self.slots[at] = slot;
    }

    fn remove(&mut self, id: u64) -> Option<V> {
        let mut hole = self.find(id);
        let removed = self.slots[hole].value.take()?;
        self.slots[hole].id = 0;
        self.len -= 1;
        // Those behind it that would have stood here, or before, move up: a search ends at the first empty slot.
        let mask = self.slots.len() - 1;
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let id = self.slots[at].id;
            if id == 0 {
                return Some(removed);
            }
            let wanted = self.home(id);
            if at.wrapping_sub(wanted) & mask >= at.wrapping_sub(hole) & mask {
                self.slots.swap(hole, at);
                hole = at;
            }
        }
    }

    /// Where the entry of that id is, or would be.
    #[inline]
    fn find(&self, id: u64) -> usize {
        let last = self.last.get();
        if self.slots.get(last).is_some_and(|slot| slot.id == id) { last } else { self.search(id) }
    }

    /// See [`Table::find`].
    #[inline(never)]
    fn search(&self, id: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = self.home(id) & mask;
        loop {
            let found = self.slots[at].id;
            if found == id {
                self.last.set(at);
                return at;
            }
            if found == 0 {
                return at;
            }
            at = (at + 1) & mask;
        }
    }

    /// Where a search begins. Fibonacci hashing spreads numbers that follow one another.
    #[inline]
    fn home(&self, id: u64) -> usize {
        (id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift) as usize
    }

    #[cold]
    fn grow(&mut self) {
        let mut wider = Self::with_slots(self.slots.len() * 2);
        for slot in &mut self.slots {
            if slot.id != 0 {
                let at = wider.search(slot.id);
                wider.slots[at] = Slot { id: slot.id, value: slot.value.take() };
            }
        }
        wider.len = self.len;
        *self = wider;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn it_holds_what_another_map_holds() {
        let (mut map, mut model) = (IdMap::default(), BTreeMap::new());
        let mut random = 1u32;
        for step in 0..200_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Few ids first, so that the same ones come and go in a small table, which then grows.
            let id = (random >> 8) % if step < 100_000 { 40 } else { 3_000 } + 1;
            if random >> 30 == 0 {
                map.insert(id, step);
                model.insert(id, step);
            } else if random >> 30 == 1 {
                let made = (step % 3 > 0).then_some(step);
                let got = map.get_or_add(id, || made).copied();
                if let Some(made) = made {
                    model.entry(id).or_insert(made);
                }
                assert_eq!(got.as_ref(), model.get(&id));
            } else {
                assert_eq!(map.remove(&id), model.remove(&id));
            }
            let other = (random >> 4) % 3_000 + 1;
            assert_eq!(map.get(&other), model.get(&other));
            assert_eq!(map.len(), model.len());
        }
        let mut values: Vec<_> = map.values().copied().collect();
        let mut expected: Vec<_> = model.into_values().collect();
        values.sort_unstable();
        expected.sort_unstable();
        assert_eq!(values, expected);
        assert_eq!((map.take_all().count(), map.len()), (expected.len(), 0));
    }

    #[test]
    fn ids_that_follow_one_another_are_found_at_once() {
        let mut map = IdMap::default();
        for id in 1..=10_000u32 {
            map.insert(id, id);
        }
        // Those that are there, and those that are not.
        let longest = (1..40_000).map(|id| {
            let table = &map.others;
            let mask = table.slots.len() - 1;
            table.search(id).wrapping_sub(table.home(id)) & mask
        });
        assert!(longest.max() < Some(8), "a search is short");
    }
}
