//! Where `ngx_http_request_t` has the method and the target of a request. `request_line.rs` reads and writes them.

use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};

/// `ngx_str_t`
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Text {
    pub length: usize,
    pub data: *const u8,
}

/// A part of `ngx_http_request_t` that is the same in all versions.
#[repr(C)]
pub(super) struct Line {
    pub method: usize,
    pub http_version: usize,
    pub request_line: Text,
    pub uri: Text,
    pub args: Text,
    pub exten: Text,
    pub unparsed_uri: Text,
    pub method_name: Text,
    pub http_protocol: Text,
    pub schema: Text,
    pub out: *const c_void,
    pub main: *const c_void,
    pub parent: *const c_void,
}

/// How far from its beginning a request has the part; 0 when no request has shown it.
pub(super) struct LinePlace(AtomicUsize);

impl LinePlace {
    /// Not known yet.
    pub(super) const fn unknown() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// The place, as `find` has found it once.
    pub(super) fn get_or(&self, find: impl FnOnce() -> Option<usize>) -> Option<usize> {
        match self.0.load(Ordering::Relaxed) {
            0 => {
                let place = find()?;
                self.0.store(place, Ordering::Relaxed);
                Some(place)
            }
            place => Some(place),
        }
    }
}
