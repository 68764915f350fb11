//! What the fuzz targets of the command `proxy-wasm` do with their bytes. `cli/tests/corpus.rs` does the same with every file
//! of their corpora.
//!
//! Each function panics when something that must hold does not.

mod inspect;
mod scenario;

/// A target's function.
pub type Body = fn(&[u8]);

/// The targets by name.
pub const TARGETS: &[(&str, Body)] = &[("inspect", inspect::run), ("scenario", scenario::run)];

/// A message is one line with something in it.
fn says_why(text: &str) {
    assert!(!text.trim().is_empty() && !text.contains(char::is_control), "{text:?}");
}
