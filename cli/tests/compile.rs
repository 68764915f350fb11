//! `proxy-wasm compile`.

use super::command::{file, guest, proxy_wasm, temporary};
use serde_json::Value;
use std::fs;

fn list(folder: &str, code: i32) -> Vec<Value> {
    let answer = proxy_wasm(&["compile", "--check", folder, "--json"]).ended(code).json();
    answer.as_array().expect("a list").clone()
}

#[test]
fn a_folder_is_filled_listed_and_cleaned() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = folder.path().join("cache").to_string_lossy().into_owned();
    let (one, two) = (guest("probe"), file("examples/auth/build/release.wasm"));
    let answer =
        proxy_wasm(&["compile", &one, &two, "--cache-dir", &cache, "--json"]).ended(0).json();
    assert_eq!(
        (&answer[0]["state"], &answer[1]["state"]),
        (&"compiled".into(), &"compiled".into())
    );
    let answer = proxy_wasm(&["compile", &one, "--cache-dir", &cache]).ended(0);
    assert!(answer.out.contains("probe.wasm: there already"), "{}", answer.out);

    let entries = list(&cache, 0);
    assert_eq!(entries.len(), 2);
    for entry in &entries {
        assert_eq!(
            (&entry["state"], &entry["usable"]),
            (&"for this processor".into(), &true.into())
        );
    }
    let digest = proxy_wasm(&["inspect", "--json", &one]).ended(0).json()["digest"].clone();
    assert!(entries.iter().any(|entry| entry["module"] == digest), "{entries:?}");

    // What another version of the library made, what is damaged, and what is no entry.
    let name = entries[0]["entry"].as_str().expect("a name");
    let path = |name: &str| format!("{cache}/{name}");
    let other = format!("{}-0123456789abcdef.cwasm", &name[..64]);
    fs::copy(path(name), path(&other)).expect("a copy");
    let mut bytes = fs::read(path(name)).expect("an entry");
    bytes.pop();
    fs::write(path(name), bytes).expect("an entry");
    fs::write(path("notes.txt"), "mine").expect("a file");
    let states: Vec<String> = list(&cache, 1)
        .iter()
        .map(|entry| entry["state"].as_str().expect("a text").into())
        .collect();
    for state in [
        "of another version, or for another processor",
        "not usable: is cut off",
        "no entry of a cache",
    ] {
        assert!(states.iter().any(|found| found == state), "{state}: {states:?}");
    }
    let answer = proxy_wasm(&["compile", "--check", &cache, "--prune"]).ended(1);
    assert_eq!(answer.out.matches(": removed").count(), 2, "{}", answer.out);
    assert_eq!(list(&cache, 1).len(), 2, "the last good one, and what is no entry");
    assert!(fs::exists(path("notes.txt")).expect("a folder"));
}

#[test]
fn a_baseline_serves_this_processor_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = folder.path().join("cache").to_string_lossy().into_owned();
    let baseline = if cfg!(target_arch = "x86_64") { "x86-64-v2" } else { "generic" };
    let filter = guest("probe");
    proxy_wasm(&["compile", &filter, "--cache-dir", &cache, "--cpu", baseline]).ended(0);
    let entries = list(&cache, 0);
    assert_eq!(entries[0]["state"], format!("for {baseline}"));
    // Nothing is compiled, so nothing is added.
    proxy_wasm(&["run", &filter, "--cache-dir", &cache]).ended(0);
    let answer = proxy_wasm(&["compile", &filter, "--cache-dir", &cache, "--json"]).ended(0).json();
    assert_eq!(answer[0]["state"], "there already");
    assert_eq!(list(&cache, 0).len(), 1);
}

#[test]
fn bad_input() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = folder.path().join("cache").to_string_lossy().into_owned();
    let (_text, text) = temporary("a.wasm", "some text");
    for (args, cause) in [
        (vec!["compile", &text, "--cache-dir", &cache], "a.wasm: not a WebAssembly module"),
        (vec!["compile", "/no/file", "--cache-dir", &cache], "/no/file: No such file"),
        (vec!["compile", &text], "--cache-dir"),
        (vec!["compile"], "FILE"),
        (
            vec!["compile", &text, "--cache-dir", "/no/such/folder"],
            "/no/such/folder cannot be made",
        ),
        (vec!["compile", &text, "--cache-dir", &cache, "--cpu", "pentium"], "none of native"),
        (vec!["compile", "--check", "/no/such/folder"], "/no/such/folder"),
        (vec!["compile", "--prune", &text, "--cache-dir", &cache], "--check"),
    ] {
        let answer = proxy_wasm(&args).ended(2);
        assert!(answer.err.contains(cause), "{args:?}: {}", answer.err);
    }
}
