//! The lock: one word, which tells who holds it and how often something was changed.
//!
//! The upper half counts changes. The lower half is 0 while the lock is free, else the number of the process that has it,
//! or [`BROKEN`] when a change was not brought to its end. A process that waits for one that has ended takes the lock from
//! it and repairs. So to take it and to give it back are one instruction each. Taking it from a process that has ended counts
//! as a change: another process that was about to do the same then sees another word, and does not take it from the new holder.
//! docs/RATIONALE.md says why it is not a mutex of the system.

use std::ops::Deref;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::time::Duration;

use super::Refusal;
use super::process::{Process, generation};
use super::region::Region;
use super::sync::{fence, sleep, spin};

/// The lock is free, and what it guards is to be repaired.
const BROKEN: u32 = u32::MAX;

/// Whose number stands in a word of the lock.
pub(super) fn holder(word: u64) -> u32 {
    word as u32
}

/// A word of the lock after one more change than another, held by a process or by none (0).
fn changed(word: u64, holder: u32) -> u64 {
    (word >> 32).wrapping_add(1) << 32 | u64::from(holder)
}

/// The region under its lock, which goes when this is dropped.
// An address and no more: a value of several words that is written in parts and moved as a whole is waited for.
pub(super) struct Locked<'a> {
    region: &'a Region,
}

impl<'a> Locked<'a> {
    /// Acquires the lock; recovers it if its holder died. An error when more processes use the region than it has room for.
    #[inline]
    pub(super) fn take(region: &'a Region) -> Result<Self, Refusal> {
        let me = region.number()?;
        if !region.try_take(me) {
            region.wait_and_take(me);
        }
        Ok(Self { region })
    }

    /// Whether a change was left half done, by a process that was killed in the middle of it or by a panic.
    pub(super) fn is_torn(&self) -> bool {
        self.held.broken.load(Relaxed)
    }

    /// A change begins: until [`Locked::end_change`] a process that finds it must repair.
    pub(super) fn begin_change(&self) {
        self.held.broken.store(true, Relaxed);
        // The stores of the change stay behind the one that took the lock, for the process that repairs when this one was
        // killed.
        fence(Release);
    }

    /// See [`Locked::begin_change`].
    pub(super) fn end_change(&self) {
        let word = self.held.word.load(Relaxed);
        self.held.word.store(changed(word, holder(word)), Relaxed);
        self.held.broken.store(false, Relaxed);
    }

    /// Makes a change. A panic in it leaves it for the next one to repair.
    pub(super) fn change<R>(&self, f: impl FnOnce() -> R) -> R {
        self.begin_change();
        let result = f();
        self.end_change();
        result
    }
}

impl Deref for Locked<'_> {
    type Target = Region;

    fn deref(&self) -> &Region {
        self.region
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let word = self.held.word.load(Relaxed);
        let word = match self.is_torn() {
            false => word >> 32 << 32,
            true => changed(word, BROKEN),
        };
        self.region.lock_word().store(word, Release);
    }
}

impl Region {
    #[inline]
    fn try_take(&self, me: u32) -> bool {
        // A look first, which does not take the line of the cache away from who has the lock.
        let word = self.lock_word().load(Relaxed);
        match holder(word) {
            0 => self.replace_word(word, word | u64::from(me), false),
            BROKEN => self.replace_word(word, changed(word, me), true),
            _ => false,
        }
    }

    #[inline]
    fn replace_word(&self, from: u64, to: u64, broken: bool) -> bool {
        let replaced = self.lock_word().compare_exchange(from, to, AcqRel, Relaxed).is_ok();
        if replaced {
            self.held.word.store(to, Relaxed);
            self.held.broken.store(broken, Relaxed);
        }
        replaced
    }

    #[cold]
    fn wait_and_take(&self, me: u32) {
        // Its holder is done within a fraction of a microsecond, as a rule: less than going to sleep takes. To wait
        // for longer each time lets one process do many things in a row, with all that they need in its cache.
        const LONGEST: u32 = 1024;
        let mut wait = 1;
        while wait <= LONGEST {
            spin(wait);
            wait *= 2;
            if self.try_take(me) {
                return;
            }
        }
        self.sleep_and_take(me);
    }

    /// The holder was put to sleep by the system, or killed.
    fn sleep_and_take(&self, me: u32) {
        const LONGEST: Duration = Duration::from_millis(1);
        let mut pause = Duration::from_micros(50);
        while !self.try_take(me) {
            let word = self.lock_word().load(Acquire);
            // Only the process that takes the lock from it changes the word of a process that has ended.
            if !matches!(holder(word), 0 | BROKEN)
                && self.process(holder(word)).is_gone()
                && self.replace_word(word, changed(word, me), true)
            {
                return;
            }
            sleep(pause);
            pause = (pause * 2).min(LONGEST);
        }
    }

    /// The number of this process, which no other process that lives has: one more than its place in the list of processes.
    #[inline]
    pub(super) fn number(&self) -> Result<u32, Refusal> {
        self.known_number().map_or_else(|| self.enter(), Ok)
    }

    #[inline]
    fn known_number(&self) -> Option<u32> {
        let known = self.me.load(Relaxed);
        let number = known as u32;
        (number != 0 && (known >> 32) as u32 == generation()).then_some(number)
    }

