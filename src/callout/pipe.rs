//! A connection in memory: hyper reads what the shell received, and what it writes the shell sends.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf as _, BytesMut};
use hyper::rt::{Read, ReadBufCursor, Write};

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

/// hyper's end. It lives on one thread, as all of nginx does.
#[derive(Clone, Default)]
pub struct Pipe(pub Rc<RefCell<Buffers>>);

impl Read for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut to: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut buffers = self.0.borrow_mut();
        if buffers.incoming.is_empty() {
            return if buffers.eof { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        let size = to.remaining().min(buffers.incoming.len());
        to.put_slice(&buffers.incoming[..size]);
        buffers.incoming.advance(size);
        buffers.was_read = true;
        Poll::Ready(Ok(()))
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
