//! Redis calls that guests make: a client that is told bytes and answers bytes.
//!
//! [`Target`] and [`Options`] say where a call goes and as whom, [`Query`] checks what a guest asks, [`Scanner`] finds where
//! an answer ends, [`Connection`] puts queries and answers together, and a [`Pool`] has the connections of a worker. Who
//! moves the bytes, waits for them and tells the time is the shell's business.

mod connection;
mod pool;
mod query;
mod scanner;
mod target;

use std::sync::Arc;

pub use connection::Connection;
pub use pool::{Action, Event, Lost, Pool, Wait};
pub use query::{Query, Refusal};
pub use scanner::{Broken, Found, Scanner};
pub use target::{Options, Target, split};

use crate::guest::Token;

/// A query on its way out.
#[derive(Clone, Debug)]
pub struct Call {
    /// How the guest knows it.
    pub token: Token,
    /// Where to, and as whom.
    pub target: Arc<Target>,
    /// What is asked.
    pub query: Query,
    /// Milliseconds that it may take.
    pub timeout_ms: u32,
}

/// What a guest asks for, in order.
#[derive(Clone, Debug)]
pub enum Command {
    /// Make the next call on a new connection: the guest has called init again for its upstream.
    Renew(Arc<Target>),
    /// Make a call.
    Call(Call),
}

impl Command {
    /// The call that it is about; 0 for none.
    pub fn token(&self) -> Token {
        match self {
            Self::Call(call) => call.token,
            Self::Renew(_) => 0,
        }
    }
}
