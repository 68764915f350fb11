//! A connection of HTTP/2 with the calls and streams on it, as a state machine over bytes. h2 is the machine.
//!
//! Its parts are futures. Each has a waker that writes down which part is to be looked at again, so that bytes for one
//! stream cost nothing for the thousand others.

use std::collections::VecDeque;
use std::future::Future as _;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Ping, PingPong, RecvStream, SendStream};
use rustc_hash::FxHashMap;

use super::{Code, Decoder, Event, Message, Opening, Status, Tls, metadata};
use crate::callout::{Failure, FailureKind, Pipe};
use crate::limits;
use crate::snapshot::HeaderMap;

/// What a server may send on one stream before it is read, and on all streams of a connection.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;

/// What may come while the server takes nothing of what is sent: answers to it wait, and so does what it sends.
const UNREAD: usize = 1024 * 1024;

/// Length of a frame's head, with which every connection begins.
const FRAME_HEAD: usize = 9;

/// See the module.
pub struct Connection {
    pipe: Pipe,
    tls: Option<Tls>,
    /// TLS has failed, which is told at the next turn.
    broken: Option<Failure>,
    machine: Option<Pin<Box<h2::client::Connection<Pipe, Bytes>>>>,
    sender: SendRequest<Bytes>,
    pings: Option<PingPong>,
    streams: FxHashMap<u32, Stream>,
    woken: Arc<Woken>,
    waker: Waker,
    received: usize,
    /// The server's settings have come, so that it is known how many streams it takes.
    settled: bool,
    /// No stream can begin on it any more.
    closing: bool,
    /// Bytes of messages that are not whole.
    held: usize,
}

/// Which parts must run.
#[derive(Default)]
struct Woken {
    machine: AtomicBool,
    streams: Mutex<Vec<u32>>,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.machine.store(true, Ordering::Relaxed);
    }
}

struct StreamWaker {
    id: u32,
    waits: AtomicBool,
    woken: Arc<Woken>,
}

impl Wake for StreamWaker {
    fn wake(self: Arc<Self>) {
        if !self.waits.swap(true, Ordering::Relaxed) {
            self.woken.streams.lock().unwrap_or_else(PoisonError::into_inner).push(self.id);
        }
    }
}

struct Stream {
    /// One message each way.
    is_call: bool,
    /// Of a call, once it has come.
    message: Option<Vec<u8>>,
    sender: SendStream<Bytes>,
    /// Messages to be sent; of the first, so many bytes were.
    outgoing: VecDeque<Message>,
    sent: usize,
    ends: bool,
    ended: bool,
    response: Option<ResponseFuture>,
    body: Option<RecvStream>,
    decoder: Decoder,
    waker: Arc<StreamWaker>,
}

/// How a stream goes on.
enum Turn {
    Waits,
    Over(Status),
}

impl Connection {
    /// Begins; what must be sent first is there at once.
    pub fn new(tls: Option<Tls>) -> Result<Self, Failure> {
        let pipe = Pipe::default();
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(limits::CALL_HEAD as u32)
            // Until its settings say more, a server is asked for nothing.
            .initial_max_send_streams(1);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let handshake = pin!(builder.handshake(pipe.clone()));
        let Poll::Ready(made) = handshake.poll(&mut Context::from_waker(&waker)) else {
            return Err(protocol("the client did not start"));
        };
        let (sender, mut machine) = made.map_err(|error| failure(&error))?;
        let pings = machine.ping_pong();
        Ok(Self {
            pipe,
            tls,
            broken: None,
            machine: Some(Box::pin(machine)),
            sender,
            pings,
            streams: FxHashMap::default(),
            woken,
            waker,
            received: 0,
            settled: false,
            closing: false,
            held: 0,
        })
    }

    /// How many streams may begin now. 0, too, while that is not known.
    pub fn room(&mut self) -> usize {
        if !self.settled || self.is_over() {
            return 0;
        }
        let most = self.machine.as_ref().map_or(0, |machine| machine.max_concurrent_send_streams());
        most.saturating_sub(self.streams.len())
    }

