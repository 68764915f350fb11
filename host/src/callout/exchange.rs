//! One request and its response on a connection, as a state machine over bytes. hyper is the machine.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{Builder, Connection, SendRequest};

use super::pipe::Pipe;
use super::request::{Body, Request};
use super::{Failure, FailureKind, Reached, Response};
use crate::limits;
use crate::snapshot::HeaderMap;

type Sent = Pin<Box<dyn Future<Output = hyper::Result<http::Response<Incoming>>>>>;

/// What to do next, after what was written has been sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Receive more.
    Receive,
    /// The response is whole.
    Done {
        /// The connection may serve another call.
        reusable: bool,
    },
    /// It will never be.
    Failed(Failure),
}

/// See the module.
pub struct Exchange {
    pipe: Pipe,
    connection: Option<Pin<Box<Connection<Pipe, Body>>>>,
    sender: SendRequest<Body>,
    sent: Option<Sent>,
    body: Option<Incoming>,
    response: Response,
    whole: bool,
    /// Something was received.
    began: bool,
}

impl Exchange {
    /// Begins; the request is written by the first [`Exchange::advance`].
    pub fn new(request: &Request) -> Result<Self, Failure> {
        let pipe = Pipe::default();
        let mut builder = Builder::new();
        builder.max_headers(limits::HEADER_MAP_PAIRS).max_buf_size(limits::CALL_HEAD);
        let handshake = std::pin::pin!(builder.handshake(pipe.clone()));
        // It waits for nothing.
        let Poll::Ready(made) = handshake.poll(&mut context()) else {
            return Err(protocol("the client did not start"));
        };
        let (mut sender, connection) = made.map_err(|e| failure(&e))?;
        let sent: Sent = Box::pin(sender.send_request(request.message()));
        Ok(Self {
            pipe,
            connection: Some(Box::pin(connection)),
            sender,
            sent: Some(sent),
            body: None,
            response: Response::default(),
            whole: false,
            began: false,
        })
    }

    /// Takes what was received, `eof` when it was the last, and appends what must be sent to `out`.
    pub fn advance(&mut self, received: &[u8], eof: bool, out: &mut Vec<u8>) -> Step {
        {
            let mut buffers = self.pipe.0.borrow_mut();
            buffers.incoming.extend_from_slice(received);
            buffers.eof |= eof;
        }
        self.began |= !received.is_empty();
        let step = match self.run() {
            Step::Failed(failure) => Step::Failed(Failure { reached: self.reached(), ..failure }),
            step => step,
        };
        out.append(&mut self.pipe.0.borrow_mut().outgoing);
        step
    }

    /// How much of the response has come.
    pub fn reached(&self) -> Reached {
        match (self.response.headers.is_empty(), self.began) {
            (false, _) => Reached::Head,
            (true, true) => Reached::Bytes,
            (true, false) => Reached::Nothing,
        }
    }

    /// Bytes of the response's body so far.
    pub fn received(&self) -> usize {
        self.response.body.len()
    }

    /// The response so far; whole after [`Step::Done`].
    pub fn into_response(self) -> Response {
        self.response
    }

    fn run(&mut self) -> Step {
        loop {
            let ran = match self.poll() {
                Ok(ran) => ran,
                Err(failure) => return Step::Failed(failure),
            };
            if self.whole && !ran {
                let buffers = self.pipe.0.borrow();
                let idle = buffers.incoming.is_empty() && !buffers.eof;
                let reusable = idle && self.connection.is_some() && self.sender.is_ready();
                return Step::Done { reusable };
            }
            if !ran {
                let over = self.pipe.0.borrow().eof || self.connection.is_none();
                return if over { Step::Failed(closed("")) } else { Step::Receive };
            }
        }
    }

    /// Lets every part run once. False when nothing came of it.
    fn poll(&mut self) -> Result<bool, Failure> {
        let mut cx = context();
        self.pipe.0.borrow_mut().was_read = false;
        let mut ran = false;
        if let Some(connection) = &mut self.connection
            && let Poll::Ready(ended) = connection.as_mut().poll(&mut cx)
        {
            self.connection = None;
            ran = true;
            if let Err(error) = ended
                && !self.whole
            {
                return Err(failure(&error));
            }
        }
        if let Some(sent) = &mut self.sent
            && let Poll::Ready(answered) = sent.as_mut().poll(&mut cx)
        {
            self.sent = None;
            self.head(answered.map_err(|e| failure(&e))?);
            ran = true;
        }
        ran |= self.poll_body(&mut cx)?;
        Ok(ran || self.pipe.0.borrow().was_read)
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Result<bool, Failure> {
        let mut ran = false;
        while let Some(body) = &mut self.body {
            let frame = match Pin::new(body).poll_frame(cx) {
                Poll::Pending => break,
                Poll::Ready(None) => {
                    self.body = None;
                    self.whole = true;
                    return Ok(true);
                }
                Poll::Ready(Some(frame)) => frame.map_err(|e| failure(&e))?,
            };
            ran = true;
            match frame.into_data() {
                Ok(data) if self.response.body.len() + data.len() > limits::CALL_BODY => {
                    let details = format!("a body of more than {} bytes", limits::CALL_BODY);
                    return Err(Failure::new(FailureKind::TooLarge, details));
                }
                Ok(data) => self.response.body.extend_from_slice(&data),
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        push(&mut self.response.trailers, &trailers);
                    }
                }
            }
        }
        Ok(ran)
    }

    fn head(&mut self, response: http::Response<Incoming>) {
        let (head, body) = response.into_parts();
        self.response.headers.push(b":status", head.status.as_str().as_bytes());
        push(&mut self.response.headers, &head.headers);
        self.body = Some(body);
    }
}

/// Framing is no business of the guest.
fn push(to: &mut HeaderMap, fields: &http::HeaderMap) {
    for (name, value) in fields {
        if *name != http::header::TRANSFER_ENCODING && *name != http::header::CONNECTION {
            to.push(name.as_str().as_bytes(), value.as_bytes());
        }
    }
}

/// Nothing is woken: every part is polled again whenever bytes have come.
fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn failure(error: &hyper::Error) -> Failure {
    let details = std::iter::successors(Some(error as &dyn std::error::Error), |e| e.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ");
    // hyper has no other way to tell this one.
    if details.contains("too large") {
        Failure::new(FailureKind::TooLarge, details)
    } else if ends_early(error)
        || error.is_incomplete_message()
        || error.is_closed()
        || error.is_canceled()
    {
        closed(&details)
    } else {
        protocol(&details)
    }
}

/// A body that stops short comes as an I/O error.
fn ends_early(error: &hyper::Error) -> bool {
    std::iter::successors(std::error::Error::source(error), |e| e.source())
        .filter_map(|e| e.downcast_ref::<std::io::Error>())
        .any(|e| e.kind() == std::io::ErrorKind::UnexpectedEof)
}

fn closed(details: &str) -> Failure {
    Failure::new(FailureKind::Closed, details)
}

fn protocol(details: &str) -> Failure {
    Failure::new(FailureKind::Protocol, details)
}
