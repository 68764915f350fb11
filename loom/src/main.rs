//! Runs the lock of the shared memory in all orders of loads and stores that the memory model of
//! Rust allows, which are more than any processor shows. `cargo run --release --manifest-path loom/Cargo.toml [-- NAME
//! [PREEMPTIONS]]` runs all models or those whose names hold NAME, in all orders with at most so many preemptions.
//!
//! The files under test are the product's. What they stand on is replaced: the atomics by loom's, the mapping by a few nodes
//! of those (`region.rs`), the system's word on whether a process lives by a number. Threads stand for processes.

// The product uses all of what is in these files, a model a part.
#![allow(dead_code)]

use loom::sync::Arc;
use loom::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use loom::thread;

#[path = "../../src/shm/fast/mod.rs"]
mod fast;
#[path = "../../src/shm/layout.rs"]
mod layout;
#[path = "../../src/shm/lock.rs"]
mod lock;
#[path = "../../src/shm/node.rs"]
mod node;
#[path = "../../src/shm/table.rs"]
mod table;
#[path = "../../src/shm/wake.rs"]
mod wake;

mod region;

mod store {
    pub type Cas = u32;
    pub type Address = u32;
}

mod limits {
    pub const QUEUE_NAMES: usize = 1;
    pub const SHARED_PROCESSES: usize = 4;
}

mod process {
    /// A process that lives has a number that is not 0.
    pub struct Process(u64);

    impl Process {
        pub fn this() -> Self {
            unreachable!("each region of a model has its number")
        }

        pub fn to_bits(&self) -> u64 {
            self.0
        }

        pub fn from_bits(bits: u64) -> Self {
            Self(bits)
        }

        pub fn is_gone(&self) -> bool {
            self.0 == 0
        }
    }

    pub fn generation() -> u32 {
        0
    }
}

mod sync {
    use std::time::Duration;

    pub use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, fence};

    pub fn spin(_: u32) {
        loom::thread::yield_now();
    }

    pub fn sleep(_: Duration) {
        loom::thread::yield_now();
    }
}

/// Why something is not done.
#[derive(Debug)]
pub enum Refusal {
    TooManyProcesses,
}

use layout::Kind;
use lock::Locked;
use node::Parts;
use region::{KEY, Memory, Region};

/// Both words of each value are its version.
fn value(version: u32) -> [u8; 16] {
    let word = u64::from(version).to_ne_bytes();
    [word, word].concat().try_into().expect("two words")
}

/// Sets the entry to its next version, by another node or in the same one.
fn set(region: &Region, in_place: bool) {
    let locked = Locked::take(region).expect("a number");
    if locked.is_torn() {
        locked.change(|| locked.undo_replace());
    }
    let place = locked.find(Kind::Entry, 0, b"", KEY);
    let found = locked.node(place.link);
    let tag = found.map_or(0, |node| node.tag.load(Relaxed)) + 1;
    match found {
        Some(node) if in_place => {
            locked.change(|| locked.replace(place.link, node, &value(tag), tag))
        }
        _ => locked.change(|| {
            let value = value(tag);
            let parts =
                Parts { kind: Kind::Entry, hash: 0, tag, value: &value, space: b"", key: KEY };
            let link = locked.make(&parts).expect("room");
            locked.put(place, link);
        }),
    }
}

/// Reads the entry, and checks that all of it is of one version.
fn get(region: &Region, most: u32) -> u32 {
    let locked = Locked::take(region).expect("a number");
    if locked.is_torn() {
        locked.change(|| locked.undo_replace());
    }
    let place = locked.find(Kind::Entry, 0, b"", KEY);
    let node = locked.node(place.link).expect("the entry is there all the time");
    let version = node.tag.load(Relaxed);
    let words = locked.value_words(place.link, node);
    assert!(words.iter().all(|word| word.load(Relaxed) == u64::from(version)), "torn");
    assert!((1..=most).contains(&version));
    version
}

/// A process that is killed in the middle of a replacement, behind so many words.
fn killed(region: &Region, me: usize, written: usize) {
    let locked = Locked::take(region).expect("a number");
    let place = locked.find(Kind::Entry, 0, b"", KEY);
    let node = locked.node(place.link).expect("an entry");
    locked.begin_change();
    locked.note_value(place.link, node);
    for word in &locked.value_words(place.link, node)[..written] {
        word.store(99, Relaxed);
    }
    // The lock stays taken.
    std::mem::forget(locked);
    // What the system says of it is known after all that it did.
    region.header().processes[me - 1].store(0, Release);
}

