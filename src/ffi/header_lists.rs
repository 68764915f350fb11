//! Where `ngx_http_request_t` has the lists of header lines. `header_lines.rs` finds and changes them.

use std::sync::atomic::{AtomicUsize, Ordering};

/// How far from its beginning a request has a list, in words; 0 while that is not known.
pub(super) struct ListPlace(AtomicUsize);

impl ListPlace {
    /// `None` while it is not known.
    pub(super) fn get(&self) -> Option<usize> {
        Some(self.0.load(Ordering::Relaxed)).filter(|place| *place != 0)
    }

    /// It was found there.
    pub(super) fn set(&self, place: usize) {
        self.0.store(place, Ordering::Relaxed);
    }
}

/// See the module.
pub(super) struct ListPlaces {
    /// The list of the response.
    pub response: ListPlace,
    /// The list of the request.
    pub request: ListPlace,
}

impl ListPlaces {
    /// Not known yet.
    pub(super) const fn unknown() -> Self {
        Self { response: ListPlace(AtomicUsize::new(0)), request: ListPlace(AtomicUsize::new(0)) }
    }
}
