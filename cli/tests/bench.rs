//! `proxy-wasm bench`.

use super::command::{file, proxy_wasm, temporary};
use serde_json::Value;

const ADD: &str = "examples/add-header/build/release.wasm";

fn callback<'a>(measured: &'a Value, name: &str) -> &'a Value {
    let all = measured["callbacks"].as_array().expect("a list");
    all.iter()
        .find(|callback| callback["name"] == name)
        .unwrap_or_else(|| panic!("{name}: {all:?}"))
}

#[test]
fn callbacks_are_counted_and_measured() {
    let args = ["bench", &file(ADD), "--root-id", "add_header", "--requests", "200", "--json"];
    let report = proxy_wasm(&args).ended(0).json();
    let measured = &report["filters"][0];
    assert_eq!(measured["requests"], 200);
    let headers = callback(measured, "proxy_on_response_headers");
    assert_eq!(headers["count"], 200);
    let number = |name: &str| headers[name].as_u64().expect("a number");
    assert!(number("least") <= number("median") && number("median") <= number("p99"));
    assert!(number("p99") <= number("most") && number("least") > 0);
    let histogram = headers["histogram"].as_array().expect("a list");
    let counted: u64 = histogram.iter().map(|row| row[1].as_u64().expect("a number")).sum();
    assert_eq!(counted, 200);
    let memory = measured["memory_bytes"].as_array().expect("a list");
    assert!(memory.iter().all(|bytes| bytes.as_u64() >= Some(65_536)), "{memory:?}");
    // Either instructions are there, or why not.
    let counted = headers["instructions"].as_u64().is_some_and(|count| count > 0);
    assert_ne!(counted, report["instructions_not_counted"].is_string(), "{report}");

    let said = proxy_wasm(&args[..6]).ended(0).out;
    for part in [
        "200 requests,",
        "callbacks per second",
        "proxy_on_response_headers",
        "200 times",
        "█",
        "memory ",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(counted || said.contains("not counted here ("), "{said}");
}

/// A filter whose callback counts to `rounds`.
fn counts(rounds: u32) -> Vec<u8> {
    let wat = format!(
        r#"(module (memory (export "memory") 1)
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (local $left i32)
                (local.set $left (i32.const {rounds}))
                (loop $again
                    (i32.store (i32.const 0) (local.get $left))
                    (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
                (i32.const 0)))"#
    );
    wat::parse_str(wat).expect("a module")
}

#[test]
fn a_slower_filter_is_seen() {
    let (_folder, slow) = temporary("slow.wasm", counts(1_000_000));
    let (_folder, fast) = temporary("fast.wasm", counts(1));
    let compare = |first: &str, other: &str, code: i32| {
        let args =
            ["bench", first, "--vs", other, "--requests", "50", "--fail-above", "100", "--json"];
        proxy_wasm(&args).ended(code).json()
    };
    let report = compare(&slow, &fast, 1);
    let row = &report["comparison"]["callbacks"][0];
    assert_eq!(row["name"], "proxy_on_request_headers");
    assert!(row["percent"].as_f64() > Some(100.0), "{row}");
    compare(&fast, &slow, 0);
    let args = ["bench", &slow, "--vs", &fast, "--requests", "10"];
    let said = proxy_wasm(&args).ended(0).out;
    assert!(said.contains("CALLBACK") && said.contains(" beside "), "{said}");
}

#[test]
fn filters_that_fail_are_told() {
    let wat = r#"(module (memory (export "memory") 1)
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) unreachable))"#;
    let (_folder, trap) = temporary("trap.wasm", wat::parse_str(wat).expect("a module"));
    let report = proxy_wasm(&["bench", &trap, "--requests", "5", "--json"]).ended(1).json();
    let failed = report["filters"][0]["failed"].as_str().expect("a text");
    assert!(failed.contains("unreachable"), "{failed}");
    let auth = file("examples/auth/build/release.wasm");
    let said = proxy_wasm(&["bench", &auth, "-c", "nonsense", "--requests", "5"]).ended(1).out;
    assert!(said.contains("failed: ") && said.contains("refused its configuration"), "{said}");
}

#[test]
fn bad_arguments() {
    let add = file(ADD);
    for (args, cause) in [
        (vec!["--seconds", "0"], "--seconds 0"),
        (vec!["--seconds", "nan"], "--seconds NaN"),
        (vec!["--requests", "0"], "--requests"),
        (vec!["--vs", "/no/file"], "/no/file: No such file"),
        (vec!["--fail-above", "5"], "--vs"),
        (vec!["--vs", &*add, "--fail-above=-5"], "--fail-above must be 0 or more"),
    ] {
        let mut all = vec!["bench", &add];
        all.extend(&args);
        let answer = proxy_wasm(&all).ended(2);
        assert!(answer.err.contains(cause), "{args:?}: {}", answer.err);
    }
}
