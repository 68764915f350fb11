//! The requests that have streams, by the address of their `ngx_http_request_t`.
//!
//! A record lives from a request's first stream until nginx frees the request: the cleanup handler of the
//! request removes it and ends its streams, so an address that nginx uses again never finds an old record.

use std::cell::RefCell;
use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::request_line::{self, Text};
use super::ticker::{self, Entry};
use super::{Failure, connection, ending, foreign, nginx};
use crate::abi::LogLevel;
use crate::ports::RequestId;
use crate::vm::{Context, StreamRef};

#[derive(Default)]
struct Record {
    streams: SmallVec<[(Rc<Context>, Seat); 1]>,
    /// The streams that hold some of the response's body.
    holding: SmallVec<[StreamRef; 1]>,
    /// What the filters have made the response's body larger by, so far.
    grown: i64,
    /// A filter has closed a stream of it.
    closed: bool,
    path: Option<Vec<u8>>,
    /// The client's target, when a filter's has taken its place in nginx.
    client_target: Option<Text>,
    scheme: Option<Vec<u8>>,
}

/// What a plugin context is to a request.
#[derive(Clone, Copy)]
pub enum Seat {
    /// It has a stream.
    Stream(StreamRef),
    /// It has a stream that is told of nothing but its end.
    LeftOut(StreamRef),
    /// It failed and is not called any more.
    Skipped {
        /// Nothing of the response's body goes out.
        drops_body: bool,
    },
}

thread_local! {
    static REQUESTS: RefCell<FxHashMap<RequestId, Record>> = RefCell::default();
}

/// The seat of a plugin context in a request; none before its first event.
pub fn seat(request: RequestId, context: &Context) -> Option<Seat> {
    REQUESTS.with_borrow(|requests| {
        let record = requests.get(&request)?;
        let found = record.streams.iter().find(|(of, _)| std::ptr::eq(Rc::as_ptr(of), context));
        found.map(|(_, seat)| *seat)
    })
}

/// The stream of a plugin context in a request.
pub fn stream(request: RequestId, context: &Context) -> Option<StreamRef> {
    match seat(request, context)? {
        Seat::Stream(stream) | Seat::LeftOut(stream) => Some(stream),
        Seat::Skipped { .. } => None,
    }
}

/// Tells a plugin context no more of a watched request, but for the end of its stream when it has one. One that has a
/// stream already is told on unless `started_too`.
pub fn leave_out(request: RequestId, context: &Rc<Context>, started_too: bool) {
    REQUESTS.with_borrow_mut(|requests| {
        let streams = &mut requests.entry(request).or_default().streams;
        match streams.iter_mut().find(|(of, _)| Rc::ptr_eq(of, context)) {
            Some((_, seat)) => {
                if let Seat::Stream(stream) = *seat
                    && started_too
                {
                    *seat = Seat::LeftOut(stream);
                }
            }
            None => streams.push((context.clone(), Seat::Skipped { drops_body: false })),
        }
    });
}

/// Skips a plugin context for the rest of a watched request. Its stream, when it has one, must be ended.
pub fn skip(request: RequestId, context: &Rc<Context>, drops_body: bool) -> Option<StreamRef> {
    let skipped = Seat::Skipped { drops_body };
    REQUESTS.with_borrow_mut(|requests| {
        let streams = &mut requests.entry(request).or_default().streams;
        match streams.iter_mut().find(|(of, _)| Rc::ptr_eq(of, context)) {
            Some((_, seat)) => match std::mem::replace(seat, skipped) {
                Seat::Stream(stream) | Seat::LeftOut(stream) => Some(stream),
                Seat::Skipped { .. } => None,
            },
            None => {
                streams.push((context.clone(), skipped));
                None
            }
        }
    })
}

