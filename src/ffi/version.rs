//! What this build is, for Lua and C.

use super::types::rpw_result_t;
use crate::version;

/// What a build of the library is made of. All texts live as long as the process.
#[allow(non_camel_case_types, reason = "the name that C and Lua see")]
#[repr(C)]
pub struct rpw_version_t {
    /// The release, `0.2.0` say.
    pub version: rpw_result_t,
    /// The commit that a release was built from, else `unknown`.
    pub commit: rpw_result_t,
    /// The version of wasmtime in it.
    pub wasmtime: rpw_result_t,
    /// What it was built for, `aarch64-unknown-linux-gnu` say.
    pub target: rpw_result_t,
}

/// Tells what the library was built from.
///
/// # Safety
/// `version` points to a place for one `rpw_version_t`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_version(version: *mut rpw_version_t) {
    let text = |text: &'static str| rpw_result_t { data: text.as_ptr().cast(), length: text.len() };
    let filled = rpw_version_t {
        version: text(version::VERSION),
        commit: text(version::COMMIT),
        wasmtime: text(version::WASMTIME),
        target: text(version::TARGET),
    };
    // SAFETY: the caller's promise.
    unsafe { version.write(filled) };
}
