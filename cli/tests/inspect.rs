//! `proxy-wasm inspect`.

use super::command::{file, guest, proxy_wasm, temporary};
use serde_json::Value;
use std::io::Write as _;

fn report(file: &str) -> Value {
    proxy_wasm(&["inspect", "--json", file]).ended(0).json()
}

fn import<'a>(report: &'a Value, name: &str) -> &'a Value {
    let imports = report["imports"].as_array().expect("a list");
    imports
        .iter()
        .find(|import| import["name"] == name)
        .unwrap_or_else(|| panic!("{name}: {imports:?}"))
}

#[test]
fn languages_and_sdks() {
    for (name, language, sdk) in [
        ("as_sdk_stock", Some("AssemblyScript"), Some("@solo-io/proxy-runtime")),
        ("as_no_sdk", None, None),
        ("rust_filter", Some("Rust"), Some("proxy-wasm (Rust)")),
        ("rust_filter_0_1", Some("Rust"), Some("proxy-wasm (Rust)")),
        ("go", Some("Go"), None),
        ("probe", None, None),
        ("zig", None, None),
    ] {
        let report = report(&guest(name));
        let origin = &report["origin"];
        if let Some(language) = language {
            assert_eq!(origin["language"], language, "{name}: {origin}");
        }
        if let Some(sdk) = sdk {
            assert_eq!(origin["sdk"], sdk, "{name}: {origin}");
        }
        assert_eq!(report["refused"], Value::Null, "{name}");
    }
}

#[test]
fn an_example() {
    let report = report(&file("examples/auth/build/release.wasm"));
    assert_eq!(report["abi"]["version"], "0.2.1");
    assert_eq!(report["abi"]["marker"], "proxy_abi_version_0_2_1");
    let uses = &report["uses"];
    assert_eq!(uses["http_calls"], true);
    assert_eq!(uses["answers_requests"], true);
    assert_eq!(import(&report, "proxy_http_call")["answer"], "supported");
    assert!(report["digest"].as_str().expect("a text").starts_with("sha256:"));
    let callbacks = report["callbacks"].as_array().expect("a list");
    assert!(callbacks.contains(&"proxy_on_http_call_response".into()), "{callbacks:?}");
    assert!(report["code_bytes"].as_u64() > Some(10_000), "{report}");
    assert!(report["memories"][0]["initial"].as_u64() >= Some(65_536), "{report}");
}

#[test]
fn the_text_says_the_same() {
    let said = proxy_wasm(&["inspect", &guest("probe")]).ended(0).out;
    for part in ["ABI             0.2.1", "verdict         loads and starts", "env.proxy_log"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn what_a_host_does_not_have() {
    let wat = r#"(module
        (import "env" "proxy_log" (func (param i64) (result i32)))
        (import "env" "proxy_new_one" (func (param i32) (result i32)))
        (import "env" "other" (func))
        (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "path_open" (func (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "new_one" (func))
        (memory (export "memory") 1))"#;
    let (_folder, name) = temporary("a.wasm", wat::parse_str(wat).expect("a module"));
    let report = report(&name);
    for (name, answer) in [
        ("proxy_log", "stand-in"),
        ("proxy_new_one", "vendor-extension"),
        ("other", "traps"),
        ("fd_write", "supported"),
        ("path_open", "empty"),
        ("new_one", "stand-in"),
    ] {
        assert_eq!(import(&report, name)["answer"], answer, "{name}");
    }
    let warnings = report["warnings"].as_array().expect("a list");
    assert!(warnings.iter().any(|w| w.as_str().expect("a text").contains("proxy_new_one")));
}

#[test]
fn what_is_refused() {
    let memory = r#"(memory (export "memory") 1)"#;
    for (wat, cause) in [
        (format!(r#"(module (import "a" "b" (func)) {memory})"#), "neither Proxy-Wasm"),
        (format!(r#"(module (func (export "proxy_abi_version_9_9_9")) {memory})"#), "ABI marker"),
        ("(module)".into(), "exports no memory"),
        (format!(r#"(module (func $s unreachable) (start $s) {memory})"#), "unreachable"),
        (format!(r#"(module (func (export "proxy_on_tick")) {memory})"#), "proxy_on_tick"),
        (format!(r#"(module (func (export "_start") (loop br 0)) {memory})"#), "time limit"),
    ] {
        let (_folder, name) = temporary("a.wasm", wat::parse_str(&wat).expect("a module"));
        let report = proxy_wasm(&["inspect", "--json", &name]).ended(1).json();
        let refused = report["refused"].as_str().unwrap_or_else(|| panic!("{wat}: {report}"));
        assert!(refused.contains(cause), "{wat}: {refused}");
    }
}

#[test]
fn files_that_are_no_modules() {
    let module = std::fs::read(guest("probe")).expect("a guest");
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&module).expect("memory");
        encoder.finish().expect("memory")
    };
    for (bytes, cause) in [
        (&b""[..], "the file is empty"),
        (&gzip, "compressed with gzip"),
        (b"\0asm\x0d\0\x01\0", "component"),
        (&module[..module.len() / 2], "cut off"),
        (b"just some words\n", "not a WebAssembly module"),
        (b"(module)", "WebAssembly text"),
        (b"<html>", "HTML"),
    ] {
        let (_folder, name) = temporary("a.wasm", bytes);
        let answer = proxy_wasm(&["inspect", &name]).ended(2);
        assert!(answer.err.contains(cause) && answer.err.contains(&name), "{}", answer.err);
        let answer = proxy_wasm(&["inspect", "--json", &name]).ended(2);
        assert!(answer.json()["error"].as_str().expect("a text").contains(cause));
    }
    let missing = proxy_wasm(&["inspect", "/does/not/exist.wasm"]).ended(2);
    assert!(missing.err.contains("/does/not/exist.wasm: No such file"), "{}", missing.err);
    assert!(proxy_wasm(&["inspect", "/"]).ended(2).err.contains("it is a folder"));
    assert!(proxy_wasm(&["inspect"]).ended(2).err.contains("FILE"));
}

#[test]
fn completions_and_manual() {
    for shell in ["bash", "zsh", "fish"] {
        let script = proxy_wasm(&["completions", shell]).ended(0).out;
        assert!(script.contains("inspect") && script.contains("proxy-wasm"), "{shell}");
    }
    let page = proxy_wasm(&["man"]).ended(0).out;
    assert!(page.contains(".TH proxy-wasm 1") && page.contains("Exit codes"), "{page}");
    let folder = tempfile::tempdir().expect("a folder");
    proxy_wasm(&["man", &folder.path().to_string_lossy()]).ended(0);
    let page = std::fs::read_to_string(folder.path().join("proxy-wasm-inspect.1")).expect("a page");
    assert!(page.contains("no\\-start"), "{page}");
}
