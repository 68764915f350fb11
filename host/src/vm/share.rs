//! How much of a worker's time background jobs take: ticks, messages of queues, answers of calls.
//!
//! Time is counted in rounds. A round begins with the first job after the event loop made a pass, and jobs are begun in it
//! until they took [`limits::JOBS_MS`] or it lasted too long. Then comes a rest, in which the server serves requests: as long as it
//! takes for the jobs to have had no more than half of the time.

use crate::limits;

/// See the module. Times are those of the host's monotonic clock.
#[derive(Debug)]
pub struct Share {
    /// [`NEVER`] between rounds.
    began: u64,
    used: u64,
}

/// A time that does not come. An `Option` would have the optimizer compare a time that is not set, which valgrind reports.
pub const NEVER: u64 = u64::MAX;

impl Default for Share {
    fn default() -> Self {
        Self { began: NEVER, used: 0 }
    }
}

const NANOS_PER_MS: u64 = 1_000_000;
/// What jobs may take in a round.
const MOST: u64 = limits::JOBS_MS * NANOS_PER_MS;
/// A round is over after this time, even if its jobs took less.
const ROUND: u64 = 2 * MOST;
/// No job begins in a round that lasts for so long: the event loop has not made a pass.
const LONGEST: u64 = 2 * ROUND;

impl Share {
    /// Milliseconds after which a round is to be ended.
    pub const ROUND_MS: u64 = ROUND / NANOS_PER_MS;

    /// Whether a job may begin. The first one begins a round.
    pub fn allows(&mut self, now: u64) -> bool {
        if self.began == NEVER {
            self.began = now;
        }
        self.used < MOST && now.saturating_sub(self.began) < LONGEST
    }

    /// Counts the time that a job took.
    pub fn charge(&mut self, nanos: u64) {
        self.used = self.used.saturating_add(nanos);
    }

    /// Whether jobs ran since the last rest.
    pub fn is_used(&self) -> bool {
        self.began != NEVER
    }

    /// The milliseconds to rest, when the round is over.
    pub fn rest(&self, now: u64) -> Option<u64> {
        if self.began == NEVER {
            return None;
        }
        let passed = now.saturating_sub(self.began);
        let over = self.used >= MOST || passed >= ROUND;
        over.then(|| (2 * self.used).saturating_sub(passed).div_ceil(NANOS_PER_MS).max(1))
    }

    /// The event loop has made a pass after a rest.
    pub fn renew(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_have_half_of_the_time_at_the_most() {
        for cost in [1_000, 100_000, 4_900_000, 20_000_000, 1_000_000_000] {
            let (mut share, mut now, mut worked) = (Share::default(), 7, 0u64);
            while worked < 10_000_000_000 {
                while share.allows(now) {
                    now += cost;
                    worked += cost;
                    share.charge(cost);
                }
                let rest = share.rest(now).expect("a rest");
                now += rest * NANOS_PER_MS;
                share.renew();
            }
            assert!(worked * 2 <= now, "jobs of {cost} ns: {worked} of {now}");
            assert!(worked * 5 >= now * 2, "jobs of {cost} ns: {worked} of {now}");
        }
    }

    #[test]
    fn a_round_ends_though_its_jobs_count_nothing() {
        let mut share = Share::default();
        let (mut now, mut begun) = (0, 0);
        while share.allows(now) {
            now += NANOS_PER_MS;
            begun += 1;
        }
        assert_eq!(begun, LONGEST / NANOS_PER_MS);
        assert_eq!(share.rest(now), Some(1));
        share.renew();
        assert!(!share.is_used() && share.rest(now).is_none() && share.allows(now));
    }
}
