//! Which process it is, and whether that still lives.

use std::io::Write as _;
use std::sync::Once;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, read};
use rustix::process::{Pid, getpid, test_kill_process};

/// A process by its id and by when it started, for ids are given out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub id: u32,
    /// Of the number of the system's ticks since it was started, the lower half; 0 when it cannot be known.
    started: u32,
}

impl Process {
    /// The one that runs this.
    pub(super) fn this() -> Self {
        let id = getpid();
        let started = stat(id).map_or(0, |stat| stat.started);
        Self { id: id.as_raw_nonzero().get().cast_unsigned(), started }
    }

    /// Both numbers as one; 0 is no process.
    pub(super) fn to_bits(self) -> u64 {
        u64::from(self.id) << 32 | u64::from(self.started)
    }

    /// See [`Process::to_bits`].
    pub(super) fn from_bits(bits: u64) -> Self {
        Self { id: (bits >> 32) as u32, started: bits as u32 }
    }

    /// Whether it has ended. In doubt it lives.
    pub(super) fn is_gone(self) -> bool {
        let Some(id) = i32::try_from(self.id).ok().and_then(Pid::from_raw) else { return true };
        if test_kill_process(id) == Err(Errno::SRCH) {
            return true;
        }
        stat(id)
            .is_some_and(|stat| stat.ended || (self.started != 0 && stat.started != self.started))
    }
}

struct Stat {
    /// It waits for its parent to ask what became of it.
    ended: bool,
    started: u32,
}

/// What the system says of a process; `None` when it does not say.
fn stat(id: Pid) -> Option<Stat> {
    // On the stack, for a child of a process with several threads may run this before anything else. That of the first
    // thread says the same as `/proc/PID/stat`, which qemu answers itself for the process that asks, with another time.
    let mut path = [0; 48];
    write!(&mut path[..], "/proc/{id}/task/{id}/stat").ok()?;
    let path = path.split(|byte| *byte == 0).next()?;
    let mut text = [0; 1024];
    let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let size = read(file, &mut text).ok()?;
    parse(&text[..size])
}

/// Reads proc_pid_stat(5), which the threads have too: the third number is the state, the 22nd when it started. The second is a name in parentheses,
/// which can hold anything.
fn parse(text: &[u8]) -> Option<Stat> {
    let behind_name = text.iter().rposition(|byte| *byte == b')')? + 1;
    let mut numbers = str::from_utf8(&text[behind_name..]).ok()?.split_ascii_whitespace();
    let ended = matches!(numbers.next()?, "Z" | "X" | "x");
    let started: u64 = numbers.nth(18)?.parse().ok()?;
    Some(Stat { ended, started: started as u32 })
}

/// How often this process was forked from one that counted: a number that differs between a process and its parent, and
/// as cheap to ask as a load.
pub fn generation() -> u32 {
    GENERATION.load(Relaxed)
}

static GENERATION: AtomicU32 = AtomicU32::new(0);

/// Starts counting forks.
pub fn watch_forks() {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        // SAFETY: the handler only adds to an atomic, which is safe in the child of a fork; the library is never unloaded
        // (it is linked with -z nodelete), so the address stays good.
        let refused = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        assert_eq!(refused, 0, "no memory to be told of forks");
    });
}

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_lives_until_it_ends() {
        let this = Process::this();
        assert!(this.started != 0 && !this.is_gone());
        assert_eq!(Process::from_bits(this.to_bits()), this);
        assert!(Process { started: this.started + 1, ..this }.is_gone(), "another of that id");
        assert!(!Process { started: 0, ..this }.is_gone());
        assert!(Process::from_bits(0).is_gone());

        // SAFETY: the child does nothing but end.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: ends this process.
            unsafe { libc::_exit(0) };
        }
        let child = Process { id: child.cast_unsigned(), started: 0 };
        while !child.is_gone() {
            std::thread::yield_now();
        }
        // SAFETY: a child of this process, which has ended and was not asked for.
        unsafe { libc::waitpid(child.id.cast_signed(), std::ptr::null_mut(), 0) };
        assert!(child.is_gone());
    }

    #[test]
    fn names_can_hold_anything() {
        let stat = parse(b"7 (a) Z 1 (b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 99 20\n");
        assert!(stat.is_some_and(|stat| !stat.ended && stat.started == 99));
        assert!(parse(b"7 (a) S 1 2").is_none() && parse(b"").is_none());
    }
}
