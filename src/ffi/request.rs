//! The requests that have streams, by the address of their `ngx_http_request_t`.
//!
//! A record lives from a request's first stream until nginx frees the request: the cleanup handler of the
//! request (`cleanup.rs`) removes it and ends its streams, so an address that nginx uses again never finds an old record.

use std::cell::RefCell;
use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::rc::Rc;

use super::failure::Failure;
use super::line_place::Text;
use super::types::RPW_BAD_REQUEST;
use crate::id_map::IdMap;
use crate::ports::RequestId;
use crate::vm::{Context, StreamRef};

/// The request at that address.
pub(super) fn id(request: *mut c_void) -> Result<RequestId, Failure> {
    NonZeroUsize::new(request as usize).map(RequestId).ok_or_else(bad)
}

/// It is no request that filters can be told of.
pub(super) fn bad() -> Failure {
    Failure::with_code(RPW_BAD_REQUEST, "bad request")
}

/// See the module.
#[derive(Default)]
pub struct Requests(RefCell<Records>);

#[derive(Default)]
struct Records {
    by_request: IdMap<RequestId, Box<Record>>,
    /// Records of requests that have ended, for the next ones.
    #[allow(clippy::vec_box, reason = "records move in and out as they are")]
    spare: Vec<Box<Record>>,
}

/// Spare records that are kept.
const SPARE: usize = 64;

/// The memory of larger lists is not kept.
const SPARE_STREAMS: usize = 64;

#[derive(Default)]
struct Record {
    /// What plugin contexts are to it.
    streams: Vec<(Rc<Context>, Participation)>,
    /// The streams that hold some of the response's body.
    holding: Vec<StreamRef>,
    /// What the filters have made the response's body larger by, so far.
    grown: i64,
    /// A filter has closed a stream of it.
    closed: bool,
    path: Option<Vec<u8>>,
    /// The client's target, when a filter's has taken its place in nginx.
    client_target: Option<Text>,
    scheme: Option<Vec<u8>>,
}

/// What is left of a request that has ended.
pub struct Ended {
    /// The client's target, when a filter's took its place.
    pub client_target: Option<Text>,
    /// The filters have made the response's body smaller than it came.
    pub is_short: bool,
    /// A filter has closed a stream of it.
    pub closed: bool,
}

impl Records {
    /// The record of a request, made when there is none; `None` where `watch` says that nginx would not tell of its end.
    #[inline(always)]
    fn get_or_add(
        &mut self,
        request: RequestId,
        watch: impl FnOnce() -> bool,
    ) -> Option<&mut Record> {
        let Self { by_request, spare } = self;
        let make = || watch().then(|| spare.pop().unwrap_or_default());
        by_request.get_or_add(request, make).map(|record| &mut **record)
    }
}

impl Record {
    fn participation_of(&mut self, context: &Context) -> Option<&mut Participation> {
        let mut streams = self.streams.iter_mut();
        streams
            .find(|(of, _)| std::ptr::eq(Rc::as_ptr(of), context))
            .map(|(_, participation)| participation)
    }
}

/// What a plugin context is to a request.
#[derive(Clone, Copy)]
pub enum Participation {
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

impl Requests {
    /// The participation of a plugin context in a request; none before its first event.
    #[inline]
    pub fn participation(&self, request: RequestId, context: &Context) -> Option<Participation> {
        self.change(request, |record| record.participation_of(context).copied())?
    }

    /// The stream of a plugin context in a request.
    pub fn stream(&self, request: RequestId, context: &Context) -> Option<StreamRef> {
        match self.participation(request, context)? {
            Participation::Stream(stream) | Participation::LeftOut(stream) => Some(stream),
            Participation::Skipped { .. } => None,
        }
    }

    /// Tells a plugin context no more of a request with a record, but for the end of its stream when it has one. One that has a
    /// stream already is told on unless `started_too`.
    pub fn leave_out(&self, request: RequestId, context: &Rc<Context>, started_too: bool) {
        self.change(request, |record| match record.participation_of(context) {
            Some(participation) => {
                if let Participation::Stream(stream) = *participation
                    && started_too
                {
                    *participation = Participation::LeftOut(stream);
                }
            }
            None => {
                record.streams.push((context.clone(), Participation::Skipped { drops_body: false }))
            }
        });
    }

    /// Skips a plugin context for the rest of a request with a record. Its stream, when it has one, must be ended.
    pub fn skip(
        &self,
        request: RequestId,
        context: &Rc<Context>,
        drops_body: bool,
    ) -> Option<StreamRef> {
        let skipped = Participation::Skipped { drops_body };
        self.change(request, |record| match record.participation_of(context) {
            Some(participation) => match std::mem::replace(participation, skipped) {
                Participation::Stream(stream) | Participation::LeftOut(stream) => Some(stream),
                Participation::Skipped { .. } => None,
            },
            None => {
                record.streams.push((context.clone(), skipped));
                None
            }
        })?
    }

