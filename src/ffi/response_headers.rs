//! The headers of a response, read from nginx's own list of them.
//!
//! `ngx.resp.get_headers` is a function for Lua's interpreter: it makes a string of each name and each value and takes longer
//! than most filters. Where the list is not known, Lua has to call it all the same (`snapshot.lua`).

use super::header_lines::{self, Lines};
use super::response_fields::Fields;
use super::variables::Known;
use super::{nginx, variables};
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

/// Puts the headers into a map, those that `ngx.resp.get_headers` gives, and the time of a file that nginx serves.
pub(super) fn read(request: RequestId, lines: &Lines, map: &mut HeaderMap) {
    // SAFETY: they are copied before anything happens to the request.
    let made =
        |(_, variable): (&[u8], Known)| unsafe { variables::borrow_known(request, variable) };
    let known = lines.fields();
    // ngx_lua gives the lines of the list for a header without a field.
    let in_field = |name: &[u8]| {
        header_lines::response_header(request, name)
            .filter(|value| lines.iter().all(|(_, line)| line.as_ptr() != value.as_ptr()))
    };
    let content_type = known.map(|fields| fields.content_type);
    let content_type = content_type.or_else(|| in_field(CONTENT_TYPE)).unwrap_or_default();
    if !content_type.is_empty() {
        map.push_lower(CONTENT_TYPE, content_type);
    }
    if let Some(value) = made(CONNECTION) {
        map.push_lower(CONNECTION.0, value);
    }
    // nginx decides on it behind the filters of ngx_lua. What it has not decided must not be asked: it would keep the answer.
    if nginx::phase_of_real(request) != Some(Phase::ResponseHeaders)
        && let Some(value) = made(TRANSFER_ENCODING)
    {
        map.push_lower(TRANSFER_ENCODING.0, value);
    }
    for (name, value) in lines.iter() {
        map.push(name, value);
    }
    let Some(fields) = known else {
        // Behind the lines: ngx_lua completes one of them when it is asked.
        let length = in_field(CONTENT_LENGTH);
        if let Some(value) = length {
            map.push_lower(CONTENT_LENGTH, value);
        }
        if map.get(LAST_MODIFIED.0).is_none() {
            let has_time = add_last_modified(request, map);
            let length = length.and_then(|length| std::str::from_utf8(length).ok()?.parse().ok());
            lines.learn_fields(Fields { content_type, content_length: length, has_time });
        }
        return;
    };
    if let Some(length) = fields.content_length {
        map.push_lower(CONTENT_LENGTH, itoa::Buffer::new().format(length).as_bytes());
    }
    if fields.has_time {
        add_last_modified(request, map);
    }
}

/// Puts the time of a file that nginx serves into a map that has none. False when there was none to put.
pub(super) fn add_last_modified(request: RequestId, map: &mut HeaderMap) -> bool {
    let (name, variable) = LAST_MODIFIED;
    if map.get(name).is_some() {
        return false;
    }
    // SAFETY: it is copied before anything happens to the request.
    let time = unsafe { variables::borrow_known(request, variable) };
    let time = time.filter(|time| !time.is_empty());
    if let Some(time) = time {
        map.push_lower(name, time);
    }
    time.is_some()
}
