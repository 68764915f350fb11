//! Messages on the wire: a byte that says whether it is compressed, the length, the message.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::{Code, Status};
use crate::limits;

const PREFIX: usize = 5;

/// Bytes that a VM's calls and streams hold until servers take them.
#[derive(Clone, Debug, Default)]
pub struct Held(Arc<AtomicUsize>);

/// A message to be sent, which counts as held until it is dropped.
#[derive(Debug)]
pub struct Message {
    /// Prefix and message.
    pub bytes: Bytes,
    held: Held,
    size: usize,
}

impl Message {
    /// Copies a guest's message; `None` when the VM holds too much already, or the message alone is too large.
    pub fn new(held: &Held, message: &[u8]) -> Option<Self> {
        let size = message.len() + PREFIX;
        let total = held.0.load(Ordering::Relaxed) + size;
        if message.len() > limits::CALL_MESSAGE || total > limits::CALL_REQUEST_BODIES {
            return None;
        }
        held.0.store(total, Ordering::Relaxed);
        let mut bytes = BytesMut::with_capacity(size);
        bytes.put_u8(0);
        bytes.put_u32(message.len() as u32);
        bytes.extend_from_slice(message);
        Some(Self { bytes: bytes.freeze(), held: held.clone(), size })
    }
}

impl Clone for Message {
    /// A copy for another attempt shares the bytes, and counts again.
    fn clone(&self) -> Self {
        self.held.0.fetch_add(self.size, Ordering::Relaxed);
        Self { bytes: self.bytes.clone(), held: self.held.clone(), size: self.size }
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        self.held.0.fetch_sub(self.size, Ordering::Relaxed);
    }
}

/// Finds messages in what is received.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    /// The value of `grpc-encoding`.
    encoding: Option<Vec<u8>>,
}

impl Decoder {
    /// What messages are compressed with, when they are.
    pub fn set_encoding(&mut self, encoding: &[u8]) {
        self.encoding = (encoding != b"identity").then(|| encoding.to_vec());
    }

    /// Takes bytes.
    pub fn push(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
    }

    /// The next message that is whole.
    pub fn take(&mut self) -> Result<Option<Vec<u8>>, Status> {
        let Some((&flag, rest)) = self.buffer.split_first() else { return Ok(None) };
        let Some(length) = rest.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if flag > 1 {
            return Err(Status::new(Code::Internal, "what came is no message of gRPC"));
        }
        if length > limits::CALL_MESSAGE {
            return Err(too_large());
        }
        if self.buffer.len() < PREFIX + length {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        let message = self.buffer.split_to(length);
        let message = if flag == 1 { self.expand(&message)? } else { message.to_vec() };
        Ok(Some(message))
    }

    /// Bytes that are held of messages that were not taken.
    pub fn held(&self) -> usize {
        self.buffer.len()
    }

    /// Says that nothing more comes.
    pub fn end(&self) -> Result<(), Status> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        Err(Status::new(Code::Internal, "the stream ended in the middle of a message"))
    }

    fn expand(&self, message: &[u8]) -> Result<Vec<u8>, Status> {
        match self.encoding.as_deref() {
            None => Err(Status::new(Code::Internal, "a compressed message without grpc-encoding")),
            Some(b"gzip") => gunzip(message),
            Some(other) => {
                let other = &other[..other.len().min(limits::SHOWN_BYTES)];
                let text = format!("a message compressed with \"{}\"", other.escape_ascii());
                Err(Status::new(Code::Unimplemented, text))
            }
        }
    }
}

fn too_large() -> Status {
    let text = format!("a message of more than {} bytes", limits::CALL_MESSAGE);
    Status::new(Code::ResourceExhausted, text)
}

#[cfg(feature = "grpc")]
fn gunzip(message: &[u8]) -> Result<Vec<u8>, Status> {
    use std::io::Read as _;

    let mut expanded = Vec::new();
    let most = limits::CALL_MESSAGE as u64 + 1;
    flate2::read::MultiGzDecoder::new(message)
        .take(most)
        .read_to_end(&mut expanded)
        .map_err(|_| Status::new(Code::Internal, "a compressed message that is damaged"))?;
    if expanded.len() > limits::CALL_MESSAGE { Err(too_large()) } else { Ok(expanded) }
}

#[cfg(not(feature = "grpc"))]
fn gunzip(_: &[u8]) -> Result<Vec<u8>, Status> {
    Err(Status::new(Code::Unimplemented, "a compressed message"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(pieces: &[&[u8]]) -> Result<Vec<Vec<u8>>, Code> {
        let mut decoder = Decoder::default();
        let mut messages = Vec::new();
        for piece in pieces {
            decoder.push(piece);
            while let Some(message) = decoder.take().map_err(|status| status.code)? {
                messages.push(message);
            }
        }
        decoder.end().map_err(|status| status.code)?;
        Ok(messages)
    }

    #[test]
    fn messages_come_out_however_they_are_cut() {
        let bytes = b"\0\0\0\0\x03abc\0\0\0\0\0\0\0\0\0\x01d";
        let expected = vec![b"abc".to_vec(), b"".to_vec(), b"d".to_vec()];
        for at in 0..=bytes.len() {
            assert_eq!(decode(&[&bytes[..at], &bytes[at..]]), Ok(expected.clone()), "{at}");
        }
    }

    #[test]
    fn what_is_no_message() {
        assert_eq!(decode(&[b"\0\0\0\0\x03ab"]), Err(Code::Internal));
        assert_eq!(decode(&[b"\0\0"]), Err(Code::Internal));
        assert_eq!(decode(&[b"\x02\0\0\0\0"]), Err(Code::Internal));
        assert_eq!(decode(&[b"\x01\0\0\0\0"]), Err(Code::Internal));
        assert_eq!(decode(&[b"\0\xff\xff\xff\xff"]), Err(Code::ResourceExhausted));
    }

    #[test]
    fn messages_are_held_until_they_are_dropped() {
        let held = Held::default();
        let one = Message::new(&held, b"abc").unwrap();
        assert_eq!(&one.bytes[..], b"\0\0\0\0\x03abc");
        let two = one.clone();
        assert_eq!(held.0.load(Ordering::Relaxed), 16);
        drop((one, two));
        assert_eq!(held.0.load(Ordering::Relaxed), 0);
        assert!(Message::new(&held, &vec![0; limits::CALL_MESSAGE + 1]).is_none());
    }
}
