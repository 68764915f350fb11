//! What the documentation shows of the command.

use super::command::{guest, proxy_wasm_in, root};
use std::fs;

/// The first block of a page in that language.
fn block(page: &str, language: &str) -> String {
    let text = fs::read_to_string(root().join(page)).expect("a page");
    let (_, rest) = text.split_once(&format!("```{language}\n")).expect("a block");
    rest.split_once("```").expect("its end").0.to_owned()
}

#[test]
fn the_test_of_writing_filters_passes_with_a_filter_as_it_describes() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("hello.test.yaml"), block("docs/writing-filters.md", "yaml"))
        .expect("a file");
    // These add the header that the page's filters add.
    for name in ["go", "zig"] {
        fs::copy(guest(name), folder.path().join("hello.wasm")).expect("a file");
        let said = proxy_wasm_in(folder.path(), &["test"]).ended(0).out;
        assert_eq!(
            said,
            "hello.test.yaml\n  ok    responses are greeted\n  ok    the configuration says how\n\n2 passed, 0 failed\n"
        );
    }
}
