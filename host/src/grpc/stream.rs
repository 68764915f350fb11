//! One call or stream on a connection.

use std::collections::VecDeque;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake as _, Waker};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};

use super::errors::{is_refusal, status_of};
use super::wakers::StreamWaker;
use super::{Code, Decoder, Event, Message, Opening, Status, metadata};
use crate::limits;
use crate::snapshot::HeaderMap;

/// Bytes of messages that the guest was not told of yet, with [`MESSAGE`] for each. With more the stream reads no more, and
/// the server has to wait.
const UNTOLD: usize = 64 * 1024;
/// What a message counts besides its bytes.
const MESSAGE: usize = 64;

/// Bytes of a stream's messages that are kept until the server answers, so that they can be sent again to another server.
const KEPT: usize = 256 * 1024;

/// See the module.
pub(super) struct Stream {
    /// One message each way.
    pub is_call: bool,
    /// Of a call, once it has come.
    message: Option<Vec<u8>>,
    sender: SendStream<Bytes>,
    /// Messages to be sent; of the first, so many bytes were.
    outgoing: VecDeque<Message>,
    sent: usize,
    /// Messages that were sent, until the server answers; `None` when they are too many.
    kept: Option<Vec<Message>>,
    ends: bool,
    ended: bool,
    response: Option<ResponseFuture>,
    body: Option<RecvStream>,
    decoder: Decoder,
    /// Of messages that the guest was not told of, see [`UNTOLD`].
    untold: usize,
    /// It reads on when the guest was told.
    is_held_back: bool,
    waker: Arc<StreamWaker>,
}

/// How a stream continues.
pub(super) enum Turn {
    /// It waits.
    Waits,
    /// It has ended.
    Over(Status),
    /// The server has not looked at it, and says so: it can be begun elsewhere.
    Refused,
}

impl Stream {
    /// Begins.
    pub(super) fn new(
        opening: &Opening,
        response: ResponseFuture,
        sender: SendStream<Bytes>,
        waker: Arc<StreamWaker>,
    ) -> Self {
        let is_call = opening.message.is_some();
        Self {
            is_call,
            message: None,
            sender,
            outgoing: opening.message.iter().cloned().collect(),
            sent: 0,
            kept: Some(Vec::new()),
            ends: is_call,
            ended: false,
            response: Some(response),
            body: None,
            decoder: Decoder::default(),
            untold: 0,
            is_held_back: false,
            waker,
        }
    }

    /// Sends a message, or ends the sending side, or both.
    pub(super) fn send(&mut self, message: Option<Message>, end: bool) {
        self.outgoing.extend(message);
        self.ends |= end;
        self.waker.clone().wake();
    }

    /// The guest was told of a message of that size. True when the stream continues by that.
    pub(super) fn told(&mut self, size: usize) -> bool {
        self.untold = self.untold.saturating_sub(size + MESSAGE);
        let goes_on = self.is_held_back && self.untold < UNTOLD;
        if goes_on {
            self.is_held_back = false;
            self.waker.clone().wake();
        }
        goes_on
    }

    /// Bytes of messages that are not whole.
    pub(super) fn held(&self) -> usize {
        self.decoder.held()
    }

    /// The message of a call, when it came.
    pub(super) fn into_message(self) -> Option<Vec<u8>> {
        self.message
    }

    /// What a stream that was refused was to send, with the end of its sending side, to be sent elsewhere.
    pub(super) fn into_unsent(self) -> Vec<(Option<Message>, bool)> {
        let messages = self.kept.into_iter().flatten().chain(self.outgoing);
        let messages = messages.map(|message| (Some(message), false));
        messages.chain(self.ends.then_some((None, true))).collect()
    }

    /// Continues until it waits.
    pub(super) fn run(&mut self, id: u32, events: &mut VecDeque<(u32, Event)>) -> Turn {
        self.waker.runs();
        let waker = Waker::from(self.waker.clone());
        let mut cx = Context::from_waker(&waker);
        self.poll_send(&mut cx);
        self.poll(&mut cx, id, events)
    }