    /// The process of a number.
    pub(super) fn process(&self, number: u32) -> Process {
        let processes = &self.header().processes;
        let place = number.checked_sub(1).and_then(|at| processes.get(at as usize));
        Process::from_bits(place.map_or(0, |place| place.load(Acquire)))
    }

    /// Gives this process a number: one that is free, or that of a process that has ended.
    #[cold]
    fn enter(&self) -> Result<u32, Refusal> {
        // Two threads would take each other for a process that has ended.
        let _one = self.entering.lock();
        if let Some(number) = self.known_number() {
            return Ok(number);
        }
        let this = Process::this();
        let processes = &self.header().processes;
        for (at, place) in processes.iter().enumerate() {
            let before = place.load(Acquire);
            let is_free =
                before == 0 || before == this.to_bits() || Process::from_bits(before).is_gone();
            let ours =
                is_free && place.compare_exchange(before, this.to_bits(), AcqRel, Relaxed).is_ok();
            if ours {
                let number = at as u32 + 1;
                self.header().wakes[at].store(0, Relaxed);
                // It may have been killed with the lock, which now looks as if this process had it.
                let word = self.lock_word().load(Acquire);
                if holder(word) == number {
                    let broken = changed(word, BROKEN);
                    let _ = self.lock_word().compare_exchange(word, broken, AcqRel, Relaxed);
                }
                self.me.store(u64::from(generation()) << 32 | u64::from(number), Relaxed);
                return Ok(number);
            }
        }
        Err(Refusal::TooManyProcesses)
    }
}

/// A small region without anything in it.
#[cfg(test)]
pub(super) fn test_region() -> Region {
    Region::new(crate::limits::MIN_SHARED_MEMORY).expect("a mapping")
}

#[cfg(test)]
mod tests {
    use super::super::Shared;
    use super::*;
    use crate::limits;

    /// Bits of a process that has ended.
    const GONE: u64 = 0;

    fn empty() -> Shared {
        Shared::new(limits::MIN_SHARED_MEMORY, |repair| {
            assert_eq!((repair.kept, repair.cut), (1, 0))
        })
        .expect("a mapping")
    }

    fn with_an_entry() -> Shared {
        let shared = empty();
        shared.set(b"", b"key", b"value", 0).expect("room");
        shared
    }

    fn has(shared: &Shared) -> bool {
        let mut value = Vec::new();
        shared.get(b"", b"key", &mut value).expect("the lock").is_some() && value == b"value"
    }

    #[test]
    fn who_waits_takes_the_lock_from_a_process_that_has_ended() {
        let shared = with_an_entry();
        let region = &shared.region;
        let me = region.number().expect("a number");
        // None; a process that has ended; another one that has its id now.
        let another = Process::from_bits(Process::this().to_bits() ^ 1).to_bits();
        for (number, process) in [(me + 7, GONE), (me + 1, 1), (me + 1, another)] {
            let place = &region.header().processes[number as usize - 1];
            place.store(process, Relaxed);
            let word = region.lock_word().load(Relaxed);
            region.lock_word().store(word | u64::from(number), Relaxed);
            assert!(has(&shared));
            let after = region.lock_word().load(Relaxed);
            assert!(after > changed(word, 0) && holder(after) == 0, "repaired, and free");
            place.store(0, Relaxed);
        }
        shared.verify().expect("all in order");
    }

    #[test]
    fn who_gets_the_number_of_a_process_that_has_ended_does_not_seem_to_have_its_lock() {
        let shared = with_an_entry();
        let region = &shared.region;
        let me = region.number().expect("a number");
        // As in a child of this process.
        region.me.store(u64::from(generation().wrapping_sub(1)) << 32 | u64::from(me), Relaxed);
        let word = region.lock_word().load(Relaxed);
        region.lock_word().store(word | u64::from(me), Relaxed);
        region.header().processes[me as usize - 1].store(GONE, Relaxed);
        assert!(has(&shared));
        assert_eq!(region.number().ok(), Some(me));
        shared.verify().expect("all in order");
    }

    #[test]
    fn a_panic_in_a_change_leaves_it_to_be_repaired() {
        let shared = with_an_entry();
        let panics = std::panic::catch_unwind(|| {
            shared.lock().expect("the lock").change(|| std::panic::resume_unwind(Box::new(())));
        });
        assert!(panics.is_err());
        assert_eq!(holder(shared.region.lock_word().load(Relaxed)), BROKEN);
        assert!(has(&shared));
        assert_eq!(holder(shared.region.lock_word().load(Relaxed)), 0);
    }

    #[test]
    fn more_processes_than_there_is_room_for_are_refused() {
        let shared = empty();
        for place in &shared.region.header().processes {
            // The first process of the system, which lives, and is not this one.
            place.store(1 << 32, Relaxed);
        }
        assert_eq!(shared.set(b"", b"key", b"", 0), Err(Refusal::TooManyProcesses));
        shared.region.header().processes[7].store(GONE, Relaxed);
        shared.set(b"", b"key", b"", 0).expect("room for this process");
        assert_eq!(shared.region.number().ok(), Some(8));
    }
}
