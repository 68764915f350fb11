//! gRPC calls and streams that guests make: an HTTP/2 client that is told bytes and answers bytes.
//!
//! [`Opening`] is what a guest asks for. A [`Pool`] has the connections of a worker and says which of them a call goes
//! on, [`Connection`] speaks the protocol, [`Event`]s go back to the guest. Who moves the bytes, waits for them and
//! tells the time is the shell's business.

#[cfg(feature = "grpc")]
mod connection;
#[cfg(not(feature = "grpc"))]
#[path = "without.rs"]
mod connection;
mod entry;
#[cfg(feature = "grpc")]
mod errors;
mod message;
mod metadata;
mod naming;
mod pool;
mod request;
#[cfg(feature = "grpc")]
mod service;
mod status;
#[cfg(feature = "grpc")]
mod stream;
mod target;
#[cfg(feature = "grpc")]
mod wakers;

pub use connection::Connection;
pub use entry::Destination;
pub use message::{Decoder, Held, Message};
pub use metadata::to_guest;
pub use pool::{Action, Pool, Wait};
pub use request::Request;
pub use status::{Code, Status};
pub use target::{Target, upstream};

use crate::callout::Upstream;
use crate::guest::Token;
use crate::snapshot::HeaderMap;

/// A call or a stream that a guest begins.
#[derive(Clone, Debug)]
pub struct Opening {
    /// How the guest knows it.
    pub token: Token,
    /// The upstream as the guest named it, for the log.
    pub name: String,
    /// Where to.
    pub upstream: Upstream,
    /// Whose certificate TLS must show.
    pub server_name: String,
    /// The address of the upstream's name must be judged before a connection is made.
    pub judged: Option<Judged>,
    /// What is asked.
    pub request: Request,
    /// The message of a call; a stream sends its messages later.
    pub message: Option<Message>,
    /// Milliseconds that it may take.
    pub timeout_ms: Option<u32>,
    /// Whether its end is bound to a request's: what a plugin context began may be given up when the process ends.
    pub of_request: bool,
}

/// How an address is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// By which rules, see [`Rules::number`].
    ///
    /// [`Rules::number`]: crate::callout::Rules::number
    pub rules: u64,
    /// The name is allowed.
    pub name_allowed: bool,
}

impl Opening {
    /// A name for the connections that may serve it.
    pub fn pool(&self) -> String {
        let pool = self.upstream.pool(&self.server_name);
        match self.judged {
            None => pool,
            Some(Judged { rules, name_allowed }) => format!("{pool}@{rules}:{name_allowed}"),
        }
    }
}

/// What a guest asks for, in order.
#[derive(Debug)]
pub enum Command {
    /// Begin a call or a stream.
    Open(Box<Opening>),
    /// Send a message on a stream, when there is one, and end the sending side when the flag says so.
    Send(Token, Option<Message>, bool),
    /// Give it up: nothing more is told of it.
    Cancel(Token),
}

impl Command {
    /// The call or stream that it is about.
    pub fn token(&self) -> Token {
        match self {
            Self::Open(opening) => opening.token,
            Self::Send(token, ..) | Self::Cancel(token) => *token,
        }
    }
}

/// A call or stream that the server refused without looking at it: it may be begun once more.
#[derive(Debug)]
pub struct Refused {
    /// Its number.
    pub id: u32,
    /// What it was to send, in order; a call's message is its opening's.
    pub unsent: Vec<(Option<Message>, bool)>,
}

/// What comes back. A call gets one [`Event::Message`], or one [`Event::Close`] with a code that is not OK. A stream gets
/// its metadata, messages, trailing metadata and a [`Event::Close`], in that order.
#[derive(Clone, Debug)]
pub enum Event {
    /// The server's metadata, of a stream only.
    InitialMetadata(HeaderMap),
    /// A message.
    Message(Vec<u8>),
    /// What came with the status, of a stream only.
    TrailingMetadata(HeaderMap),
    /// The end.
    Close(Status),
}
