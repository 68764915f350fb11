//! What fuzzing has found, once more: every file of the command's corpora goes through its target.

use super::command::root;
use std::fs;

#[path = "../../fuzz/bodies_cli/mod.rs"]
mod bodies;

/// How many files are made of each one of a corpus; `RPW_MUTANTS` says another number.
const MUTANTS: usize = 20;

/// What the fuzzers' parsers give a meaning to.
const MARKS: &[u8] = b"{}[]:,-\n\"'#&*!|> =.\0";

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

/// Bytes are changed here and there. That needs no instrumented build, and still meets what is careless.
#[test]
fn mutants_of_the_corpora_are_dealt_with() {
    let given = std::env::var("RPW_MUTANTS").ok().map(|count| count.parse().expect("a number"));
    let mut random = Random(1);
    for (target, body) in bodies::TARGETS {
        let files = fs::read_dir(root().join("fuzz/corpus").join(target)).expect("a corpus");
        let mut paths: Vec<_> = files.map(|file| file.expect("an entry").path()).collect();
        paths.sort();
        let files: Vec<Vec<u8>> =
            paths.iter().map(|path| fs::read(path).expect("a file")).collect();
        for (path, file) in paths.iter().zip(&files) {
            for number in 0..given.unwrap_or(MUTANTS) {
                let mut bytes = file.clone();
                for _ in 0..=random.below(4) {
                    change(&mut bytes, &files, &mut random);
                }
                // Shown when it fails.
                println!("{} {number}: {}", path.display(), bytes.escape_ascii());
                body(&bytes);
            }
        }
    }
}

/// Makes one change.
fn change(bytes: &mut Vec<u8>, others: &[Vec<u8>], random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    match random.below(5) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, MARKS[random.below(MARKS.len())]),
        2 if at < bytes.len() => drop(bytes.remove(at)),
        3 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        _ => {
            let other = &others[random.below(others.len())];
            let from = random.below(other.len() + 1);
            let to = from + random.below(other.len() - from + 1);
            bytes.splice(at..at, other[from..to].iter().copied());
        }
    }
}

/// The same numbers each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}
