//! Processes that are killed at any instruction while they change what is shared: what remains is whole, nothing of what
//! was done before is lost, and all room can be used again.

use crate::alone::alone;
use resty_proxy_wasm::shm::{Repair, Shared};
use resty_proxy_wasm::store::Refusal;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Repairs in this process, and ends of lists that one of them lost.
static REPAIRS: AtomicU32 = AtomicU32::new(0);
static CUTS: AtomicU32 = AtomicU32::new(0);

fn count(repair: &Repair) {
    REPAIRS.fetch_add(1, Ordering::Relaxed);
    CUTS.fetch_add(repair.cut as u32, Ordering::Relaxed);
}

/// xorshift: the child of a fork asks the system for nothing.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

/// A child process, which runs `work` until it is killed.
struct Child(libc::pid_t);

impl Child {
    fn new(work: impl Fn()) -> Self {
        // SAFETY: the child runs `work` on its only thread and never returns; the C library makes its allocator usable
        // there.
        match unsafe { libc::fork() } {
            0 => {
                // SAFETY: ends with its parent, should that be killed.
                unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
                // SAFETY: ends this process at once. It dies here, and by a panic nowhere else.
                unsafe { libc::_exit(1) }
            }
            pid => Self(pid),
        }
    }

    /// Kills it. Panics when it had ended by itself.
    fn kill(self) {
        let mut status = 0;
        // SAFETY: a process of ours that was not waited for yet.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            assert_eq!(libc::waitpid(self.0, &raw mut status, 0), self.0);
        }
        assert!(libc::WIFSIGNALED(status), "the child panicked");
    }
}

/// A value that shows whether it is whole, of a size that depends on `n`.
fn value(n: u64, random: u64) -> Vec<u8> {
    let size = match n % 16 {
        0 => 3000 + random % 9000,
        // Of one size: replaced where they are.
        1..8 => 100,
        _ => random % 300,
    };
    let mut value = vec![(random % 251) as u8; 16 + size as usize];
    value[..8].copy_from_slice(&n.to_le_bytes());
    value[8..16].copy_from_slice(&size.to_le_bytes());
    value
}

fn is_whole(key: u64, value: &[u8]) {
    let number = |at: usize| u64::from_le_bytes(value[at..at + 8].try_into().expect("8 bytes"));
    assert_eq!((number(0), number(8) + 16), (key, value.len() as u64));
    assert!(value[16..].iter().all(|byte| *byte == value[value.len() - 1]), "torn");
}

const KEYS: u64 = 64;

fn change_at_random(shared: &Shared, random: &mut Random, out: &mut Vec<u8>) {
    let key = random.below(KEYS);
    let name = key.to_le_bytes();
    let queue = 1 + (key % 2) as u32;
    match random.below(14) {
        0..6 => match shared.set(b"vm", &name, &value(key, random.below(1 << 20)), 0) {
            Ok(_) | Err(Refusal::Full) => {}
            Err(refusal) => panic!("{refusal:?}"),
        },
        6..8 => {
            shared.delete(b"vm", &name).expect("an answer");
        }
        8..11 => match shared.enqueue(queue, &value(key, random.below(1 << 20))) {
            Ok(_) | Err(Refusal::Full) => {}
            Err(refusal) => panic!("{refusal:?}"),
        },
        11..13 => {
            if shared.dequeue(queue, out) == Ok(Some(true)) {
                is_whole(u64::from_le_bytes(out[..8].try_into().expect("8 bytes")), out);
            }
        }
        _ => {
            if shared.get(b"vm", &name, out).expect("an answer").is_some() {
                is_whole(key, out);
            }
        }
    }
}

fn all_is_whole(shared: &Shared) {
    let mut out = Vec::new();
    let keys = shared.keys(b"vm", usize::MAX).expect("keys");
    for key in &keys {
        assert!(shared.get(b"vm", key, &mut out).expect("an answer").is_some());
        let key = u64::from_le_bytes(key.as_slice().try_into().expect("8 bytes"));
        is_whole(key, &out);
    }
    shared.verify().unwrap_or_else(|wrong| panic!("{wrong}"));
}