/// Makes sure that a request is watched: its streams will end when nginx frees it.
pub fn watch(request: RequestId) -> Result<(), Failure> {
    if REQUESTS.with_borrow(|requests| requests.contains_key(&request)) {
        return Ok(());
    }
    if !nginx::add_cleanup(request, on_request_freed) {
        return Err(Failure::new("nginx has no memory for a cleanup handler"));
    }
    REQUESTS.with_borrow_mut(|requests| requests.insert(request, Record::default()));
    Ok(())
}

/// Notes whether a stream holds some of the response's body.
pub fn set_holding(request: RequestId, stream: StreamRef, holds: bool) {
    change(request, |record| {
        record.holding.retain(|other| *other != stream);
        if holds {
            record.holding.push(stream);
        }
    });
}

/// Notes that something else of the response's body goes on than what came: bytes that came, bytes that go on.
pub fn add_growth(request: RequestId, came: usize, left: usize) {
    change(request, |record| record.grown += left as i64 - came as i64);
}

/// Notes that a filter has closed its stream: nothing may follow on the connection.
pub fn set_closed(request: RequestId) {
    change(request, |record| record.closed = true);
}

/// See [`set_holding`].
pub fn is_holding(request: RequestId, stream: StreamRef) -> bool {
    REQUESTS.with_borrow(|requests| {
        requests.get(&request).is_some_and(|record| record.holding.contains(&stream))
    })
}

/// Adds a stream to a watched request.
pub fn add_stream(request: RequestId, context: Rc<Context>, stream: StreamRef) {
    REQUESTS.with_borrow_mut(|requests| {
        requests.entry(request).or_default().streams.push((context, Seat::Stream(stream)));
    });
}

/// The path that a filter wrote last.
pub fn path(request: RequestId) -> Option<Vec<u8>> {
    REQUESTS.with_borrow(|requests| requests.get(&request)?.path.clone())
}

/// The scheme that a filter wrote.
pub fn scheme(request: RequestId) -> Option<Vec<u8>> {
    REQUESTS.with_borrow(|requests| requests.get(&request)?.scheme.clone())
}

/// Keeps the path that a filter wrote, for the filters after it.
pub fn set_path(request: RequestId, path: &[u8]) {
    change(request, |record| record.path = Some(path.to_vec()));
}

/// Keeps the client's target, which a filter's is about to take the place of.
pub fn set_client_target(request: RequestId, target: Text) {
    change(request, |record| record.client_target = Some(record.client_target.unwrap_or(target)));
}

/// Keeps the scheme that a filter wrote.
pub fn set_scheme(request: RequestId, scheme: &[u8]) {
    change(request, |record| record.scheme = Some(scheme.to_vec()));
}

fn change(request: RequestId, f: impl FnOnce(&mut Record)) {
    REQUESTS.with_borrow_mut(|requests| {
        if let Some(record) = requests.get_mut(&request) {
            f(record);
        }
    });
}

/// nginx frees a request: its variables are final and its log line is about to be written.
unsafe extern "C" fn on_request_freed(data: *mut c_void) {
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let Some(request) = NonZeroUsize::new(data as usize).map(RequestId) else { return };
        // The streams of this request were run in this process, so its ticker is there.
        let _below = foreign::Below::enter_from_nginx();
        let _running = ticker::enter(Entry::Request);
        // The record stays while the streams end: they may read the path that a filter wrote.
        let streams = REQUESTS.with_borrow_mut(|requests| {
            requests.get_mut(&request).map(|record| std::mem::take(&mut record.streams))
        });
        for (context, seat) in streams.into_iter().flatten() {
            if let Seat::Stream(stream) | Seat::LeftOut(stream) = seat {
                ending::end_stream(Some(request), context, stream);
            }
        }
        let record = REQUESTS.with_borrow_mut(|requests| requests.remove(&request));
        let Some(record) = record else { return };
        if record.closed {
            connection::close(request);
        } else if record.grown < 0 {
            connection::close_if_short(request);
        }
        // `$request_uri` of the access log is what the client sent.
        if let Some(target) = record.client_target {
            request_line::restore(request, target);
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