    /// Whether the server's settings have come.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// Whether nothing can begin on it any more.
    pub fn is_over(&mut self) -> bool {
        if !self.closing {
            let mut cx = Context::from_waker(&self.waker);
            self.closing = self.machine.is_none()
                || matches!(self.sender.poll_ready(&mut cx), Poll::Ready(Err(_)));
        }
        self.closing
    }

    /// Calls and streams on it.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Bytes of messages that are not whole.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Asks the server whether it is there; whatever it sends is the answer.
    pub fn ping(&mut self) {
        if let Some(pings) = &mut self.pings {
            // The answer to the last one, if it has come, must be taken first.
            let _ = pings.poll_pong(&mut Context::from_waker(&self.waker));
            let _ = pings.send_ping(Ping::opaque());
        }
    }

    /// Begins a call or a stream, for which there is room, with the time that is left for it.
    pub fn open(
        &mut self,
        id: u32,
        opening: &Opening,
        timeout_ms: Option<u64>,
    ) -> Result<(), Failure> {
        let head = opening.request.head(timeout_ms);
        let head = head.ok_or_else(|| protocol("a request that is none"))?;
        let (response, sender) =
            self.sender.send_request(head, false).map_err(|error| failure(&error))?;
        let waker =
            Arc::new(StreamWaker { id, waits: AtomicBool::new(false), woken: self.woken.clone() });
        waker.clone().wake();
        let is_call = opening.message.is_some();
        self.streams.insert(
            id,
            Stream {
                is_call,
                message: None,
                sender,
                outgoing: opening.message.iter().cloned().collect(),
                sent: 0,
                ends: is_call,
                ended: false,
                response: Some(response),
                body: None,
                decoder: Decoder::default(),
                waker,
            },
        );
        Ok(())
    }

    /// Sends a message on a stream, or ends its sending side, or both.
    pub fn send(&mut self, id: u32, message: Option<Message>, end: bool) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.outgoing.extend(message);
            stream.ends |= end;
            stream.waker.clone().wake();
        }
    }

    /// Resets a stream.
    pub fn cancel(&mut self, id: u32) {
        if let Some(stream) = self.streams.remove(&id) {
            self.held -= stream.decoder.held();
        }
    }

    /// Takes what was received; `eof` when it was the last.
    pub fn receive(&mut self, data: &[u8], eof: bool) {
        let mut buffers = self.pipe.0.borrow_mut();
        let before = buffers.incoming.len();
        match &mut self.tls {
            None => buffers.incoming.extend_from_slice(data),
            Some(tls) => self.broken = tls.receive(data, &mut buffers.incoming).err(),
        }
        buffers.eof |= eof;
        self.received = self.received.saturating_add(buffers.incoming.len() - before);
        self.woken.machine.store(true, Ordering::Relaxed);
    }

    /// Goes on until there is nothing to do before more is received. An error is the end of all streams, which are told
    /// nothing here.
    pub fn run(&mut self, events: &mut VecDeque<(u32, Event)>) -> Result<(), Failure> {
        if let Some(failure) = self.broken.take() {
            return Err(failure);
        }
        // What was written has been sent: there is room again.
        self.woken.machine.store(true, Ordering::Relaxed);
        loop {
            let machine = self.woken.machine.swap(false, Ordering::Relaxed);
            let ended = if machine { self.run_machine() } else { Ok(()) };
            let woken = std::mem::take(
                &mut *self.woken.streams.lock().unwrap_or_else(PoisonError::into_inner),
            );
            for id in &woken {
                self.run_stream(*id, events);
            }
            ended?;
            if self.pipe.0.borrow().incoming.len() > UNREAD {
                return Err(protocol("the server sends and takes nothing"));
            }
            if woken.is_empty() && !self.woken.machine.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
    }

    /// Appends what must be sent.
    pub fn take_output(&mut self, out: &mut Vec<u8>) {
        let outgoing = &mut self.pipe.0.borrow_mut().outgoing;
        match &mut self.tls {
            None => out.append(outgoing),
            Some(tls) => tls.send(outgoing, out),
        }
    }

    fn run_machine(&mut self) -> Result<(), Failure> {
        let Some(machine) = &mut self.machine else { return Err(closed("")) };
        let polled = machine.as_mut().poll(&mut Context::from_waker(&self.waker));
        self.settled |= self.received >= FRAME_HEAD && self.pipe.0.borrow().incoming.is_empty();
        let Poll::Ready(ended) = polled else { return Ok(()) };
        self.machine = None;
        match ended {
            Ok(()) => Err(closed("")),
            Err(error) => Err(failure(&error)),
        }
    }

    fn run_stream(&mut self, id: u32, events: &mut VecDeque<(u32, Event)>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.waker.waits.store(false, Ordering::Relaxed);
        let before = stream.decoder.held();
        let waker = Waker::from(stream.waker.clone());
        let mut cx = Context::from_waker(&waker);
        stream.poll_send(&mut cx);
        let turn = stream.poll(&mut cx, id, events);
        self.held = self.held + stream.decoder.held() - before;
        if let Turn::Over(status) = turn {
            self.finish(id, status, events);
        }
    }

    /// Ends a stream and tells how.
    fn finish(&mut self, id: u32, status: Status, events: &mut VecDeque<(u32, Event)>) {
        let Some(stream) = self.streams.remove(&id) else { return };
        self.held -= stream.decoder.held();
        let event = match (stream.is_call && status.code == Code::Ok, stream.message) {
            (true, Some(message)) => Event::Message(message),
            (true, None) => {
                Event::Close(Status::new(Code::Internal, "a response without a message"))
            }
            (false, _) => Event::Close(status),
        };
        events.push_back((id, event));
    }
}

