//! What nginx has of a response beside its header lines, in fields of `ngx_http_headers_out_t`.
//!
//! ngx_lua has functions that read them. They take longer than all the lines together, so the fields are read here. Where they
//! are depends on nginx's version, and is believed only after some responses had there what ngx_lua said of them.

use std::sync::atomic::{AtomicUsize, Ordering};

/// `ngx_http_headers_out_t` in words: both lists, `status`, `status_line`, `server`, `date`, and then this pointer to the line.
const CONTENT_LENGTH_LINE: usize = 2 * super::header_lists::LIST_WORDS + 5;
/// Where `content_type` may be.
const TYPE_FROM: usize = CONTENT_LENGTH_LINE + 1;
const TYPE_TO: usize = TYPE_FROM + 20;
/// From `content_type` to `content_length_n`: `charset`, `content_type_lowcase` and `content_type_hash` are between them.
const LENGTH_BEHIND: usize = 6;
/// nginx before 1.23 has two of `ngx_array_t` there, too.
const ARRAYS: usize = 2 * 5;
/// From `content_length_n` to `last_modified_time`: `content_offset` and `date_time` are between them.
const TIME_BEHIND: usize = 3;

/// So many responses must agree, one after another.
const ENOUGH: usize = 8;
/// There is no such place.
const NONE: usize = usize::MAX;

/// Where the fields are.
pub(super) struct FieldPlace {
    /// `content_type`, in words from the list of the response; 0 while that is not known.
    content_type: AtomicUsize,
    agreed: AtomicUsize,
}

/// What is in the fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fields<'a> {
    /// Empty where there is none.
    pub content_type: &'a [u8],
    /// `None` where it is in a line, or unknown.
    pub content_length: Option<u64>,
    /// Whether nginx is to send the time of a file.
    pub has_time: bool,
}

/// The list of a response: its first word, and whether its nginx is 1.23 or later.
#[derive(Clone, Copy)]
pub(super) struct Response {
    pub words: *const usize,
    pub is_new: bool,
}

impl FieldPlace {
    /// Not known yet.
    pub(super) const fn unknown() -> Self {
        Self { content_type: AtomicUsize::new(0), agreed: AtomicUsize::new(0) }
    }

    /// The fields of a response; `None` while it is not known where they are.
    ///
    /// # Safety
    /// The response is that of a living request, which does not change while the fields are in use.
    #[inline]
    pub(super) unsafe fn get<'a>(&self, of: Response) -> Option<Fields<'a>> {
        if self.agreed.load(Ordering::Relaxed) < ENOUGH {
            return None;
        }
        // SAFETY: as promised by the caller; so many responses had the fields there.
        unsafe { of.fields(self.content_type.load(Ordering::Relaxed)) }
    }

    /// Compares a response with what ngx_lua says of it. A length of 0, or none, is no proof.
    ///
    /// # Safety
    /// As for [`FieldPlace::get`].
    #[cold]
    pub(super) unsafe fn learn(&self, of: Response, said: Fields<'_>) {
        let known = self.content_type.load(Ordering::Relaxed);
        if known == NONE || said.content_type.is_empty() || said.content_length.unwrap_or(0) == 0 {
            return;
        }
        let is_there = |at: &usize| {
            // SAFETY: as promised by the caller. What is read is within the request.
            unsafe {
                *of.words.add(*at) == said.content_type.len()
                    && *of.words.add(*at + 1) == said.content_type.as_ptr() as usize
                    && of.fields(*at) == Some(said)
            }
        };
        let found = (TYPE_FROM..TYPE_TO).find(is_there).unwrap_or(NONE);
        // One that differs once is not believed again.
        let agrees = known == 0 || known == found;
        self.content_type.store(if agrees { found } else { NONE }, Ordering::Relaxed);
        let agreed =
            if found == NONE || !agrees { 0 } else { self.agreed.load(Ordering::Relaxed) + 1 };
        self.agreed.store(agreed, Ordering::Relaxed);
    }
}

