//! The thread that makes time pass for guests.
//!
//! A worker has one from its first request on. It ticks while guests run now and then, and sleeps for good when
//! none has for a while. Before that, in the master above all, a thread lives only as long as the call that needs
//! it: none may exist when nginx forks.
//!
//! The time that passes is processor time of the thread that runs guests: a filter is not stopped because the machine had
//! no time for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, const_mutex};

use super::failure::Failure;
use super::{forks, threads};
use crate::vm::deadline;

const TICK: Duration = Duration::from_millis(deadline::TICK_MS as u64);

/// Ticks without a call after which the thread goes to sleep: one second, so that a busy worker does not wake
/// it all the time.
const IDLE_TICKS: u32 = 100;

/// Ticks at a time that the thread may be behind. The guest that runs may not be the one that more are due to.
const CATCH_UP: u32 = 2;

/// A guest that uses no processor, say in a function of Lua that blocks, has so many times its limit.
const PATIENCE: u32 = 10;

/// Room enough for a loop that calls nothing.
const STACK: usize = 128 * 1024;

/// The time keeper of a process.
pub(super) struct Ticker {
    /// Counts entries and leaves of guests: odd while one runs. Written by nginx's thread only.
    calls: AtomicU64,
    /// The worker's thread sleeps until it is woken.
    parked: AtomicBool,
    /// The process whose thread runs.
    owner: AtomicU64,
    thread: Mutex<Option<Thread>>,
}

/// Who enters a guest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// `load` and `on_configure`: perhaps before nginx forks.
    Setup,
    /// A request, which only workers have.
    Request,
}

/// Time passes for guests as long as this lives.
pub(super) enum Running {
    /// By the thread of the process, which must know of it.
    Counted(&'static Ticker),
    /// Entered from inside a guest call: the outer one stays.
    Nested,
    /// By a thread of this call's own.
    Short(&'static Ticker, Option<Box<ShortTicker>>),
}

impl Ticker {
    /// One without a thread.
    pub(super) const fn new() -> Self {
        Self {
            calls: AtomicU64::new(0),
            parked: AtomicBool::new(false),
            owner: AtomicU64::new(0),
            thread: const_mutex(None),
        }
    }

    /// Lets time pass for guests.
    #[inline(always)]
    pub(super) fn enter(&'static self, entry: Entry) -> Result<Running, Failure> {
        let calls = self.calls.load(Ordering::Relaxed);
        if calls % 2 == 1 {
            return Ok(Running::Nested);
        }
        if self.owner.load(Ordering::Relaxed) != forks::process() {
            match entry {
                Entry::Request => self.start()?,
                Entry::Setup => {
                    let short = ShortTicker::start()?;
                    self.begin(calls);
                    return Ok(Running::Short(self, Some(Box::new(short))));
                }
            }
        }
        self.begin(calls);
        Ok(Running::Counted(self))
    }

    #[inline]
    fn begin(&self, calls: u64) {
        self.calls.store(calls + 1, Ordering::SeqCst);
        // Sequentially consistent with the other side in `doze`: either the ticker sees the call or we see it parked.
        if self.parked.load(Ordering::SeqCst) {
            self.wake();
        }
    }

    #[inline]
    fn end(&self) {
        let calls = self.calls.load(Ordering::Relaxed);
        self.calls.store(calls + 1, Ordering::Release);
    }

    #[cold]
    fn wake(&self) {
        self.parked.store(false, Ordering::SeqCst);
        if let Some(thread) = &*self.thread.lock() {
            thread.unpark();
        }
    }

    #[cold]
    fn start(&'static self) -> Result<(), Failure> {
        self.parked.store(false, Ordering::SeqCst);
        let of_guests = CpuClock::of_this_thread();
        let ticker = spawn(move || {
            let mut idle = 0;
            let mut seen = 0;
            let mut clock = Clock::start(of_guests);
            loop {
                clock.wait();
                let calls = self.calls.load(Ordering::SeqCst);
                if calls != seen {
                    clock.tick_for_another();
                } else if !calls.is_multiple_of(2) {
                    clock.tick();
                }
                idle = if calls == seen && calls.is_multiple_of(2) { idle + 1 } else { 0 };
                seen = calls;
                if idle >= IDLE_TICKS {
                    self.doze(seen);
                    idle = 0;
                    clock = Clock::start(of_guests);
                }
            }
        })?;
        *self.thread.lock() = Some(ticker.thread().clone());
        self.owner.store(forks::process(), Ordering::Relaxed);
        Ok(())
    }

    /// Sleeps until a guest is entered.
    fn doze(&self, seen: u64) {
        self.parked.store(true, Ordering::SeqCst);
        if self.calls.load(Ordering::SeqCst) != seen {
            self.parked.store(false, Ordering::SeqCst);
        }
        while self.parked.load(Ordering::SeqCst) {
            thread::park();
        }
    }
}

impl Drop for Running {
    #[inline]
    fn drop(&mut self) {
        match self {
            Self::Counted(ticker) => ticker.end(),
            Self::Nested => {}
            Self::Short(ticker, short) => {
                ticker.end();
                if let Some(short) = short.take() {
                    short.end();
                }
            }
        }
    }
}

/// Ticks until the call that started it is over.
pub(super) struct ShortTicker {
    thread: JoinHandle<()>,
    over: Arc<AtomicBool>,
}

impl ShortTicker {
    fn start() -> Result<Self, Failure> {
        let over = Arc::new(AtomicBool::new(false));
        let watched = over.clone();
        let of_guests = CpuClock::of_this_thread();
        let thread = spawn(move || {
            let mut clock = Clock::start(of_guests);
            while !watched.load(Ordering::Acquire) {
                clock.wait();
                clock.tick();
            }
        })?;
        Ok(Self { thread, over })
    }

    /// Joined, so that no thread is left that a fork would lose or that takes a signal meant for nginx.
    fn end(self) {
        self.over.store(true, Ordering::Release);
        self.thread.thread().unpark();
        let _ = self.thread.join();
    }
}

/// The processor time of a thread.
#[derive(Clone, Copy)]
struct CpuClock(Option<libc::clockid_t>);

impl CpuClock {
    fn of_this_thread() -> Self {
        let mut id = 0;
        // SAFETY: the thread is this one, and there is room for the answer.
        let rc = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut id) };
        Self((rc == 0).then_some(id))
    }

