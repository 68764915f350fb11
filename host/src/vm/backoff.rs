//! Growing delays between tries to start what keeps failing.

use crate::error::Error;
use crate::limits;

/// The failed tries since the last one that worked.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    /// When the next try is due, on the host's monotonic clock in nanoseconds.
    retry_at: u64,
    cause: String,
}

impl Backoff {
    /// An error while it is too early for a try.
    pub(super) fn check(&self, now: u64) -> Result<(), Error> {
        if self.failures == 0 || now >= self.retry_at {
            return Ok(());
        }
        let wait_ms = (self.retry_at - now).div_ceil(NANOS_PER_MS);
        Err(Error::Waiting { cause: self.cause.clone(), wait_ms })
    }

    /// Notes a failed try. Returns what the log must say of it: nothing when it was told before.
    pub(super) fn failed(&mut self, now: u64, error: &Error) -> Option<String> {
        let wait_ms =
            (limits::RETRY_MS << self.failures.min(MAX_DOUBLINGS)).min(limits::RETRY_MAX_MS);
        let cause = error.to_string();
        let news = self.failures == 0 || self.cause != cause;
        self.failures = self.failures.saturating_add(1);
        self.retry_at = now + wait_ms * NANOS_PER_MS;
        self.cause = cause;
        news.then(|| format!("{}; next try in {wait_ms} ms", self.cause))
    }

    /// Notes one that worked. Returns what the log must say of it.
    pub(super) fn worked(&mut self) -> Option<String> {
        let failures = std::mem::take(self).failures;
        (failures > 0).then(|| format!("works again after {failures} failed tries"))
    }
}

/// Far past the longest delay, and far from overflow.
const MAX_DOUBLINGS: u32 = 20;

const NANOS_PER_MS: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_from_100_ms_to_30_s() {
        let mut backoff = Backoff::default();
        let error = Error::Module("bad".into());
        let delays: Vec<u64> = (0..70)
            .map(|_| {
                backoff.failed(0, &error);
                match backoff.check(0) {
                    Err(Error::Waiting { wait_ms, .. }) => wait_ms,
                    other => panic!("{other:?}"),
                }
            })
            .collect();
        assert_eq!(delays[..10], [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000]);
        assert!(delays[10..].iter().all(|delay| *delay == 30000));
    }

    #[test]
    fn only_changes_are_logged() {
        let mut backoff = Backoff::default();
        let error = |text: &str| Error::Module(text.into());
        assert_eq!(backoff.worked(), None);
        assert_eq!(backoff.failed(0, &error("bad")).unwrap(), "bad; next try in 100 ms");
        assert_eq!(backoff.failed(0, &error("bad")), None);
        assert_eq!(backoff.failed(0, &error("worse")).unwrap(), "worse; next try in 400 ms");
        assert_eq!(backoff.worked().unwrap(), "works again after 3 failed tries");
        assert_eq!(backoff.check(0), Ok(()));
    }
}
