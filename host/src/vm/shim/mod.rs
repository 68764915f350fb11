//! WebAssembly that calls a guest's allocator.
//!
//! Many host functions hand over a value: the guest's allocator makes room for it, the value is copied there, and the guest is
//! told address and size. Called from the host, the allocator is entered from outside of WebAssembly, which takes longer
//! than most of these functions take otherwise. Called from WebAssembly it is an ordinary call. So a host function that hands
//! over a value has three parts:
//!
//! 1. **Front**, in WebAssembly ([`fronts`]): has the type of the host function, and calls the other two.
//! 2. **Beginning**, in the host ([`hostcall::BEGIN`](crate::hostcall::BEGIN)): the function itself. It answers a status, or
//!    the size of the value. A value of at most [`WORDS`](crate::hostcall::memory::WORDS) words is part of the answer. A longer
//!    one waits in [`Handovers`](crate::guest::handover::Handovers). Parameters come two by two, at most
//!    [`PAIRS`](crate::hostcall::PAIRS) pairs, so that all of them are in registers.
//! 3. **Give**, in WebAssembly ([`give`]): calls the allocator, and writes a short value, its address and its size. For a
//!    longer one it goes on with the beginning, at another [`Step`](crate::hostcall::Step): the host copies the value to the
//!    address that the allocator returned.
//!
//! Fronts and give are added to the guest's own module before it is compiled, see [`extended`]. A guest without an allocator
//! has none: for it the host looks for one each time, and warns (`hostcall::memory::status`).
//!
//! The value of a header has a shorter way: [`look_up`] finds it without the host, as long as the host shows it the headers.
//!
//! A backtrace names a front `host!proxy_get_property`, and leaves give out.

pub(super) mod extended;
mod fronts;
mod give;
mod look_up;
mod parts;
