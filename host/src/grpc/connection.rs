//! A connection of HTTP/2 with the calls and streams on it, as a state machine over bytes. h2 is the machine.
//!
//! Its parts are futures. Each has a waker that writes down which part is to be looked at again, so that bytes for one
//! stream cost nothing for the thousand others.

use std::collections::VecDeque;
use std::future::Future as _;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{Ping, PingPong};
use rustc_hash::FxHashMap;

use super::errors::{closed, failure, protocol};
use super::stream::{Stream, Turn};
use super::wakers::{StreamWaker, Woken};
use super::{Code, Event, Message, Opening, Refused, Status};
use crate::callout::{Failure, Pipe, Tls};
use crate::limits;

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
    refused: Vec<Refused>,
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
            refused: Vec::new(),
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
        let waker = StreamWaker::new(id, &self.woken);
        self.streams.insert(id, Stream::new(opening, response, sender, waker));
        Ok(())
    }

    /// Sends a message on a stream, or ends its sending side, or both.
    pub fn send(&mut self, id: u32, message: Option<Message>, end: bool) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.send(message, end);
        }
    }

    /// The guest was told of a message of a stream, of that size. True when the stream continues by that.
    pub fn told(&mut self, id: u32, size: usize) -> bool {
        self.streams.get_mut(&id).is_some_and(|stream| stream.told(size))
    }

    /// The calls and streams that the server refused without looking at them, once.
    pub fn take_refused(&mut self) -> Vec<Refused> {
        std::mem::take(&mut self.refused)
    }

    /// Resets a stream.
    pub fn cancel(&mut self, id: u32) {
        if let Some(stream) = self.streams.remove(&id) {
            self.held -= stream.held();
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
        self.woken.wake_machine();
    }

    /// Continues until there is nothing to do before more is received. An error is the end of all streams, which are told
    /// nothing here.
    pub fn run(&mut self, events: &mut VecDeque<(u32, Event)>) -> Result<(), Failure> {
        if let Some(failure) = self.broken.take() {
            return Err(failure);
        }
        // What was written has been sent: there is room again.
        self.woken.wake_machine();
        loop {
            let machine = self.woken.take_machine();
            let ended = if machine { self.run_machine() } else { Ok(()) };
            let woken = self.woken.take_streams();
            for id in &woken {
                self.run_stream(*id, events);
            }
            ended?;
            if self.pipe.0.borrow().incoming.len() > UNREAD {
                return Err(protocol("the server sends and takes nothing"));
            }
            if woken.is_empty() && !self.woken.is_machine_woken() {
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
        let before = stream.held();
        let turn = stream.run(id, events);
        self.held = self.held + stream.held() - before;
        match turn {
            Turn::Waits => {}
            Turn::Over(status) => self.finish(id, status, events),
            Turn::Refused => {
                if let Some(stream) = self.streams.remove(&id) {
                    self.held -= stream.held();
                    self.refused.push(Refused { id, unsent: stream.into_unsent() });
                }
            }
        }
    }

    /// Ends a stream and tells how.
    fn finish(&mut self, id: u32, status: Status, events: &mut VecDeque<(u32, Event)>) {
        let Some(stream) = self.streams.remove(&id) else { return };
        self.held -= stream.held();
        let event = if !stream.is_call || status.code != Code::Ok {
            Event::Close(status)
        } else if let Some(message) = stream.into_message() {
            Event::Message(message)
        } else {
            Event::Close(Status::new(Code::Internal, "a response without a message"))
        };
        events.push_back((id, event));
    }
}