/// Runs a model in all orders that have at most so many preemptions: the more, the longer it takes. A model that has not
/// come to its end after ten minutes is stopped, and says so.
fn model(name: &str, preemptions: usize, run: impl Fn() + Send + Sync + 'static) {
    const MOST: std::time::Duration = std::time::Duration::from_secs(600);
    let mut arguments = std::env::args().skip(1);
    if arguments.next().is_some_and(|wanted| !name.contains(&wanted)) {
        return;
    }
    let preemptions = arguments.next().map_or(preemptions, |most| most.parse().expect("a number"));
    let begin = std::time::Instant::now();
    let orders = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let count = orders.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    builder.max_duration = Some(MOST);
    builder.checkpoint_interval = 100;
    builder.check(move || {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        run();
    });
    let orders = orders.load(std::sync::atomic::Ordering::Relaxed);
    let took = begin.elapsed();
    let all = if took < MOST { "all" } else { "the first" };
    println!("{name}: {all} {orders} orders with {preemptions} preemptions, {took:.0?}");
}

/// A memory with one entry of version 1.
fn memory() -> Arc<Memory> {
    let memory = Arc::new(Memory::default());
    set(&Region::new(&memory, 1), false);
    memory
}

/// Runs these at once. All are threads of their own: loom tries too few orders of the one that starts the others.
fn at_once<T: Send + 'static>(runs: Vec<Box<dyn FnOnce() -> T + Send>>) -> Vec<T> {
    let threads: Vec<_> = runs.into_iter().map(thread::spawn).collect();
    threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
}

fn main() {
    model("one says where it is woken, one makes a plan", 3, || {
        let memory = Arc::new(Memory::default());
        let [makes, comes] = [1, 2].map(|number| Region::new(&memory, number));
        let sees = at_once(vec![
            Box::new(move || {
                makes.header().plans.store(1, Release);
                makes.addresses() == [7]
            }),
            Box::new(move || {
                comes.set_address(2, 7);
                comes.last_plan() == 1
            }) as Box<dyn FnOnce() -> bool + Send>,
        ]);
        assert_ne!(sees, [false, false], "each misses the other");
    });
    for (name, in_place, preemptions) in
        [("replaced in place", true, 3), ("moved to another node", false, 3)]
    {
        model(&format!("an entry that is {name} while it is read"), preemptions, move || {
            let memory = memory();
            let [writer, reader, last] = [2, 3, 4].map(|number| Region::new(&memory, number));
            at_once(vec![
                Box::new(move || {
                    set(&writer, in_place);
                    set(&writer, in_place);
                }),
                Box::new(move || {
                    get(&reader, 3);
                }),
            ]);
            assert_eq!(get(&last, 3), 3);
        });
    }
    model("two that write", 3, || {
        let memory = memory();
        let [first, second, last] = [2, 3, 4].map(|number| Region::new(&memory, number));
        at_once(vec![Box::new(move || set(&first, true)), Box::new(move || set(&second, false))]);
        assert_eq!(get(&last, 3), 3, "both count");
    });
    for written in 0..=2 {
        model(&format!("one is killed behind {written} words, one repairs"), 3, move || {
            let memory = memory();
            let [dies, repairs, last] = [1, 2, 3].map(|number| Region::new(&memory, number));
            at_once(vec![
                Box::new(move || killed(&dies, 1, written)),
                Box::new(move || set(&repairs, true)),
            ]);
            // The one that repairs came first or last. When it came first, the lock is still the killed one's.
            if lock::holder(last.lock_word().load(Acquire)) == 0 {
                assert_eq!(get(&last, 2), 2);
            } else {
                set(&last, true);
                assert_eq!(get(&last, 3), 3);
            }
        });
        model(&format!("one is killed behind {written} words, one reads"), 3, move || {
            let memory = memory();
            let [dies, reads, last] = [1, 2, 3].map(|number| Region::new(&memory, number));
            at_once(vec![
                Box::new(move || killed(&dies, 1, written)),
                Box::new(move || {
                    get(&reads, 1);
                }),
            ]);
            assert_eq!(get(&last, 1), 1);
        });
    }
}
