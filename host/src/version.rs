//! What this build is.

/// The release, as in `Cargo.toml`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that a release was built from; `unknown` for builds that were not told.
pub const COMMIT: &str = env!("RPW_COMMIT");

/// The version of wasmtime that is linked in.
pub const WASMTIME: &str = env!("RPW_WASMTIME");

/// The target that was built for, as Rust names it.
pub const TARGET: &str = env!("RPW_TARGET");

/// All of it in a line, for people.
pub const TEXT: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("RPW_COMMIT"),
    ", wasmtime ",
    env!("RPW_WASMTIME"),
    ", ",
    env!("RPW_TARGET"),
    ")"
);
