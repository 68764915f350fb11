//! A pool of connections with calls, as its shell drives it, and what a server sends to it.

use std::fmt::Write as _;

use crate::h2_frames::{DATA, END_HEADERS, END_STREAM, HEADERS, SETTINGS, block, frame};
use resty_proxy_wasm::callout::Upstream;
use resty_proxy_wasm::grpc::{Action, Event, Held, Message, Opening, Pool, Request};

pub(crate) fn settings(streams: Option<u32>) -> Vec<u8> {
    let mut payload = Vec::new();
    if let Some(most) = streams {
        payload.extend([0, 3]);
        payload.extend(most.to_be_bytes());
    }
    frame(SETTINGS, 0, 0, &payload)
}

pub(crate) const HEAD: &[(&str, &str)] =
    &[(":status", "200"), ("content-type", "application/grpc")];

pub(crate) fn message(text: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend((text.len() as u32).to_be_bytes());
    bytes.extend(text);
    bytes
}

/// A whole response.
pub(crate) fn response(stream: u32, text: &str, status: &str) -> Vec<u8> {
    [
        frame(HEADERS, END_HEADERS, stream, &block(HEAD)),
        frame(DATA, 0, stream, &message(text.as_bytes())),
        frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&[("grpc-status", status)])),
    ]
    .concat()
}

/// A pool, and what is done with it.
#[derive(Default)]
pub(crate) struct World {
    pub pool: Pool<u32>,
    pub held: Held,
    pub now: u64,
    pub calls: u32,
}

impl World {
    pub(crate) fn opening(&self, text: Option<&[u8]>, timeout_ms: Option<u32>) -> Opening {
        Opening {
            token: self.calls,
            name: "a".into(),
            upstream: Upstream::parse(b"a:1", false).expect("an upstream"),
            server_name: "a".into(),
            judged: None,
            request: Request::build(false, "a:1", b"s", b"m", &[]).expect("a request"),
            message: text.map(|text| Message::new(&self.held, text).expect("a message")),
            timeout_ms,
            of_request: true,
        }
    }

    pub(crate) fn begin(&mut self, text: Option<&[u8]>, timeout_ms: Option<u32>) -> u32 {
        self.calls += 1;
        let opening = self.opening(text, timeout_ms);
        self.pool.open(self.calls, opening, self.now)
    }

    pub(crate) fn call(&mut self) -> u32 {
        self.begin(Some(b"hello"), None)
    }

    /// The connections that are to be made.
    pub(crate) fn connects(&mut self) -> Vec<u32> {
        std::iter::from_fn(|| self.pool.take_action())
            .filter_map(|action| match action {
                Action::Connect(id) => Some(id),
                Action::Wake(_) => None,
            })
            .collect()
    }

    /// A connection whose server has said that much of its settings.
    pub(crate) fn connected(&mut self, streams: Option<u32>) -> u32 {
        let connects = self.connects();
        self.pool.connected(connects[0], None, self.now);
        self.sent(connects[0]);
        self.receive(connects[0], &settings(streams));
        connects[0]
    }

    pub(crate) fn receive(&mut self, connection: u32, bytes: &[u8]) {
        self.pool.receive(connection, bytes, false, self.now);
    }

    /// What a connection sends.
    pub(crate) fn sent(&mut self, connection: u32) -> Vec<u8> {
        let mut out = Vec::new();
        self.pool.next(connection, Some(&mut out), self.now);
        out
    }

    /// What guests are told, in short.
    pub(crate) fn told(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        while let Some((id, event)) = self.pool.take_event() {
            let Some((owner, ended)) = self.pool.owner_of(id, &event) else { continue };
            let mut text = match event {
                Event::InitialMetadata(map) => format!("{owner} initial {}", map.len()),
                Event::Message(bytes) if bytes.len() < 100 => {
                    format!("{owner} message {}", String::from_utf8_lossy(&bytes))
                }
                Event::Message(bytes) => format!("{owner} message of {}", bytes.len()),
                Event::TrailingMetadata(map) => format!("{owner} trailing {}", map.len()),
                Event::Close(status) => format!("{owner} close {}", status.code),
            };
            if ended.is_some() {
                write!(text, " over").expect("a string");
            }
            told.push(text);
        }
        told
    }

    /// Makes a call on a connection of its own and gives it these bytes.
    pub(crate) fn answered(bytes: &[u8]) -> Vec<String> {
        let mut world = World::default();
        world.call();
        let connection = world.connected(None);
        world.sent(connection);
        for part in bytes.chunks(16384) {
            world.receive(connection, part);
        }
        world.told()
    }
}

/// The frames in what a client sends, after its preface: kind, flags, stream.
pub(crate) fn frames(mut bytes: &[u8]) -> Vec<(u8, u8, u32)> {
    bytes = bytes.strip_prefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap_or(bytes);
    let mut list = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        list.push((head[3], head[4], stream));
        bytes = &rest[length..];
    }
    list
}
