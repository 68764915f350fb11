//! What fuzzing has found, once more: every file of the command's corpora goes through its target.

use super::command::root;
use std::fs;

#[path = "../../fuzz/bodies_cli/mod.rs"]
mod bodies;

#[test]
fn every_find_is_dealt_with() {
    for (target, body) in bodies::TARGETS {
        let files = fs::read_dir(root().join("fuzz/corpus").join(target)).expect("a corpus");
        let mut count = 0;
        for file in files {
            let path = file.expect("an entry").path();
            // Shown when it fails.
            println!("{}", path.display());
            body(&fs::read(&path).expect("a file"));
            count += 1;
        }
        assert!(count > 0, "{target} has no corpus");
    }
}
