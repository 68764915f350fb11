//! Tests that fork run in a process of their own.
//!
//! The process of all tests maps the memory of many VMs, and each fork copies its page tables: that took most of the
//! time of these tests, and slowed the others down.

use std::process::Command;

const ALONE: &str = "RPW_TEST_ALONE";

/// Runs `body`, the whole of the test of this name (`file::test`), in a process that runs nothing else.
pub(crate) fn alone(test: &str, body: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some_and(|name| name == test) {
        return body();
    }
    let output = Command::new(std::env::current_exe().expect("a path"))
        .args([test, "--exact", "--nocapture", "--include-ignored", "--test-threads=1"])
        .env(ALONE, test)
        .output()
        .expect("the tests");
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{test} failed in its own process");
    // A wrong name runs no test, which succeeds.
    assert!(text.contains("1 passed"), "no test has the name {test}");
}