fn kill(times: u64, evicts: bool) {
    let shared = Shared::new(384 * 1024, count).expect("memory");
    shared.set_eviction(evicts).expect("the lock");
    shared.queue(b"vm", b"one").expect("room");
    shared.queue(b"vm", b"two").expect("room");
    let before = shared.size().expect("the lock").1;
    // What is never changed is never lost.
    let kept: Vec<u64> = (0..if evicts { 0 } else { 100 }).map(|n| KEYS + n).collect();
    for key in &kept {
        shared.set(b"vm", &key.to_le_bytes(), &value(*key, *key), 0).expect("room");
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let ran = Shared::new(1 << 20, count).expect("memory");
    for round in 0..times {
        let seed = random.below(u64::MAX) | 1;
        let child = Child::new(|| {
            let (mut random, mut out) = (Random(seed), Vec::new());
            ran.set(b"", b"round", &round.to_le_bytes(), 0).expect("room");
            loop {
                change_at_random(&shared, &mut random, &mut out);
            }
        });
        // It runs, and a random time later it does not.
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut out = Vec::new();
        while ran.get(b"", b"round", &mut out).expect("an answer").is_none()
            || out != round.to_le_bytes()
        {
            assert!(Instant::now() < deadline, "the child does not run");
            std::thread::yield_now();
        }
        let until = Instant::now() + Duration::from_nanos(random.below(300_000));
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        child.kill();
        all_is_whole(&shared);
        let mut out = Vec::new();
        for key in &kept {
            let there = shared.get(b"vm", &key.to_le_bytes(), &mut out).expect("an answer");
            assert!(there.is_some(), "an entry is lost that nobody touched");
        }
    }
    for key in shared.keys(b"vm", usize::MAX).expect("keys") {
        shared.delete(b"vm", &key).expect("an answer");
    }
    for queue in [1, 2] {
        while shared.dequeue(queue, &mut Vec::new()).expect("the lock") == Some(true) {}
    }
    assert_eq!(
        shared.size().expect("the lock").1,
        before,
        "room that nobody has and nobody can have"
    );
}

#[test]
fn a_thousand_kills() {
    alone("shared_kills::a_thousand_kills", || {
        kill(500, false);
        kill(500, true);
        let (repairs, cuts) = (REPAIRS.load(Ordering::Relaxed), CUTS.load(Ordering::Relaxed));
        println!("{repairs} kills were in the middle of a change");
        assert!(repairs >= 100, "hardly any kill was in the middle of a change: {repairs}");
        assert_eq!(cuts, 0, "a list led nowhere");
    });
}

/// Two processes and one key: no update is lost.
fn count_together(each: u64) {
    let shared = Shared::new(256 * 1024, count).expect("memory");
    let add = |times: u64| {
        let (mut out, mut done) = (Vec::new(), 0);
        while done < times {
            let cas = shared.get(b"vm", b"n", &mut out).expect("an answer");
            let n =
                if cas.is_some() { u64::from_le_bytes(out[..8].try_into().expect("8")) } else { 0 };
            let mut next = vec![0u8; 100];
            next[..8].copy_from_slice(&(n + 1).to_le_bytes());
            match (cas, shared.set(b"vm", b"n", &next, cas.unwrap_or(0))) {
                (Some(_), Ok(_)) => done += 1,
                (_, Err(Refusal::Mismatch)) => {}
                (_, other) => panic!("{other:?}"),
            }
        }
    };
    shared.set(b"vm", b"n", &[0; 100], 0).expect("room");
    let started = Instant::now();
    let child = Child::new(|| {
        add(each);
        shared.set(b"vm", b"done", b"", 0).expect("room");
        loop {
            std::thread::park();
        }
    });
    add(each);
    let mut out = Vec::new();
    while shared.get(b"vm", b"done", &mut out).expect("an answer").is_none() {
        std::thread::yield_now();
    }
    let took = started.elapsed();
    child.kill();
    shared.get(b"vm", b"n", &mut out).expect("an answer");
    assert_eq!(u64::from_le_bytes(out[..8].try_into().expect("8")), 2 * each);
    println!("{} updates in {took:?}, {:?} each", 2 * each, took / (2 * each) as u32);
}

#[test]
fn no_update_is_lost() {
    alone("shared_kills::no_update_is_lost", || count_together(100_000));
}

/// `cargo test --release --test core ten_million -- --ignored --nocapture`
#[test]
#[ignore = "takes seconds, and more on a busy machine"]
fn no_update_is_lost_of_ten_million() {
    alone("shared_kills::no_update_is_lost_of_ten_million", || count_together(5_000_000));
}
