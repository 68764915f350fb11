//! What the fuzz targets do with their bytes. `tests/corpus.rs` does the same with every file of `fuzz/corpus`.
//!
//! Each function panics when something that must hold does not.

mod callout;
mod events;
mod grpc;
mod header;
mod header_map;
mod hostcalls;
mod input;
mod module;
mod path;

/// A target's function.
pub(crate) type Body = fn(&[u8]);

/// The targets by name. Corpora and programs of the fuzz crate bear the same names.
pub(crate) const TARGETS: &[(&str, Body)] = &[
    ("header", header::run),
    ("header_map", header_map::run),
    ("path", path::run),
    ("callout", callout::run),
    ("grpc", grpc::run),
    ("hostcalls", hostcalls::run),
    ("events", events::run),
    ("module", module::run),
];
