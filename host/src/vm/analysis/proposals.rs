//! Which proposals of WebAssembly are on, and what to say of a module that uses one which is off.

use wasmparser::{Validator, WasmFeatures};

/// A proposal of WebAssembly.
pub struct Proposal {
    /// Its name.
    pub name: &'static str,
    features: WasmFeatures,
    /// Why it is off, when it is.
    pub off: Option<Off>,
}

/// See [`Proposal`].
pub struct Off {
    /// The reason.
    pub why: &'static str,
    /// How to build a module without it.
    pub instead: &'static str,
}

const fn on(name: &'static str, features: WasmFeatures) -> Proposal {
    Proposal { name, features, off: None }
}

const fn off(
    name: &'static str,
    features: WasmFeatures,
    why: &'static str,
    instead: &'static str,
) -> Proposal {
    Proposal { name, features, off: Some(Off { why, instead }) }
}

use WasmFeatures as F;

/// Those that toolchains know.
pub static PROPOSALS: &[Proposal] = &[
    on("mutable globals", F::MUTABLE_GLOBAL),
    on("saturating float-to-int conversions", F::SATURATING_FLOAT_TO_INT),
    on("sign extension", F::SIGN_EXTENSION),
    on("multiple values", F::MULTI_VALUE),
    on("bulk memory", F::BULK_MEMORY),
    on("reference types (`funcref`)", F::REFERENCE_TYPES),
    on("typed function references", F::FUNCTION_REFERENCES),
    on("SIMD", F::SIMD),
    on("relaxed SIMD", F::RELAXED_SIMD),
    on("tail calls", F::TAIL_CALL),
    on("extended constant expressions", F::EXTENDED_CONST),
    off(
        "exceptions",
        F::EXCEPTIONS,
        "wasmtime has them only together with its garbage collector, which this build leaves out",
        "without WebAssembly exceptions (C++: -fno-exceptions; Rust: panic = \"abort\")",
    ),
    off(
        "legacy exceptions",
        F::LEGACY_EXCEPTIONS,
        "wasmtime does not compile them",
        "without WebAssembly exceptions (C++: -fno-exceptions; Rust: panic = \"abort\")",
    ),
    off(
        "threads",
        F::THREADS,
        "a filter runs on the one thread of its worker, and waiting on shared memory would stop that",
        "without threads, atomics and shared memory (C: no -pthread)",
    ),
    off(
        "garbage collection (also `externref`)",
        F::GC_TYPES,
        "this build of wasmtime leaves the garbage collector out",
        "for linear memory, without GC types and externref",
    ),
    off("memory64", F::MEMORY64, "addresses of the Proxy-Wasm ABI have 32 bits", "for wasm32"),
    off(
        "multiple memories",
        F::MULTI_MEMORY,
        "the Proxy-Wasm ABI knows one memory, and `memory_limit` is for that one",
        "with one memory",
    ),
    off(
        "custom page sizes",
        F::CUSTOM_PAGE_SIZES,
        "not in the standard yet",
        "with pages of 64 KiB",
    ),
    off("wide arithmetic", F::WIDE_ARITHMETIC, "not in the standard yet", "without it"),
    off("stack switching", F::STACK_SWITCHING, "not in the standard yet", "without it"),
    off(
        "shared-everything threads",
        F::SHARED_EVERYTHING_THREADS,
        "not in the standard yet",
        "without it",
    ),
    off("memory control", F::MEMORY_CONTROL, "not in the standard yet", "without it"),
];

/// Says which proposals a module uses that are off; `None` when it is not valid with them either.
pub fn missing(bytes: &[u8]) -> Option<String> {
    let of = |proposals: &mut dyn Iterator<Item = &Proposal>| {
        proposals.fold(WasmFeatures::empty(), |all, proposal| all | proposal.features)
    };
    let all = WasmFeatures::default() | of(&mut PROPOSALS.iter());
    let valid = |features| Validator::new_with_features(features).validate_all(bytes).is_ok();
    if !valid(all) {
        return None;
    }
    let needed: Vec<(&str, &Off)> = PROPOSALS
        .iter()
        .filter_map(|proposal| Some((proposal, proposal.off.as_ref()?)))
        .filter(|(proposal, _)| !valid(all - proposal.features))
        .map(|(proposal, off)| (proposal.name, off))
        .collect();
    let (_, Off { why, instead }) = needed.first()?;
    let names: Vec<&str> = needed.iter().map(|(name, _)| *name).collect();
    let text = format!(
        "not a valid WebAssembly module for this host: it uses {} (off here: {why}); build the filter {instead}",
        names.join(" and ")
    );
    // Names and reasons are marked for the documentation.
    Some(text.replace('`', ""))
}