impl Response {
    /// The fields, if `content_type` is there.
    ///
    /// # Safety
    /// As for [`FieldPlace::get`].
    unsafe fn fields<'a>(self, content_type: usize) -> Option<Fields<'a>> {
        let length = content_type + LENGTH_BEHIND + if self.is_new { 0 } else { ARRAYS };
        // SAFETY: `ngx_http_request_t` has more words behind its lists than these.
        let at = |word: usize| unsafe { *self.words.add(word) };
        let is_in_line = at(CONTENT_LENGTH_LINE) != 0;
        let bytes = Some(at(content_type)).filter(|length| *length <= LONGEST)?;
        let data = at(content_type + 1) as *const std::ffi::c_char;
        Some(Fields {
            // SAFETY: nginx has them there.
            content_type: unsafe { super::types::bytes(data, bytes) },
            content_length: u64::try_from(at(length) as i64).ok().filter(|_| !is_in_line),
            has_time: at(length + TIME_BEHIND) as i64 >= 0,
        })
    }
}

/// Nothing longer is a content type.
const LONGEST: usize = 65536;

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: usize = CONTENT_LENGTH_LINE;
    const OLD: usize = LENGTH_BEHIND + ARRAYS;
    static TYPE: &[u8] = b"text/plain";

    /// The words of a response of an nginx before 1.23.
    fn words(content_type: usize, length: i64, time: i64) -> [usize; 128] {
        let mut words = [0; 128];
        words[content_type - 1] = TYPE.len();
        words[content_type] = TYPE.len();
        words[content_type + 1] = TYPE.as_ptr() as usize;
        words[content_type + OLD] = length as usize;
        words[content_type + OLD + TIME_BEHIND] = time as usize;
        words
    }

    fn said(content_length: Option<u64>, has_time: bool) -> Fields<'static> {
        Fields { content_type: TYPE, content_length, has_time }
    }

    fn get(place: &FieldPlace, words: &[usize; 128]) -> Option<Fields<'static>> {
        // SAFETY: there are as many words as a request has.
        unsafe { place.get(Response { words: words.as_ptr(), is_new: false }) }
    }

    fn learn(place: &FieldPlace, words: &[usize; 128], said: Fields<'_>) {
        // SAFETY: as above.
        unsafe { place.learn(Response { words: words.as_ptr(), is_new: false }, said) };
    }

    #[test]
    fn fields_are_read_when_enough_responses_had_them_there() {
        let place = FieldPlace::unknown();
        let one = words(31, 7, -1);
        for _ in 0..ENOUGH {
            assert_eq!(get(&place, &one), None);
            // These prove nothing.
            learn(&place, &words(31, 0, -1), said(Some(0), false));
            learn(&place, &words(31, -1, -1), said(None, false));
            learn(&place, &one, said(Some(7), false));
        }
        assert_eq!(get(&place, &one), Some(said(Some(7), false)));
        assert_eq!(get(&place, &words(31, -1, 5)), Some(said(None, true)));
        let mut in_line = words(31, 7, -1);
        in_line[LINE] = 1;
        assert_eq!(get(&place, &in_line), Some(said(None, false)));
    }

    #[test]
    fn fields_that_differ_from_what_ngx_lua_says_are_never_read() {
        for other in [words(31, 8, -1), words(31, 7, 5), words(32, 7, -1), words(90, 7, -1)] {
            let place = FieldPlace::unknown();
            let one = words(31, 7, -1);
            for _ in 1..ENOUGH {
                learn(&place, &one, said(Some(7), false));
            }
            learn(&place, &other, said(Some(7), false));
            for _ in 0..2 * ENOUGH {
                learn(&place, &one, said(Some(7), false));
                assert_eq!(get(&place, &one), None);
            }
        }
    }
}
