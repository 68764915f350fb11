//! The headers of a response, read from nginx's own list of them.
//!
//! `ngx.resp.get_headers` is a function for Lua's interpreter: it makes a string of each name and each value and takes longer
//! than most filters. Where the list is not known, Lua has to call it all the same (`snapshot.lua`).

use super::variables::Known;
use super::{header_lines, nginx, variables};
use crate::ports::{Phase, RequestId};
use crate::snapshot::HeaderMap;

/// Headers that nginx may have in a field alone.
const CONTENT_TYPE: &[u8] = b"content-type";
const CONTENT_LENGTH: &[u8] = b"content-length";
/// Those that it makes as it sends the response, and the variables that tell them.
const CONNECTION: (&[u8], Known) = (b"connection", Known::new(b"sent_http_connection"));
const TRANSFER_ENCODING: (&[u8], Known) =
    (b"transfer-encoding", Known::new(b"sent_http_transfer_encoding"));
/// The time of a file that it serves, which it keeps apart from the headers.
const LAST_MODIFIED: (&[u8], Known) = (b"last-modified", Known::new(b"sent_http_last_modified"));

/// Whether [`read`] can read them.
pub(super) fn can_read(request: RequestId) -> bool {
    header_lines::Lines::of_response(request).is_some()
}

/// Puts the headers into a map, those that `ngx.resp.get_headers` gives.
pub(super) fn read(request: RequestId, map: &mut HeaderMap) {
    let Some(lines) = header_lines::Lines::of_response(request) else { return };
    let mut add = |name: &[u8], value: &[u8]| map.push(name, value);
    // ngx_lua gives the lines of the list for a header without a field.
    let in_field = |name: &[u8]| {
        header_lines::response_header(request, name)
            .filter(|value| lines.iter().all(|(_, line)| line.as_ptr() != value.as_ptr()))
    };
    if let Some(value) = in_field(CONTENT_TYPE) {
        add(CONTENT_TYPE, value);
    }
    let mut made = |(name, variable): (&[u8], Known)| {
        // SAFETY: it is copied before anything happens to the request.
        if let Some(value) = unsafe { variables::borrow_known(request, variable) } {
            add(name, value);
        }
    };
    made(CONNECTION);
    // nginx decides on it behind the filters of ngx_lua. What it has not decided must not be asked: it would keep the answer.
    if nginx::phase_of_real(request) != Some(Phase::ResponseHeaders) {
        made(TRANSFER_ENCODING);
    }
    for (name, value) in lines.iter() {
        add(name, value);
    }
    // Behind the lines: ngx_lua completes one of them when it is asked.
    if let Some(value) = in_field(CONTENT_LENGTH) {
        add(CONTENT_LENGTH, value);
    }
}

/// Puts the time of a file that nginx serves into a map that has none.
pub(super) fn add_last_modified(request: RequestId, map: &mut HeaderMap) {
    let (name, variable) = LAST_MODIFIED;
    if map.get(name).is_some() {
        return;
    }
    // SAFETY: it is copied before anything happens to the request.
    let time = unsafe { variables::borrow_known(request, variable) };
    if let Some(time) = time.filter(|time| !time.is_empty()) {
        map.push(name, time);
    }
}
