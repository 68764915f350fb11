//! What answers the calls of filters, as a scenario says.

use super::answers::{Answers, Desk};
use super::redis;
use super::rpc::Peer;
use super::values::{bytes, list, pairs, request, string};
use crate::support::clock::Clock;
use crate::support::{Upstream, dns};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, Error, Read as _, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

/// The servers behind the names that filters call.
pub(super) struct Service {
    /// Addresses by name, for `setup`. Names that are not here are left to the resolver.
    pub addresses: BTreeMap<String, String>,
    /// Names whose calls are not shown.
    pub unseen: BTreeSet<String>,
    /// A server of DNS, where one is asked.
    pub resolver: Option<String>,
    /// What was called, and which answers are on their way.
    pub desk: Arc<Desk>,
    peers: Vec<Peer>,
}

impl Service {
    /// Starts what the answers of these upstreams need; `calls` says what is spoken to them.
    pub(super) fn start(upstreams: &Value, calls: &[&Value], clock: &Arc<Clock>) -> Self {
        let desk = Arc::new(Desk::new(clock));
        let mut service = Self {
            addresses: BTreeMap::new(),
            unseen: BTreeSet::new(),
            resolver: None,
            desk: desk.clone(),
            peers: Vec::new(),
        };
        for (name, all) in upstreams.as_object().expect("a map") {
            let of_name = calls.iter().find(|call| call["upstream"] == **name);
            let protocol = of_name.map_or("http", |call| string(&call["protocol"]));
            service.add(name, protocol, Answers::new(&desk, list(all)));
        }
        service
    }

    fn add(&mut self, name: &str, protocol: &str, answers: Answers) {
        let (plain, tls) = match protocol {
            "grpc" => ("grpc", "grpcs"),
            "redis" => ("redis", "rediss"),
            _ => ("http", "https"),
        };
        let fails = |kind: &str| answers.fail_by(kind);
        let address = if fails("refused") || fails("resolver") {
            // A rule about addresses is about what the name is resolved to.
            let at = dns(fails("refused").then_some([127, 0, 0, 1]));
            assert!(self.resolver.replace(at).is_none(), "two upstreams ask the resolver");
            None
        } else if fails("connect") {
            // Nothing listens there any more.
            let closed = TcpListener::bind("127.0.0.1:0").expect("a port");
            Some(format!("{plain}://{}", closed.local_addr().expect("an address")))
        } else if fails("tls") {
            Some(format!("{tls}://{}", answering(b"this is no TLS\r\n")))
        } else if protocol == "grpc" && fails("closed") {
            Some(format!("{plain}://{}", answering(b"")))
        } else if protocol == "grpc" && fails("protocol") {
            Some(format!("{plain}://{}", answering(b"this is no HTTP/2, but a line of text\r\n")))
        } else {
            let address = match protocol {
                "grpc" => {
                    let peer = Peer::start(Arc::new(answers));
                    let address = format!("127.0.0.1:{}", peer.port);
                    self.peers.push(peer);
                    address
                }
                "redis" => redis::serve(answers),
                _ => http(name, answers),
            };
            self.addresses.insert(name.into(), format!("{plain}://{address}"));
            return;
        };
        self.addresses.extend(address.map(|address| (name.into(), address)));
        self.unseen.insert(name.into());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.desk.close();
    }
}

/// A server of HTTP behind a name. Returns its address.
fn http(name: &str, answers: Answers) -> String {
    let name = name.to_owned();
    let server = Upstream::start(move |incoming, out| {
        let (line, mut headers, body) = request(incoming);
        // It is added when the call is sent, and the command sends none.
        headers.retain(|(name, _)| name != "content-length");
        // A call that names no host is for that of the address, which the command has not.
        let hosts = headers.iter_mut().filter(|(name, _)| name == "host");
        hosts
            .filter(|(_, host)| host.starts_with("127.0.0.1:"))
            .for_each(|(_, host)| host.clone_from(&name));
        match answers.to((line, headers, body)) {
            Some(due) => write_answer(due.answer, out),
            None => Err(Error::other("no answer")),
        }
    });
    server.url().strip_prefix("http://").expect("a URL").into()
}

fn write_answer(answer: &Value, out: &mut dyn Write) -> io::Result<()> {
    match answer["fails"].as_str() {
        None => {}
        Some("closed") => return Err(Error::other("no answer")),
        Some("protocol") => return out.write_all(b"nonsense\r\n\r\n"),
        Some(other) => panic!("all answers of an upstream fail by {other}, or none does"),
    }
    let mut head = format!("HTTP/1.1 {} Reason\r\n", answer["status"]);
    let headers = pairs(&answer["headers"]);
    for (name, value) in &headers {
        write!(head, "{name}: {value}\r\n").expect("text");
    }
    let mut body = bytes(&answer["body"]);
    let trailers = pairs(&answer["trailers"]);
    if !trailers.is_empty() {
        head += "transfer-encoding: chunked\r\n";
        let mut chunks = Vec::new();
        if !body.is_empty() {
            write!(chunks, "{:x}\r\n", body.len())?;
            chunks.extend(body);
            chunks.extend(b"\r\n");
        }
        chunks.extend(b"0\r\n");
        for (name, value) in trailers {
            write!(chunks, "{name}: {value}\r\n")?;
        }
        chunks.extend(b"\r\n");
        body = chunks;
    } else if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
        write!(head, "content-length: {}\r\n", body.len()).expect("text");
    }
    out.write_all(head.as_bytes())?;
    out.write_all(b"\r\n")?;
    out.write_all(&body)
}

/// A server that answers what comes first with these bytes, and closes the connection. Returns its address.
fn answering(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut came = [0; 4096];
                let _ = stream.read(&mut came);
                let _ = stream.write_all(bytes);
            });
        }
    });
    address
}
