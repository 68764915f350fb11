//! A server of the test's own, for answers that no HTTP server gives.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread::spawn;

/// Listens until the test ends. Each connection is handled by the closure on a thread of its own.
pub(crate) struct Server {
    address: SocketAddr,
    heard: Receiver<String>,
}

/// A connection and what came on it so far.
pub(crate) struct Peer {
    stream: TcpStream,
    pub request: String,
}

impl Server {
    /// Listens on a free port of `ip`; `None` when this machine has no such address. Once the head of a request and a
    /// body of its Content-Length have come, or its last chunk, `answer` continues. What came is in [`Server::heard`].
    pub(crate) fn start(ip: &str, answer: fn(&mut Peer)) -> Option<Server> {
        let listener = TcpListener::bind((ip, 0)).ok()?;
        let address = listener.local_addr().expect("an address");
        let (tell, heard) = channel();
        spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), tell) = (stream, tell.clone()) else { return };
                spawn(move || {
                    let mut peer = Peer { stream, request: String::new() };
                    peer.read_request();
                    let _ = tell.send(peer.request.clone());
                    answer(&mut peer);
                });
            }
        });
        Some(Server { address, heard })
    }

    /// `ADDRESS:PORT`.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// The next request that came, whole.
    pub(crate) fn heard(&self) -> String {
        self.heard.recv_timeout(super::patience()).expect("a request")
    }
}

impl Peer {
    fn read_request(&mut self) {
        let mut buffer = [0; 4096];
        while !self.is_whole() {
            match self.stream.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(size) => self.request.push_str(&String::from_utf8_lossy(&buffer[..size])),
            }
        }
    }

    fn is_whole(&self) -> bool {
        let Some((head, body)) = self.request.split_once("\r\n\r\n") else { return false };
        let head = head.to_lowercase();
        match head.split_once("content-length: ") {
            Some((_, rest)) => {
                let digits = rest.split("\r\n").next().expect("a value");
                body.len() >= digits.parse::<usize>().expect("a length")
            }
            None if head.contains("transfer-encoding: chunked") => body.ends_with("\r\n\r\n"),
            None => true,
        }
    }

    /// Sends bytes.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // A client that has had enough is what some tests are about.
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Waits until the other side closes.
    pub(crate) fn stall(&mut self) {
        let mut buffer = [0; 4096];
        while !matches!(self.stream.read(&mut buffer), Ok(0) | Err(_)) {}
    }
}
