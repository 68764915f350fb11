//! What the version text is made of.
#![allow(clippy::disallowed_methods, reason = "a build script reads files and its environment")]

use std::{env, fs};

/// The commit comes from who builds a release (`RPW_COMMIT`): a build that asked git would be repeated for each commit.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=../Cargo.lock");
    println!("cargo:rerun-if-env-changed=RPW_COMMIT");
    let commit = env::var("RPW_COMMIT").unwrap_or_else(|_| "unknown".into());
    println!("cargo:rustc-env=RPW_COMMIT={commit}");
    println!("cargo:rustc-env=RPW_TARGET={}", env::var("TARGET").expect("set by cargo"));
    let lock = fs::read_to_string("../Cargo.lock").expect("the lock file of the workspace");
    let wasmtime = lock
        .split_once("name = \"wasmtime\"\nversion = \"")
        .and_then(|(_, rest)| rest.split_once('"'))
        .expect("the version of wasmtime in the lock file");
    println!("cargo:rustc-env=RPW_WASMTIME={}", wasmtime.0);
}
