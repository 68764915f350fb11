//! Pieces of a response that a filter makes itself, and pieces that reach the client as they come.

use super::support::{Nginx, Probe, Running, poll};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

/// An upstream that sends what it is told, piece by piece.
pub(crate) struct Pieces {
    listener: TcpListener,
}

impl Pieces {
    pub(crate) fn new() -> Pieces {
        Pieces { listener: TcpListener::bind("127.0.0.1:0").expect("a port") }
    }

    pub(crate) fn port(&self) -> u16 {
        self.listener.local_addr().expect("an address").port()
    }

    /// The next request's connection, when its head has come.
    pub(crate) fn accept(&self) -> TcpStream {
        self.accept_with("HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
    }

    /// The same; the response begins with `head`.
    pub(crate) fn accept_with(&self, head: &str) -> TcpStream {
        self.accept_request(head).1
    }

    /// The same, with the head of the request.
    pub(crate) fn accept_request(&self, head: &str) -> (String, TcpStream) {
        let (mut stream, _) = self.listener.accept().expect("a request");
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") {
            assert_eq!(stream.read(&mut byte).expect("a head"), 1);
            request.push(byte[0]);
        }
        stream.write_all(head.as_bytes()).expect("written");
        (String::from_utf8_lossy(&request).into_owned(), stream)
    }
}

fn through(pieces: &Pieces, script: &str) -> Running {
    Nginx::new()
        .guest("probe_0_2_100")
        .http(&format!(
            r#"init_by_lua_block {{
                local wasm = require("resty.proxy-wasm")
                local plugin = assert(wasm.load("probe", "probe_0_2_100.wasm"))
                local behind = assert(wasm.on_configure(plugin, '# nothing'))
                local ctx = assert(wasm.on_configure(plugin, [==[{script}]==]))
                chain = wasm.new_chain({{ behind, ctx }})
            }}"#
        ))
        .server(&format!(
            "location / {{
                access_by_lua_block {{ chain:access() }}
                header_filter_by_lua_block {{ chain:header_filter() }}
                body_filter_by_lua_block {{ chain:body_filter() }}
                proxy_pass http://127.0.0.1:{};
                proxy_buffering off;
            }}",
            pieces.port()
        ))
        .start()
}

/// A client that reads as it comes, without framing (HTTP/1.0).
pub(crate) struct Client {
    stream: TcpStream,
    body: Vec<u8>,
}

impl Client {
    pub(crate) fn ask(nginx: &Running) -> Client {
        Client::send(nginx, "GET / HTTP/1.0\r\n\r\n")
    }

    pub(crate) fn send(nginx: &Running, request: &str) -> Client {
        let mut stream = TcpStream::connect(("127.0.0.1", nginx.port())).expect("nginx");
        stream.write_all(request.as_bytes()).expect("written");
        stream.set_read_timeout(Some(std::time::Duration::from_millis(50))).expect("a timeout");
        Client { stream, body: Vec::new() }
    }

    /// Reads until the body ends with this; false when it does not come.
    pub(crate) fn sees(&mut self, end: &str) -> bool {
        let seen = poll(|| {
            let mut bytes = [0; 4096];
            if let Ok(size) = self.stream.read(&mut bytes) {
                self.body.extend_from_slice(&bytes[..size]);
            }
            self.text().ends_with(end).then_some(())
        });
        seen.is_some()
    }

