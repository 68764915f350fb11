//! Random cases, the same in every run.

use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Runs random cases from a fixed seed.
pub(crate) fn runner(cases: u32) -> TestRunner {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}
