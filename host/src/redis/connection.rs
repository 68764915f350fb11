//! One connection: queries go out, and their answers come in the same order.

use std::collections::VecDeque;

use bytes::BytesMut;

use super::query::Query;
use super::scanner::{Broken, Found, Scanner};
use super::target::{Beginning, Target};
use crate::callout::{Failure, FailureKind, Tls};
use crate::limits;

/// See the module.
pub struct Connection {
    /// When the socket does not speak it.
    tls: Option<Box<Tls>>,
    scanner: Scanner,
    /// From the first byte of the first answer on that is not whole.
    received: Vec<u8>,
    slots: VecDeque<Slot>,
    out: Vec<u8>,
}

/// What is answered next.
#[derive(Debug)]
enum Slot {
    Beginning(Beginning),
    Call {
        id: u32,
        /// Answers to come.
        left: usize,
        /// Bytes of those that are there.
        length: usize,
    },
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub enum Came {
    /// All answers of a call.
    Answer(u32, Vec<u8>),
    /// The server did not accept who asks. It says so to the calls, too.
    NotAccepted(String),
}

/// Memory that a connection without answers under way keeps.
const KEEP: usize = 64 * 1024;
/// Bytes of an error of the server that the log repeats.
const SHOWN: usize = 200;

impl Connection {
    /// A connection that was just made, with TLS that is spoken here.
    pub fn new(target: &Target, tls: Option<Tls>) -> Self {
        let (mut slots, mut out) = (VecDeque::new(), Vec::new());
        for (what, command) in target.beginning() {
            slots.push_back(Slot::Beginning(what));
            out.extend_from_slice(&command);
        }
        let tls = tls.map(Box::new);
        Self { tls, scanner: Scanner::default(), received: Vec::new(), slots, out }
    }

    /// Whether there may be something to send after whatever came.
    pub fn speaks_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether calls can be sent: what it begins with was answered.
    pub fn is_ready(&self) -> bool {
        !matches!(self.slots.back(), Some(Slot::Beginning(_)))
    }

    /// Sends a call.
    pub fn send(&mut self, id: u32, query: &Query) {
        self.out.extend_from_slice(&query.bytes);
        self.slots.push_back(Slot::Call { id, left: query.answers, length: 0 });
    }

    /// Calls that were sent, and not answered.
    pub fn calls(&self) -> usize {
        self.slots.len()
    }

    /// Bytes that are held of answers.
    pub fn held(&self) -> usize {
        self.received.len()
    }

    /// Bytes that wait to be sent.
    pub fn unsent(&self) -> usize {
        self.out.len()
    }

    /// Appends what must be sent.
    pub fn take_output(&mut self, out: &mut Vec<u8>) {
        if let Some(tls) = &mut self.tls {
            tls.send(&mut self.out, out);
        } else if out.is_empty() {
            std::mem::swap(out, &mut self.out);
        } else {
            out.append(&mut self.out);
        }
    }

    /// Takes what was received. An error ends the connection.
    pub fn receive(&mut self, data: &[u8], came: &mut Vec<Came>) -> Result<(), Failure> {
        if let Some(tls) = &mut self.tls {
            let mut plain = BytesMut::new();
            tls.receive(data, &mut plain)?;
            self.received.extend_from_slice(&plain);
        } else {
            self.received.extend_from_slice(data);
        }
        let mut start = 0;
        let taken = self.take_answers(&mut start, came);
        self.received.drain(..start);
        if self.received.is_empty() {
            self.received.shrink_to(KEEP);
        }
        if self.tls.as_ref().is_some_and(|tls| tls.is_closed()) {
            return taken.and(Err(Failure::new(FailureKind::Closed, "")));
        }
        taken
    }

