//! WebAssembly that calls a guest's allocator.
//!
//! Many host functions hand over a value: the guest's allocator makes room for it, the value is copied there, and the guest is
//! told address and size. Called from the host, the allocator is entered from outside of WebAssembly, which takes longer
//! than most of these functions take otherwise. Called from WebAssembly it is an ordinary call. So a host function that hands
//! over a value has three parts:
//!
//! 1. **Beginning**, in the host ([`hostcall::BEGIN`](crate::hostcall::BEGIN)): the function itself. It answers a status, or
//!    the size of the value. A value of at most [`WORDS`](crate::hostcall::memory::WORDS) words is part of the answer. A longer
//!    one waits in [`Handovers`](crate::guest::handover::Handovers). Parameters come two by two, at most
//!    [`PAIRS`](crate::hostcall::PAIRS) pairs, so that all of them are in registers.
//! 2. **Give**, in WebAssembly ([`give`]): calls the allocator, and writes a short value, its address and its size.
//! 3. **Finish**, in the host ([`hostcall::FINISH`](crate::hostcall::FINISH)): copies a longer value to the address that the
//!    allocator returned.
//!
//! The guest imports none of these. It is linked with [`allocator_shim`], an instance of a module of our own, which has a
//! function with the name of each host function that hands over a value: it calls the beginning, then give. [`linked`]
//! decides which guests have such a shim. A guest without an allocator has none, nor a guest with a start section, which runs
//! before its allocator is known: for them the host calls the allocator (`hostcall::memory::status`).
//!
//! The value of a header has a shorter way: [`look_up`] finds it without the host, as long as the host shows it the headers. This
//! function is a part of the guest's own module, see [`extended`], also of a guest with a start section.
//!
//! A backtrace names a function of the shim as `host!proxy_get_property`.

pub(super) mod allocator_shim;
pub(super) mod extended;
mod give;
pub(super) mod linked;
mod look_up;
