//! What light threads are told of the connections that they make, whatever these speak.

use crate::callout::Target;

pub(super) const NANOS_PER_MS: u64 = 1_000_000;

/// The longest that a connection waits for something to do; light threads take no longer times.
const LONGEST_WAIT_MS: u64 = 3_600_000;

/// A target as a cosocket takes it: a host and its port, or the path of a socket and 0.
pub(super) fn address(target: &Target) -> (String, u16) {
    match target {
        Target::Tcp(host, port) => (host.clone(), *port),
        Target::Unix(_) => (target.to_string(), 0),
    }
}

/// Milliseconds until that time, both on the host's monotonic clock.
pub(crate) fn milliseconds(until: u64, now: u64) -> u32 {
    until.saturating_sub(now).div_ceil(NANOS_PER_MS).min(LONGEST_WAIT_MS) as u32
}

/// A connection that fails at once has kept nginx busy for all its time; one that fails later has waited.
pub(super) const FAILED_NANOS: u64 = 200_000;

/// What a failure took of the worker's time.
pub(crate) fn failed_nanos(began: u64, now: u64) -> u64 {
    now.saturating_sub(began).min(FAILED_NANOS)
}