impl Stream {
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
                self.outgoing.pop_front();
            }
        }
        if self.ends && !self.ended {
            self.ended = true;
            // It fails when the stream is over, which the receiving side hears.
            let _ = self.sender.send_data(Bytes::new(), true);
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
            let (head, body) = answered.map_err(|error| status_of(&error))?.into_parts();
            if let Some(over) = self.head(&head, body, id, events)? {
                return Ok(over);
            }
        }
        while let Some(body) = &mut self.body {
            match body.poll_data(cx) {
                Poll::Pending => return Ok(Turn::Waits),
                Poll::Ready(Some(data)) => {
                    let data = data.map_err(|error| status_of(&error))?;
                    let _ = body.flow_control().release_capacity(data.len());
                    self.decoder.push(&data)?;
                    self.take_messages(id, events)?;
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

    fn take_messages(
        &mut self,
        id: u32,
        events: &mut VecDeque<(u32, Event)>,
    ) -> Result<(), Status> {
        while let Some(message) = self.decoder.take() {
            if !self.is_call {
                events.push_back((id, Event::Message(message)));
            } else if self.message.replace(message).is_some() {
                return Err(Status::new(Code::Internal, "more than one message for a call"));
            }
        }
        Ok(())
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

fn status_of(error: &h2::Error) -> Status {
    match error.reason() {
        Some(reason) if error.is_reset() => {
            let text = format!("the stream was reset ({})", reason.description());
            Status::new(Code::of_reset(reason.into()), text)
        }
        _ => Status::of_failure(&failure(error)),
    }
}

fn failure(error: &h2::Error) -> Failure {
    if error.is_io() || error.is_go_away() && error.is_remote() {
        closed(&error.to_string())
    } else {
        protocol(&error.to_string())
    }
}

fn closed(details: &str) -> Failure {
    Failure::new(FailureKind::Closed, details)
}

fn protocol(details: &str) -> Failure {
    Failure::new(FailureKind::Protocol, details)
}
