//! The thread by which guests see that their time passes. As in nginx that is processor time: a filter is not stopped because
//! the machine had no time for it.

use std::sync::Once;
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::core::vm::deadline;

const TICK: Duration = Duration::from_millis(deadline::TICK_MS as u64);

/// Ticks at a time that the thread may be behind. The guest that runs may not be the one that more are due to.
const CATCH_UP: u32 = 2;

/// A guest that uses no processor has so many times its limit.
const PATIENCE: u32 = 10;

/// Starts it, if it does not run.
pub fn start() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        thread::spawn(|| {
            let (mut looked, mut used) = (Instant::now(), processor_time());
            let mut due = Duration::ZERO;
            loop {
                thread::sleep(TICK);
                let (now, used_now) = (Instant::now(), processor_time());
                due += passed(now - looked, used_now.saturating_sub(used));
                (looked, used) = (now, used_now);
                for _ in 0..CATCH_UP {
                    if due >= TICK {
                        deadline::tick();
                        due -= TICK;
                    }
                }
                due = due.min(TICK);
            }
        });
    });
}

/// What passes for a guest while so much time passes and the process uses so much of the processors. One thread at a time runs
/// guests; that others use more makes no difference.
fn passed(time: Duration, used: Duration) -> Duration {
    used.min(time).max(time / PATIENCE)
}

/// What all threads of the process have used.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_waits_for_the_processor_keeps_its_time() {
        let ms = Duration::from_millis;
        assert_eq!(passed(ms(10), ms(10)), ms(10));
        assert_eq!(passed(ms(100), ms(20)), ms(20));
        assert_eq!(passed(ms(100), ms(0)), ms(10));
        assert_eq!(passed(ms(10), ms(40)), ms(10), "of four threads one runs the guest");
        let before = processor_time();
        while processor_time() == before {}
    }
}
