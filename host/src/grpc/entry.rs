//! What a pool knows of a call and of a connection.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::{Connection, Judged, Message, Opening};
use crate::callout::Upstream;

pub(super) const NANOS_PER_MS: u64 = 1_000_000;

/// A connection with calls on which nothing came for so long is asked whether the server is there. Servers take more for an
/// attack.
const QUIET_NANOS: u64 = 300_000 * NANOS_PER_MS;

/// The time that an answer to that may take.
const ANSWER_NANOS: u64 = 20_000 * NANOS_PER_MS;

/// A call or a stream. `O` is whom it belongs to.
pub(super) struct Call<O> {
    pub owner: O,
    pub opening: Opening,
    pub goes_to: Arc<Destination>,
    /// It is on the connection; before, it waits for room.
    pub begun: bool,
    /// What was sent before it was begun.
    pub waiting: Vec<(Option<Message>, bool)>,
    /// A server refused it once without looking at it.
    pub was_refused: bool,
    pub connection: u32,
    pub deadline: Option<u64>,
}

/// Where a connection goes to.
#[derive(Debug)]
pub struct Destination {
    /// Connections of one key may serve each other's calls.
    pub key: String,
    /// The upstream.
    pub upstream: Upstream,
    /// The name that its certificate must have.
    pub server_name: String,
    /// Its address must be judged.
    pub judged: Option<Judged>,
}

impl Destination {
    /// That of a call or a stream.
    pub fn of(opening: &Opening) -> Arc<Self> {
        Arc::new(Self {
            key: opening.pool(),
            upstream: opening.upstream.clone(),
            server_name: opening.server_name.clone(),
            judged: opening.judged,
        })
    }
}

/// A connection.
pub(super) struct Entry {
    /// Where it goes to.
    pub goes_to: Arc<Destination>,
    /// `None` before there is one.
    pub machine: Option<Connection>,
    pub waiting: VecDeque<u32>,
    /// When the time of calls is over.
    pub deadlines: BTreeSet<(u64, u32)>,
    pub idle_since: u64,
    /// When something came last, and when the server was asked since.
    pub heard: u64,
    pub asked: Option<u64>,
    pub woken: bool,
}

impl Entry {
    /// One that is to be made.
    pub(super) fn new(goes_to: Arc<Destination>, now: u64) -> Self {
        Self {
            goes_to,
            machine: None,
            waiting: VecDeque::new(),
            deadlines: BTreeSet::new(),
            idle_since: now,
            heard: now,
            asked: None,
            woken: true,
        }
    }

    /// Calls begun and waiting.
    pub(super) fn calls(&self) -> usize {
        self.waiting.len() + self.machine.as_ref().map_or(0, Connection::streams)
    }

    /// Asks a server that was quiet for long whether it is there. Returns when to ask again,
    /// or when the answer must have come.
    pub(super) fn ask(&mut self, now: u64) -> Option<u64> {
        let machine = self.machine.as_mut()?;
        let quiet = self.heard + QUIET_NANOS;
        if self.asked.is_none() && now >= quiet {
            machine.ping();
            self.asked = Some(now);
        }
        Some(self.asked.map_or(quiet, |at| at + ANSWER_NANOS))
    }
}
