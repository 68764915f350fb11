//! The language and the SDK that a filter was written with, as far as its file shows.

use serde::Serialize;

use super::facts::{Facts, data_holds};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// Rust, Go, TinyGo, AssemblyScript, C or C++, Zig; nothing when the file does not show it.
    pub language: Option<String>,
    /// The SDK, as its package is named.
    pub sdk: Option<String>,
    /// What compiled it: names and versions, from the section `producers`.
    pub tools: Vec<String>,
}

impl Origin {
    /// Looks for traces.
    pub fn of(facts: &Facts, bytes: &[u8]) -> Self {
        let sdk = sdk(facts, bytes);
        let tools = facts.producers.iter().filter(|(kind, ..)| kind != "language");
        Self {
            language: language(facts, bytes).map(Into::into),
            sdk: sdk.map(Into::into),
            tools: tools
                .map(|(_, name, version)| format!("{name} {version}").trim_end().to_owned())
                .collect(),
        }
    }
}

fn language(facts: &Facts, bytes: &[u8]) -> Option<&'static str> {
    let holds = |text: &str| data_holds(bytes, text.as_bytes());
    let made_by = |text: &str| facts.producers.iter().any(|(_, name, _)| name.contains(text));
    let named = |text: &str| facts.names.iter().any(|name| name.contains(text));
    if made_by("TinyGo") || named("runtime.tinygo") || named("tinygo_") {
        Some("TinyGo")
    } else if made_by("Go cmd/compile") || facts.exports_function("go_scheduler") {
        Some("Go")
    } else if made_by("Rust")
        || made_by("rustc")
        || named("core::fmt::")
        || named("4core3fmt")
        || holds("/rustc/")
        || holds("library/core/src/")
        || holds("proxy-wasm-0.")
    {
        Some("Rust")
    } else if is_assemblyscript(facts) || data_holds(bytes, &wide("~lib/rt/")) {
        Some("AssemblyScript")
    } else if named("zig_") || named("builtin.panic") || named("std.builtin") {
        Some("Zig")
    } else if made_by("C_plus_plus") || facts.imports("env", "emscripten_notify_memory_growth") {
        Some("C++")
    } else if made_by("clang") || named("__wasm_call_ctors") {
        Some("C or C++")
    } else {
        None
    }
}

/// Its runtime has functions of these names, and its programs end by the first.
fn is_assemblyscript(facts: &Facts) -> bool {
    let abort = facts.imports.iter().any(|import| {
        import.module == "env"
            && import.name == "abort"
            && matches!(&import.ty, super::facts::Type::Function(ty) if ty == "(i32, i32, i32, i32) -> ()")
    });
    let named = |text: &str| facts.names.iter().any(|name| name.contains(text));
    abort
        || facts.exports_function("__new")
        || facts.exports_function("__retain")
        || named("~lib/rt/")
        || facts.customs.iter().any(|custom| custom.name == "sourceMappingURL")
            && facts.exports_function("malloc")
}

fn sdk(facts: &Facts, bytes: &[u8]) -> Option<&'static str> {
    let named = |text: &str| facts.names.iter().any(|name| name.contains(text));
    let holds = |text: &str| data_holds(bytes, text.as_bytes());
    if named("proxy_wasm::") || named("10proxy_wasm") || holds("proxy-wasm-0.") {
        return Some("proxy-wasm (Rust)");
    }
    for (path, sdk) in [
        ("github.com/proxy-wasm/proxy-wasm-go-sdk", "proxy-wasm-go-sdk"),
        ("github.com/tetratelabs/proxy-wasm-go-sdk", "proxy-wasm-go-sdk (tetratelabs)"),
        ("github.com/higress-group/proxy-wasm-go-sdk", "proxy-wasm-go-sdk (Higress)"),
    ] {
        if named(path) || holds(path) {
            return Some(sdk);
        }
    }
    if named("@solo-io/proxy-runtime") || data_holds(bytes, &wide("@solo-io/proxy-runtime")) {
        return Some("@solo-io/proxy-runtime");
    }
    if named("ContextBase") || named("RootContext") && named("proxy_on_") {
        return Some("proxy-wasm-cpp-sdk");
    }
    None
}

/// Texts of AssemblyScript are of UTF-16.
fn wide(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}
