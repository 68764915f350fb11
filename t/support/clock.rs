//! A clock of nginx that a test moves: what waits in nginx waits for this clock, and no test with it depends on speed.

use super::{poll, root};
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::process::Command;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tempfile::TempDir;

/// The clock of one nginx with one worker. It stands still until [`Clock::go_to`].
pub(crate) struct Clock {
    folder: TempDir,
    shared: &'static Shared,
}

/// What nginx shares with the test: `clock.c` has the same, and says what each is.
#[repr(C)]
struct Shared {
    wall: AtomicI64,
    monotonic: AtomicI64,
    passed: AtomicI64,
    settled: AtomicI64,
    next: AtomicI64,
    rounds: AtomicI64,
}

const NANOSECONDS_PER_MS: i64 = 1_000_000;

impl Clock {
    /// A clock that shows so many seconds since 1970, and since the machine was started.
    pub(crate) fn new(wall: i64, monotonic: i64) -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let file = File::create_new(folder.path().join("clock")).expect("a file");
        file.set_len(size_of::<Shared>() as u64).expect("a length");
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the file is as long, any bytes are a `Shared`, and it is mapped until the process ends.
        let shared = unsafe {
            let size = size_of::<Shared>();
            let file = file.as_raw_fd();
            let at = libc::mmap(ptr::null_mut(), size, protection, libc::MAP_SHARED, file, 0);
            assert!(at != libc::MAP_FAILED, "a mapping");
            &*at.cast::<Shared>()
        };
        shared.wall.store(wall * 1_000 * NANOSECONDS_PER_MS, Ordering::SeqCst);
        shared.monotonic.store(monotonic * 1_000 * NANOSECONDS_PER_MS, Ordering::SeqCst);
        Self { folder, shared }
    }

    /// The variables of the environment with which nginx has this clock.
    pub(crate) fn env(&self) -> [(&'static str, String); 2] {
        let path = self.folder.path().join("clock");
        [
            ("LD_PRELOAD", library().display().to_string()),
            ("RPW_TEST_CLOCK", path.display().to_string()),
        ]
    }

    /// Removes its file, which nginx has open. Threads of a test that has ended may keep the clock.
    pub(crate) fn remove_file(&self) {
        let _ = std::fs::remove_dir_all(self.folder.path());
    }

    /// Milliseconds since the start.
    pub(crate) fn now(&self) -> u64 {
        ms(self.shared.passed.load(Ordering::SeqCst))
    }

    /// Continues to that time, but not past what is due before: a timer of nginx, or what `due` says. nginx does what is due at
    /// each of these times before the clock continues, and so does `settle`.
    pub(crate) fn go_to(&self, time: u64, due: impl Fn() -> Option<u64>, settle: impl Fn()) {
        loop {
            settle();
            self.settle();
            let now = self.now();
            if now >= time {
                return;
            }
            let timer = self.shared.next.load(Ordering::SeqCst);
            // A timer of a part of a millisecond is due at its end.
            let timer = (timer != i64::MAX).then(|| ms(timer + NANOSECONDS_PER_MS - 1));
            let next = [timer, due()].into_iter().flatten().filter(|at| *at > now);
            let next = next.chain([time]).min().expect("a time");
            let passed = i64::try_from(next).expect("a time") * NANOSECONDS_PER_MS;
            self.shared.passed.store(passed, Ordering::SeqCst);
        }
    }

    /// From here on the clock continues by itself, until what is returned is dropped.
    pub(crate) fn run(&self) -> Running {
        let (stop, stopped) = channel::<()>();
        let shared = self.shared;
        let thread = thread::spawn(move || {
            let step = Duration::from_millis(5);
            while stopped.recv_timeout(step) == Err(RecvTimeoutError::Timeout) {
                shared.passed.fetch_add(5 * NANOSECONDS_PER_MS, Ordering::SeqCst);
            }
        });
        Running { stop: Some(stop), thread: Some(thread) }
    }

    /// Waits until nginx has done all that it can do now.
    fn settle(&self) {
        let rounds = self.shared.rounds.load(Ordering::SeqCst);
        let settled = poll(|| {
            let now = self.shared.passed.load(Ordering::SeqCst);
            // The first round that ends may have begun before what nginx was sent.
            let looked = self.shared.rounds.load(Ordering::SeqCst) >= rounds + 2;
            (looked && self.shared.settled.load(Ordering::SeqCst) == now).then_some(())
        });
        assert!(settled.is_some(), "nginx never finds nothing to do");
    }
}

/// A clock that continues by itself.
pub(crate) struct Running {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().expect("a thread").join().expect("it ends");
    }
}

fn ms(nanoseconds: i64) -> u64 {
    u64::try_from(nanoseconds / NANOSECONDS_PER_MS).expect("a time")
}

/// `clock.c` as a library.
fn library() -> PathBuf {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let made = tempfile::NamedTempFile::new_in(&folder).expect("a file");
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(made.path())
            .arg(root().join("t/support/clock.c"))
            .arg("-ldl")
            .status();
        assert!(status.expect("a C compiler").success(), "clock.c is not built");
        let path = folder.join("clock.so");
        // Other tests may use the one that is there.
        made.persist(&path).expect("a file");
        path
    };
    LIBRARY.get_or_init(build).clone()
}
