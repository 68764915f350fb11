//! The client's connection.
//!
//! A body that is shorter than its Content-Length leaves the client waiting, and it takes the next response for the
//! rest. nginx does not compare the two and keeps the connection. ngx_lua has no function that closes it once the body
//! went out, so the socket is shut down when nginx frees the request: nginx has handed over all bytes by then, the client
//! sees an incomplete response, and nginx finds the connection closed.
//!
//! HTTP/2 and later need nothing: there a body of another size is an error of its stream alone (RFC 9113, section 8.1.1).

use std::ffi::{c_int, c_void};
use std::num::NonZeroUsize;

use super::{nginx, request_line, variables};
use crate::ports::RequestId;

/// The beginning of `ngx_http_request_t`.
#[repr(C)]
struct Request {
    signature: u32,
    connection: *const Connection,
}

/// The beginning of `ngx_connection_t`.
#[repr(C)]
struct Connection {
    data: *const c_void,
    read: *const c_void,
    write: *const c_void,
    socket: c_int,
}

/// `NGX_HTTP_MODULE`, which nginx writes into each request.
const SIGNATURE: u32 = 0x5054_5448;

/// Closes the connection of a request that nginx is about to free, when the response on it was shorter than its length.
pub(super) fn close_if_short(request: RequestId) {
    shut_down(request, is_short);
}

/// Closes the connection of a request that a filter has closed. nginx does it by itself where it is told by a status; from
/// `header_filter` it may keep the connection and send nothing, and the client would take the next response for this one.
pub(super) fn close(request: RequestId) {
    shut_down(request, |main| main == request && is_of_http1(request));
}

/// `is_due` is asked with the request that the client sent.
fn shut_down(request: RequestId, is_due: impl FnOnce(RequestId) -> bool) {
    let pointer = request.0.get() as *const Request;
    // SAFETY: nginx frees the request after this call. Both structures have begun like this since nginx 0.3. A connection
    // that has a request points to the one that the client sent, which lives for as long as its subrequests.
    unsafe {
        let Some(connection) = (*pointer).connection.as_ref() else { return };
        let of_client = connection.data.cast::<Request>();
        let is_known = |request: *const Request| {
            !request.is_null()
                && (*request).signature == SIGNATURE
                && std::ptr::eq((*request).connection, connection)
        };
        if !is_known(pointer) || !is_known(of_client) {
            return;
        }
        let main = NonZeroUsize::new(of_client as usize).map(RequestId);
        if main.is_some_and(is_due) {
            libc::shutdown(connection.socket, libc::SHUT_RDWR);
        }
    }
}

fn is_of_http1(request: RequestId) -> bool {
    let mut value = Vec::new();
    variables::read(request, b"server_protocol", &mut value) && value.starts_with(b"HTTP/1")
}

fn is_short(request: RequestId) -> bool {
    let mut value = Vec::new();
    let of_http1 = is_of_http1(request)
        && !matches!(nginx::response_status(request), 100..=199 | 204 | 304)
        && !request_line::is_head_or_variable(request);
    let mut number = |name: &[u8]| {
        let found = variables::read(request, name, &mut value);
        found.then(|| std::str::from_utf8(&value).ok()?.parse::<u64>().ok()).flatten()
    };
    // nginx takes the length away where it changes the body itself.
    of_http1
        && number(b"sent_http_content_length")
            .zip(number(b"body_bytes_sent"))
            .is_some_and(|(length, sent)| sent < length)
}