    /// Makes a record of a request, unless it has one. `watch` sees to it that nginx tells of its end; false when it does not.
    pub fn add(&self, request: RequestId, watch: impl FnOnce() -> bool) -> bool {
        self.0.borrow_mut().get_or_add(request, watch).is_some()
    }

    /// The same, and adds a stream to it.
    #[inline(always)]
    pub fn add_with_stream(
        &self,
        request: RequestId,
        watch: impl FnOnce() -> bool,
        context: Rc<Context>,
        stream: StreamRef,
    ) -> bool {
        let mut records = self.0.borrow_mut();
        let record = records.get_or_add(request, watch);
        record.map(|record| record.streams.push((context, Participation::Stream(stream)))).is_some()
    }

    /// Notes whether a stream holds some of the response's body.
    pub fn set_holding(&self, request: RequestId, stream: StreamRef, holds: bool) {
        self.change(request, |record| {
            record.holding.retain(|other| *other != stream);
            if holds {
                record.holding.push(stream);
            }
        });
    }

    /// Notes that something else of the response's body is passed on than what came: bytes that came, bytes that are passed on.
    pub fn add_growth(&self, request: RequestId, came: usize, left: usize) {
        self.change(request, |record| record.grown += left as i64 - came as i64);
    }

    /// Notes that a filter has closed its stream: nothing may follow on the connection.
    pub fn set_closed(&self, request: RequestId) {
        self.change(request, |record| record.closed = true);
    }

    /// See [`Requests::set_holding`].
    pub fn is_holding(&self, request: RequestId, stream: StreamRef) -> bool {
        self.change(request, |record| record.holding.contains(&stream)).unwrap_or(false)
    }

    /// Adds a stream to a request with a record.
    #[inline(always)]
    pub fn add_stream(&self, request: RequestId, context: Rc<Context>, stream: StreamRef) {
        self.change(request, |record| {
            record.streams.push((context, Participation::Stream(stream)))
        });
    }

    /// Takes the stream of a plugin context out again, which could not be created.
    pub fn remove_stream(&self, request: RequestId, context: &Context) {
        self.change(request, |record| {
            record.streams.retain(|(of, _)| !std::ptr::eq(Rc::as_ptr(of), context));
        });
    }

    /// The path that a filter wrote last.
    pub fn path(&self, request: RequestId) -> Option<Vec<u8>> {
        self.change(request, |record| record.path.clone())?
    }

    /// The scheme that a filter wrote.
    pub fn scheme(&self, request: RequestId) -> Option<Vec<u8>> {
        self.change(request, |record| record.scheme.clone())?
    }

    /// Keeps the path that a filter wrote, for the filters after it.
    pub fn set_path(&self, request: RequestId, path: &[u8]) {
        self.change(request, |record| record.path = Some(path.to_vec()));
    }

    /// Keeps the client's target, which a filter's is about to take the place of.
    pub fn set_client_target(&self, request: RequestId, target: Text) {
        self.change(request, |record| {
            record.client_target = Some(record.client_target.unwrap_or(target));
        });
    }

    /// Keeps the scheme that a filter wrote.
    pub fn set_scheme(&self, request: RequestId, scheme: &[u8]) {
        self.change(request, |record| record.scheme = Some(scheme.to_vec()));
    }

    /// Removes a request that ends. `end` is called with its streams and their plugin contexts.
    pub fn end(
        &self,
        request: RequestId,
        mut end: impl FnMut(&Rc<Context>, StreamRef),
    ) -> Option<Ended> {
        // The record stays while the streams end: they read what filters wrote, and may write.
        let mut streams = self.change(request, |record| std::mem::take(&mut record.streams))?;
        for (context, participation) in &streams {
            if let Participation::Stream(stream) | Participation::LeftOut(stream) = *participation {
                end(context, stream);
            }
        }
        // Plugin contexts that were replaced go with the last request that has them. Their VMs may look for requests.
        streams.clear();
        let mut records = self.0.borrow_mut();
        let mut record = records.by_request.remove(&request)?;
        let ended = Ended {
            client_target: record.client_target.take(),
            is_short: record.grown < 0,
            closed: record.closed,
        };
        if records.spare.len() < SPARE {
            if streams.capacity() <= SPARE_STREAMS {
                let others = std::mem::replace(&mut record.streams, streams);
                // As a rule there are none, and to drop nothing takes a while, too.
                if others.capacity() == 0 {
                    std::mem::forget(others);
                }
            }
            record.holding.clear();
            record.grown = 0;
            record.closed = false;
            record.path = None;
            record.scheme = None;
            records.spare.push(record);
        }
        Some(ended)
    }

    #[inline(always)]
    fn change<R>(&self, request: RequestId, f: impl FnOnce(&mut Record) -> R) -> Option<R> {
        self.0.borrow_mut().by_request.get_mut(&request).map(|record| f(record))
    }
}