    /// Whether the connection is closed behind what was seen.
    pub(crate) fn ends(&mut self) -> bool {
        poll(|| matches!(self.stream.read(&mut [0; 16]), Ok(0)).then_some(())).is_some()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// By the order of events, and not by time: the upstream sends the next piece only when the client has seen the last one.
#[test]
fn each_piece_reaches_the_client_before_the_next_is_sent() {
    for script in ["# nothing", "response_body: get_buffer_bytes 1 0 max"] {
        let pieces = Pieces::new();
        let nginx = through(&pieces, script);
        let mut client = Client::ask(&nginx);
        let mut upstream = pieces.accept();
        for number in 0..5 {
            let piece = format!("data: {number}\n\n");
            upstream.write_all(piece.as_bytes()).expect("written");
            assert!(client.sees(&piece), "{number}: {:?}", client.text());
        }
        drop(upstream);
        assert!(client.text().ends_with("data: 0\n\ndata: 1\n\ndata: 2\n\ndata: 3\n\ndata: 4\n\n"));
    }
}

#[test]
fn injected_pieces_keep_their_order() {
    let pieces = Pieces::new();
    let nginx = Probe::new(
        "response_body@more: inject_encoded_data_to_filter_chain '<1>' 0
         response_body@more: inject_encoded_data_to_filter_chain '<2>' 0
         response_body@more: return 3
         response_body@eos: inject_encoded_data_to_filter_chain '<end>' 0",
    )
    .guest("probe_0_2_100")
    .content(&format!("proxy_pass http://127.0.0.1:{}; proxy_buffering off;", pieces.port()))
    .start();
    let mut client = Client::ask(&nginx);
    let mut upstream = pieces.accept();
    upstream.write_all(b"secret").expect("written");
    assert!(client.sees("<1><2>"), "{:?}", client.text());
    upstream.write_all(b"secret").expect("written");
    assert!(client.sees("<1><2><1><2>"), "{:?}", client.text());
    drop(upstream);
    assert!(client.sees("<end>"), "{:?}", client.text());
    assert!(!client.text().contains("secret"));
}

#[test]
fn a_held_body_is_sent_behind_injected_pieces_and_at_the_end() {
    let pieces = Pieces::new();
    let nginx = Probe::new(
        "response_body@more: inject_encoded_data_to_filter_chain '<ping>' 0
         response_body@more: return 2",
    )
    .guest("probe_0_2_100")
    .content(&format!("proxy_pass http://127.0.0.1:{}; proxy_buffering off;", pieces.port()))
    .start();
    let mut client = Client::ask(&nginx);
    let mut upstream = pieces.accept();
    upstream.write_all(b"one ").expect("written");
    assert!(client.sees("\r\n\r\n<ping>"), "{:?}", client.text());
    upstream.write_all(b"two").expect("written");
    assert!(client.sees("<ping><ping>"), "{:?}", client.text());
    drop(upstream);
    assert!(client.sees("<ping><ping>one two"), "{:?}", client.text());
}

#[test]
fn a_filter_ends_the_response_before_the_upstream_does() {
    let pieces = Pieces::new();
    let nginx = through(
        &pieces,
        "response_body@first: inject_encoded_data_to_filter_chain 'the answer' 1
         response_body: return 3",
    );
    let mut connection = nginx.connect();
    connection.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut upstream = pieces.accept();
    upstream.write_all(b"event one").expect("written");
    // The response is whole although the upstream continues.
    let response = connection.response();
    assert!(response.text().starts_with("the answer"), "{}", response.text());
    assert!(!response.text().contains("event"), "{}", response.text());
    let _ = upstream.write_all(b"event two");
    drop(upstream);
}

#[test]
fn a_body_from_the_headers_takes_the_place_of_the_upstreams() {
    let script =
        "response_headers: call_foreign_function inject_encoded_data_to_filter_chain_on_header \
                  '\\x0a\\x05hello\\x10\\x01'
                  response_headers: remove_header_map_value 2 content-length";
    let nginx = Probe::new(script)
        .guest("probe_0_2_100")
        .content(r#"return 200 "of the upstream";"#)
        .start();
    let response = nginx.get("/");
    assert_eq!((response.status, response.text().as_str()), (200, "hello"));
}

#[test]
fn pieces_that_come_too_early_or_too_late() {
    let nginx = Probe::new(
        "request_headers: inject_encoded_data_to_filter_chain early 0
         request_headers: call_foreign_function inject_encoded_data_to_filter_chain_on_header '\\x10\\x01'
         log: inject_encoded_data_to_filter_chain late 0",
    )
    .guest("probe_0_2_100")
    .start();
    nginx.expect_log("a piece of the response's body comes too early: there is no response");
    nginx.expect_log("is for proxy_on_response_headers alone");
    nginx.expect_log("a piece of the response's body comes too late: the response has ended");
    nginx.get("/");
    nginx.stop();
    let lines = nginx.guest_log("probe");
    let refused = lines.iter().filter(|line| line.ends_with(" -> 2")).count();
    assert_eq!(refused, 3, "{lines:#?}");
}
