//! A simulated host: requests that live in memory, a log that can be read back, a clock that is moved from outside.
//!
//! Tests, fuzz targets, benchmarks and tools run filters on it without a server. Cargo feature `sim`.

mod code;
mod filter;
mod host;
mod time;

pub use code::module;
pub use filter::{Answer, Filter, Stream};
pub use host::{
    ForeignFunction, Hook, MONOTONIC_CLOCK, Request, SHARED_MEMORY, Settings, SimHost, WALL_CLOCK,
};
pub use time::Ticker;

use crate::ports::RequestId;
use std::num::NonZeroUsize;

fn number(request: RequestId) -> usize {
    request.0.get() - 1
}

fn request_id(number: usize) -> RequestId {
    RequestId(NonZeroUsize::MIN.saturating_add(number))
}
