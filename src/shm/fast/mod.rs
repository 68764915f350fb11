//! Faster ways to read and to change shared data than under the lock with a new node for each value.
//!
//! - [`peek`] reads an entry without the lock.
//! - [`replace`] changes a value of the same size where it is.
//! - [`back_off`] waits after a set that came too late.
//!
//! Each could be left out: [`Shared::get`](super::Shared::get) and [`Shared::set`](super::Shared::set) have the general way
//! as well.

pub(super) mod back_off;
pub(super) mod peek;
pub(super) mod replace;
