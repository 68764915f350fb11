//! A connection in memory: hyper and h2 read what the shell received, and what they write the shell sends.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf as _, BytesMut};
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Both directions.
#[derive(Default)]
pub struct Buffers {
    /// Received and not read yet.
    pub incoming: BytesMut,
    /// Nothing will be received any more.
    pub eof: bool,
    /// Written and not sent yet.
    pub outgoing: Vec<u8>,
    /// Whether anything was read since the last look.
    pub was_read: bool,
}

/// Their end. It stays on one thread.
#[derive(Clone, Default)]
pub struct Pipe(pub Rc<RefCell<Buffers>>);

/// Written bytes that a connection of h2 keeps until they are sent. Until then it reads no more, so that a peer cannot
/// have it answer without end.
const OUTGOING: usize = 1024 * 1024;

impl Pipe {
    /// Reads up to so many bytes by the closure. `None` when there is nothing yet.
    fn read(&self, most: usize, to: impl FnOnce(&[u8])) -> Poll<io::Result<()>> {
        let mut buffers = self.0.borrow_mut();
        if buffers.incoming.is_empty() {
            return if buffers.eof { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        let size = most.min(buffers.incoming.len());
        to(&buffers.incoming[..size]);
        buffers.incoming.advance(size);
        buffers.was_read = true;
        Poll::Ready(Ok(()))
    }
}

impl Read for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut to: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.read(to.remaining(), |bytes| to.put_slice(bytes))
    }
}

impl Write for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().outgoing.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.read(to.remaining(), |bytes| to.put_slice(bytes))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outgoing = &mut self.0.borrow_mut().outgoing;
        if outgoing.len() >= OUTGOING {
            return Poll::Pending;
        }
        outgoing.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