    /// `None` where the system does not tell.
    fn now(self) -> Option<Duration> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: there is room for the answer. The clock of a thread that has ended is an error.
        let rc = unsafe { libc::clock_gettime(self.0?, &raw mut time) };
        let whole = u64::try_from(time.tv_sec).ok().filter(|_| rc == 0)?;
        Some(Duration::new(whole, u32::try_from(time.tv_nsec).ok()?))
    }
}

/// Ticks in step with the time that guests have.
struct Clock {
    next: Instant,
    of_guests: CpuClock,
    /// What both clocks said at the last look.
    looked: (Instant, Option<Duration>),
    /// What has passed since the last tick.
    due: Duration,
}

#[allow(clippy::disallowed_methods, reason = "the core is told of time by these ticks")]
impl Clock {
    fn start(of_guests: CpuClock) -> Self {
        let now = Instant::now();
        Self { next: now + TICK, of_guests, looked: (now, of_guests.now()), due: Duration::ZERO }
    }

    /// Waits for the next look; a wait that is cut short adds nothing.
    fn wait(&mut self) {
        thread::park_timeout(self.next.saturating_duration_since(Instant::now()));
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next += TICK;
        if self.next <= now {
            self.next = now + TICK;
        }
        let used = self.of_guests.now();
        let (looked, before) = std::mem::replace(&mut self.looked, (now, used));
        let waited = now - looked;
        self.due += match before.zip(used) {
            Some((before, used)) => used.saturating_sub(before).max(waited / PATIENCE),
            None => waited,
        };
    }

    /// Ticks for the guest that ran at the last look, too.
    fn tick(&mut self) {
        for _ in 0..CATCH_UP {
            if self.due < TICK {
                return;
            }
            deadline::tick();
            self.due -= TICK;
        }
        self.due = self.due.min(TICK);
    }

    /// Ticks once for a guest that was not there at the last look: what has passed until now was not all its own.
    fn tick_for_another(&mut self) {
        deadline::tick();
        self.due = Duration::ZERO;
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Failure> {
    threads::spawn("wasm ticker", STACK, work).map_err(|e| {
        Failure::new(format!("no thread to watch time limits with, so no filter may run: {e}"))
    })
}
