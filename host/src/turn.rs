//! Waiting for another process that compiles the same module.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// What came of an attempt to take a lock.
pub enum Attempt<T> {
    /// It is taken, until this is dropped.
    Held(T),
    /// Another one has it.
    Taken,
    /// There are no such locks here.
    Impossible,
}

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(5);
/// One that takes longer than this does not continue; a module is then compiled twice.
const LONGEST: Duration = Duration::from_secs(300);

/// Tries until a lock is taken. `None` where there are no such locks, or the one who has it keeps it for too long.
#[allow(clippy::disallowed_methods, reason = "who compiles waits as long as compiling takes")]
pub fn wait<T>(mut attempt: impl FnMut() -> Attempt<T>) -> Option<T> {
    let began = Instant::now();
    loop {
        match attempt() {
            Attempt::Held(lock) => return Some(lock),
            Attempt::Impossible => return None,
            Attempt::Taken if began.elapsed() > LONGEST => return None,
            Attempt::Taken => sleep(PAUSE),
        }
    }
}
