//! nginx's cleanup handler of a request, which ends its streams.

use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use super::failure::Failure;
use super::process::PROCESS;
use super::ticker::Entry;
use super::worker::{self, Worker};
use super::{connection, nginx, request_line};
use crate::abi::LogLevel;
use crate::ports::RequestId;
use crate::vm::{Context, StreamRef};

/// Makes sure that the streams of a request end when nginx frees it.
pub(super) fn watch(worker: &Worker, request: RequestId) -> Result<(), Failure> {
    if worker.requests.add(request, || tells_of_end(request)) { Ok(()) } else { Err(no_memory()) }
}

/// The same, and a stream is one of the request's. False where that fails: then it is not.
#[inline(always)]
pub(super) fn watch_stream(
    worker: &Worker,
    request: RequestId,
    context: &Rc<Context>,
    stream: StreamRef,
) -> bool {
    worker.requests.add_with_stream(request, || tells_of_end(request), context.clone(), stream)
}

/// Whether nginx will tell of the end of a request.
#[inline(always)]
fn tells_of_end(request: RequestId) -> bool {
    nginx::add_cleanup(request, on_request_freed)
}

/// Why a request cannot be watched.
#[cold]
pub(super) fn no_memory() -> Failure {
    Failure::new("nginx has no memory for a cleanup handler")
}

/// nginx frees a request: its variables are final and its log line is about to be written.
unsafe extern "C" fn on_request_freed(data: *mut c_void) {
    let ended = catch_unwind(AssertUnwindSafe(|| {
        if let Some(request) = NonZeroUsize::new(data as usize) {
            worker::with(|worker| end(worker, RequestId(request)));
        }
    }));
    if ended.is_err() {
        nginx::log(
            None,
            LogLevel::Error,
            b"the host panicked while a request ended; this is a bug of the host",
        );
    }
}

fn end(worker: &Worker, request: RequestId) {
    let _below = worker.entries.enter_from_nginx();
    // The streams of this request were run in this process, so its ticker is there.
    let _running = PROCESS.ticker.enter(Entry::Request);
    let ended = worker.requests.end(request, |context, stream| {
        worker.endings.end_stream(Some(request), context, stream);
    });
    let Some(ended) = ended else { return };
    if ended.closed {
        connection::close(request);
    } else if ended.is_short {
        connection::close_if_short(request);
    }
    // `$request_uri` of the access log is what the client sent.
    if let Some(target) = ended.client_target {
        request_line::restore(request, target);
    }
}
