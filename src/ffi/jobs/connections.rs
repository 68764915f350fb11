//! What the two protocols whose connections serve many calls have in common: gRPC and Redis.

use std::net::IpAddr;
use std::rc::Rc;

use super::answer::Answer;
use crate::callout::Failure;
use crate::vm::Plugin;

/// The connections of a worker for one protocol. For each a light thread of its own moves the bytes.
pub(crate) trait Connections {
    /// A connection is there.
    fn connected(&mut self, id: u32, now: u64);

    /// A connection has received bytes; `eof`: it will receive no more. `untold`: bytes that guests were not told yet.
    fn receive(&mut self, id: u32, data: &[u8], eof: bool, untold: usize, now: u64) -> Received;

    /// What a connection must send, when it is `ready` to send more, and what comes then.
    fn next(&mut self, id: u32, ready: bool, now: u64) -> (&[u8], Then);

    /// A connection was not made, or broke. Returns the nanoseconds that this took of the worker's time.
    fn failed(&mut self, id: u32, failure: Failure, now: u64) -> u64;

    /// The worker is to end: connections close as soon as they have no calls.
    fn end_soon(&mut self);

    /// What a guest is to be told next.
    fn next_answer(&mut self) -> Option<Answer>;

    /// Writes to the error log what failed.
    fn log_failures(&mut self, now: u64);

    /// Whether light threads have something to do.
    fn has_actions(&self) -> bool;

    /// Whether a connection may be made to an address.
    fn permits(&self, id: u32, address: IpAddr) -> bool;
}

/// What came of bytes that were received.
pub(crate) struct Received {
    /// The plugin whose call the bytes were for, where that is known: their time is counted for it.
    pub plugin: Option<Rc<Plugin>>,
    /// The connection is still there.
    pub is_open: bool,
}

/// What a connection does after it has sent.
pub(crate) enum Then {
    /// It is closed.
    Close,
    /// It waits until then, on the host's monotonic clock.
    Wait(u64),
}