    fn take_answers(&mut self, start: &mut usize, came: &mut Vec<Came>) -> Result<(), Failure> {
        loop {
            let before = match self.slots.front() {
                Some(Slot::Call { length, .. }) => *length,
                _ => 0,
            };
            let at = *start + before;
            let found = self.scanner.scan(&self.received[at..]).map_err(broken)?;
            if self.received.len() - *start > limits::CALL_BODY + KEEP {
                return Err(broken(Broken::TooLarge));
            }
            let Some((found, size)) = found else { return Ok(()) };
            if found == Found::Push {
                self.received.drain(at..at + size);
                continue;
            }
            match self.slots.front_mut() {
                None => return Err(failure("an answer to no question")),
                Some(Slot::Beginning(what)) => {
                    let said = &self.received[at..at + size];
                    if said.first() == Some(&b'-') {
                        let said = said[1..size.min(SHOWN)].trim_ascii_end().escape_ascii();
                        match what {
                            Beginning::Auth => came.push(Came::NotAccepted(said.to_string())),
                            Beginning::Select => {
                                return Err(failure(&format!(
                                    "the database was not chosen: {said}"
                                )));
                            }
                        }
                    }
                    *start += size;
                    self.slots.pop_front();
                }
                Some(Slot::Call { id, left, length }) => {
                    *left -= 1;
                    *length += size;
                    if *left == 0 {
                        let (id, end) = (*id, *start + *length);
                        came.push(Came::Answer(id, self.received[*start..end].to_vec()));
                        *start = end;
                        self.slots.pop_front();
                    }
                }
            }
        }
    }
}

fn failure(details: &str) -> Failure {
    Failure::new(FailureKind::Protocol, details)
}

fn broken(broken: Broken) -> Failure {
    match broken {
        Broken::Malformed => failure("what the server sent is no answer of Redis"),
        Broken::TooLarge => Failure::new(FailureKind::TooLarge, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::callout::Upstream;
    use crate::redis::Options;

    fn target(password: &[u8], database: u32) -> Target {
        Target {
            name: "redis".into(),
            upstream: Upstream::parse(b"127.0.0.1:6379", false).unwrap(),
            options: Options { username: Vec::new(), password: password.to_vec(), database },
            timeout_ms: 1000,
        }
    }

    fn query(answers: usize) -> Query {
        Query { bytes: b"x".to_vec(), answers }
    }

    #[test]
    fn answers_go_to_their_calls_in_order() {
        let mut connection = Connection::new(&target(b"", 0), None);
        assert!(connection.is_ready());
        connection.send(7, &query(2));
        connection.send(8, &query(1));
        let mut came = Vec::new();
        connection.receive(b"+a\r\n", &mut came).unwrap();
        assert_eq!(came, []);
        connection.receive(b">1\r\n+push\r\n$3\r\nb\r", &mut came).unwrap();
        connection.receive(b"\n\r\n:1\r\n", &mut came).unwrap();
        let expected = [
            Came::Answer(7, b"+a\r\n$3\r\nb\r\n\r\n".to_vec()),
            Came::Answer(8, b":1\r\n".to_vec()),
        ];
        assert_eq!(came, expected);
        assert_eq!((connection.calls(), connection.held()), (0, 0));
        assert!(connection.receive(b"+more\r\n", &mut came).is_err());
    }

    #[test]
    fn it_begins_with_the_password_and_the_database() {
        let mut connection = Connection::new(&target(b"pw", 2), None);
        assert!(!connection.is_ready());
        let mut out = Vec::new();
        connection.take_output(&mut out);
        assert_eq!(out, b"*2\r\n$4\r\nAUTH\r\n$2\r\npw\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n2\r\n");
        let mut came = Vec::new();
        connection.receive(b"-ERR no password\r\n+OK\r\n", &mut came).unwrap();
        assert_eq!(came, [Came::NotAccepted("ERR no password".into())]);
        assert!(connection.is_ready());

        let mut connection = Connection::new(&target(b"", 99), None);
        let failure =
            connection.receive(b"-ERR DB index is out of range\r\n", &mut came).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Protocol);
    }
}
