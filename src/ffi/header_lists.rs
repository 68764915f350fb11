//! nginx's lists of header lines, and where `ngx_http_request_t` has them. `header_lines.rs` finds and changes them.

use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};

/// `ngx_list_part_t`
#[repr(C)]
pub(super) struct Part {
    pub lines: *mut u8,
    pub count: usize,
    pub next: *mut Part,
}

/// `ngx_list_t`
#[repr(C)]
pub(super) struct List {
    pub last: *mut Part,
    pub part: Part,
    pub line_size: usize,
    pub capacity: usize,
    pub pool: *mut c_void,
}

/// Words of `ngx_list_t`.
pub(super) const LIST_WORDS: usize = size_of::<List>() / size_of::<usize>();

/// Where requests have a list.
pub(super) struct ListPlace {
    /// How far from the beginning of a request, in words; 0 while that is not known.
    place: AtomicUsize,
    /// How many requests have had it there, one after another.
    agreed: AtomicUsize,
}

/// So many requests must have had it there, before it is taken from there without a look at it.
const ENOUGH: usize = 8;

impl ListPlace {
    const fn unknown() -> Self {
        Self { place: AtomicUsize::new(0), agreed: AtomicUsize::new(0) }
    }

    /// `None` while it is not known.
    pub(super) fn get(&self) -> Option<usize> {
        Some(self.place.load(Ordering::Relaxed)).filter(|place| *place != 0)
    }

    /// The same where enough requests agree.
    #[inline]
    pub(super) fn get_agreed(&self) -> Option<usize> {
        if self.agreed.load(Ordering::Relaxed) < ENOUGH { None } else { self.get() }
    }

    /// A request has it there.
    pub(super) fn agree(&self) {
        let agreed = self.agreed.load(Ordering::Relaxed);
        self.agreed.store(agreed.saturating_add(1), Ordering::Relaxed);
    }

    /// It was found there, and not where it was before.
    pub(super) fn set(&self, place: usize) {
        self.place.store(place, Ordering::Relaxed);
        self.agreed.store(1, Ordering::Relaxed);
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
        Self { response: ListPlace::unknown(), request: ListPlace::unknown() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_agreed_on_when_enough_requests_in_a_row_had_it_there() {
        let place = ListPlace::unknown();
        for found in [30, 31] {
            place.set(found);
            for _ in 1..ENOUGH {
                assert_eq!((place.get(), place.get_agreed()), (Some(found), None));
                place.agree();
            }
            assert_eq!(place.get_agreed(), Some(found));
        }
    }
}
