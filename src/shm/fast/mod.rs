//! What makes changes of shared data faster, and could be left out.
//!
//! - [`replace`] changes a value of the same size where it is. Without it a request with one get and one set takes 250
//!   instructions more (`bench/instructions.sh shared`).
//! - [`back_off`] waits after a set that came too late. Without it two workers that count in one key in a loop make a quarter
//!   fewer updates (`bench/shared.sh`).
//!
//! docs/RATIONALE.md says what was measured, and why a get takes the lock.

pub(super) mod back_off;
pub(super) mod replace;
