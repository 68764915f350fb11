//! The body of a response on its way through the filters, piece by piece.

use std::io::Read;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame};

use super::worker::Ticket;

/// See the module.
pub enum Filtered {
    /// It is there as a whole.
    Whole(Option<Bytes>),
    Stream(Stream),
}

/// A body that is read while it is sent.
pub struct Stream {
    source: Box<dyn Read + Send>,
    ticket: Ticket,
    /// Bytes that the headers announce and that were not sent yet.
    left: Option<u64>,
    is_done: bool,
    /// A piece was given out, and is to be sent before the next one is waited for.
    is_sending: bool,
}

/// Bytes that are read at once.
const PIECE: usize = 16 * 1024;

impl Filtered {
    /// `length` is what the headers announce.
    pub fn new(source: Box<dyn Read + Send>, length: Option<u64>, ticket: Ticket) -> Self {
        let (is_done, is_sending) = (false, false);
        Self::Stream(Stream { source, ticket, left: length, is_done, is_sending })
    }

    /// No body. Filters are told of the end of the one that there would be.
    pub fn end(mut ticket: Ticket) -> Result<Self, String> {
        ticket.piece(Vec::new(), true)?;
        Ok(Self::Whole(None))
    }

    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Some(bytes.into()))
    }
}

impl Stream {
    /// What goes to the client next; nothing at the end.
    fn next(&mut self) -> Result<Option<Bytes>, String> {
        while !self.is_done {
            let passed = self.read()?;
            if let Some(left) = &mut self.left {
                *left = left.saturating_sub(passed.len() as u64);
                if *left == 0 {
                    // hyper asks no more, and filters are to be told of the end.
                    while !self.is_done {
                        self.read()?;
                    }
                }
            }
            if !passed.is_empty() {
                return Ok(Some(passed.into()));
            }
        }
        Ok(None)
    }

    /// What filters pass on of the next piece.
    fn read(&mut self) -> Result<Vec<u8>, String> {
        let mut piece = vec![0; PIECE];
        let size = self.source.read(&mut piece).map_err(|error| {
            let cause = format!("the upstream: {error}");
            self.ticket.cut(cause.clone());
            cause
        })?;
        piece.truncate(size);
        self.is_done = size == 0;
        self.ticket.piece(piece, self.is_done)
    }
}

impl Body for Filtered {
    type Data = Bytes;
    /// Why the response is cut off.
    type Error = String;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, String>>> {
        let stream = match &mut *self {
            Self::Whole(bytes) => return Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Self::Stream(stream) => stream,
        };
        if std::mem::take(&mut stream.is_sending) {
            // hyper sends what it has before it asks again.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let next = stream.next().transpose();
        stream.is_sending = next.is_some();
        Poll::Ready(next.map(|piece| piece.map(Frame::data)))
    }
}
