//! The fuzz targets as a library; `README.md` beside this crate's manifest says how to use them.

// The paths in both are the same for the tests, which replay the corpora.
#[path = "../bodies/mod.rs"]
mod bodies;
#[path = "../bodies_cli/mod.rs"]
mod bodies_cli;
pub mod smith;
#[path = "../../tests/world/mod.rs"]
mod world;

/// Runs a target.
pub fn run(target: &str, bytes: &[u8]) {
    let mut all = bodies::TARGETS.iter().chain(bodies_cli::TARGETS);
    let (_, body) = all.find(|(name, _)| *name == target).expect("a target");
    body(bytes);
}
