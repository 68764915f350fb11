//! What fuzzing has found, once more: every file of `fuzz/corpus` goes through its target.

use crate::fuzz::TARGETS;
use std::collections::HashSet;
use std::fs::read_dir;
use std::path::{Path, PathBuf};

fn entries(directory: &Path) -> Vec<PathBuf> {
    let read = read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut entries: Vec<PathBuf> = read.map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    entries
}

/// The targets that `cli/tests/corpus.rs` replays.
const OF_COMMAND: [&str; 2] = ["inspect", "scenario"];

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

#[test]
fn every_find_is_dealt_with() {
    for (target, body) in TARGETS {
        let files = entries(&corpus().join(target));
        assert!(!files.is_empty(), "{target} has no corpus");
        for file in files {
            // Shown when it fails.
            println!("{}", file.display());
            body(&std::fs::read(&file).expect("a file"));
        }
    }
}

#[test]
fn every_corpus_has_a_target_and_every_target_a_program() {
    let names = |paths: Vec<PathBuf>| -> HashSet<String> {
        paths
            .iter()
            .map(|p| p.file_stem().expect("a name").to_string_lossy().into_owned())
            .collect()
    };
    let targets = TARGETS.iter().map(|(name, _)| *name).chain(OF_COMMAND);
    let targets: HashSet<String> = targets.map(str::to_owned).collect();
    assert_eq!(names(entries(&corpus())), targets);
    assert_eq!(names(entries(&corpus().join("../targets"))), targets);
}