    /// Sends what the server has room for.
    fn poll_send(&mut self, cx: &mut Context<'_>) {
        while let Some(message) = self.outgoing.front() {
            let left = message.bytes.len() - self.sent;
            let room = self.sender.capacity();
            if room == 0 {
                self.sender.reserve_capacity(left);
                match self.sender.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(_))) => continue,
                    Poll::Pending => return,
                    // The receiving side hears why.
                    Poll::Ready(_) => {
                        self.outgoing.clear();
                        self.ended = true;
                        return;
                    }
                }
            }
            let size = left.min(room);
            let part = message.bytes.slice(self.sent..self.sent + size);
            let last = size == left;
            let end = last && self.ends && self.outgoing.len() == 1;
            if self.sender.send_data(part, end).is_err() {
                self.outgoing.clear();
                self.ended = true;
                return;
            }
            self.ended |= end;
            self.sent = if last { 0 } else { self.sent + size };
            if last {
                self.keep();
            }
        }
        if self.ends && !self.ended {
            self.ended = true;
            // It fails when the stream is over, which the receiving side hears.
            let _ = self.sender.send_data(Bytes::new(), true);
        }
    }

    /// The first message is sent.
    fn keep(&mut self) {
        let Some(message) = self.outgoing.pop_front() else { return };
        // A call's message is kept by who began it.
        if self.is_call || self.response.is_none() {
            return;
        }
        if let Some(kept) = &mut self.kept {
            kept.push(message);
            if kept.iter().map(|message| message.bytes.len()).sum::<usize>() > KEPT {
                self.kept = None;
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, id: u32, events: &mut VecDeque<(u32, Event)>) -> Turn {
        match self.poll_parts(cx, id, events) {
            Ok(turn) => turn,
            Err(status) => {
                self.trailing(id, HeaderMap::new(), events);
                Turn::Over(status)
            }
        }
    }

    fn poll_parts(
        &mut self,
        cx: &mut Context<'_>,
        id: u32,
        events: &mut VecDeque<(u32, Event)>,
    ) -> Result<Turn, Status> {
        if let Some(response) = &mut self.response {
            let Poll::Ready(answered) = Pin::new(response).poll(cx) else { return Ok(Turn::Waits) };
            self.response = None;
            if let Err(error) = &answered
                && self.kept.is_some()
                && is_refusal(error)
            {
                return Ok(Turn::Refused);
            }
            self.kept = None;
            let (head, body) = answered.map_err(|error| status_of(&error))?.into_parts();
            if let Some(over) = self.head(&head, body, id, events)? {
                return Ok(over);
            }
        }
        while self.body.is_some() {
            if !self.take_messages(id, events)? {
                return Ok(Turn::Waits);
            }
            let Some(body) = &mut self.body else { break };
            match body.poll_data(cx) {
                Poll::Pending => return Ok(Turn::Waits),
                Poll::Ready(Some(data)) => {
                    let data = data.map_err(|error| status_of(&error))?;
                    let _ = body.flow_control().release_capacity(data.len());
                    self.decoder.push(&data);
                }
                Poll::Ready(None) => {
                    let Poll::Ready(trailers) = body.poll_trailers(cx) else {
                        return Ok(Turn::Waits);
                    };
                    let trailers = trailers.map_err(|error| status_of(&error))?.unwrap_or_default();
                    self.decoder.end()?;
                    return self.trailers(&trailers, id, events).map(Turn::Over);
                }
            }
        }
        Ok(Turn::Waits)
    }

    fn head(
        &mut self,
        head: &http::response::Parts,
        body: RecvStream,
        id: u32,
        events: &mut VecDeque<(u32, Event)>,
    ) -> Result<Option<Turn>, Status> {
        let only = body.is_end_stream();
        let mut seen = HeaderMap::new();
        seen.push(b":status", head.status.as_str().as_bytes());
        pushed(&head.headers, &mut seen)?;
        if !self.is_call {
            let first = if only { HeaderMap::new() } else { seen.clone() };
            events.push_back((id, Event::InitialMetadata(first)));
        }
        if only && let Some(status) = Status::of_trailers(&seen) {
            self.trailing(id, seen, events);
            return Ok(Some(Turn::Over(status)));
        }
        let number = head.status.as_u16();
        if number != 200 {
            let text = format!("HTTP status {number}");
            return Err(Status::new(Code::of_http(number), text));
        }
        let kind = head.headers.get(http::header::CONTENT_TYPE);
        if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
            return Err(Status::new(Code::Unknown, "a response that is not of gRPC"));
        }
        if let Some(encoding) = head.headers.get("grpc-encoding") {
            self.decoder.set_encoding(encoding.as_bytes());
        }
        self.body = Some(body);
        Ok(None)
    }

    /// Hands out the messages that are whole. False when the guest must be told of some before there can be more.
    fn take_messages(
        &mut self,
        id: u32,
        events: &mut VecDeque<(u32, Event)>,
    ) -> Result<bool, Status> {
        while self.untold < UNTOLD {
            let Some(message) = self.decoder.take()? else { return Ok(true) };
            if !self.is_call {
                self.untold += message.len() + MESSAGE;
                events.push_back((id, Event::Message(message)));
            } else if self.message.replace(message).is_some() {
                return Err(Status::new(Code::Internal, "more than one message for a call"));
            }
        }
        self.is_held_back = true;
        Ok(false)
    }

    fn trailers(
        &mut self,
        trailers: &http::HeaderMap,
        id: u32,
        events: &mut VecDeque<(u32, Event)>,
    ) -> Result<Status, Status> {
        let mut seen = HeaderMap::new();
        pushed(trailers, &mut seen)?;
        let status = Status::of_trailers(&seen)
            .unwrap_or_else(|| Status::new(Code::Unknown, "the server gave no status"));
        self.trailing(id, seen, events);
        Ok(status)
    }

    fn trailing(&self, id: u32, map: HeaderMap, events: &mut VecDeque<(u32, Event)>) {
        if !self.is_call {
            events.push_back((id, Event::TrailingMetadata(map)));
        }
    }
}

fn pushed(fields: &http::HeaderMap, seen: &mut HeaderMap) -> Result<(), Status> {
    if fields.len() > limits::HEADER_MAP_PAIRS {
        let text = format!("metadata of more than {} headers", limits::HEADER_MAP_PAIRS);
        return Err(Status::new(Code::ResourceExhausted, text));
    }
    metadata::to_guest(fields, seen);
    Ok(())
}
