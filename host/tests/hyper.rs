//! The example `hyper`: a proxy with a filter, over real sockets.
#![allow(clippy::disallowed_methods, reason = "the test has a client and a server of its own")]

#[path = "../examples/hyper.rs"]
#[allow(dead_code, reason = "its main is not called")]
mod hyper_example;

use proxy_wasm_host::Code;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

/// It answers `/denied` with 403 and the text `no`, adds `x-asked: yes` to other requests, and `hello: world` to their responses.
const FILTER: &str = r#"(module
    (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_send_local_response"
        (func $respond (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (global $free (mut i32) (i32.const 4096))
    (data (i32.const 0) "helloworld:pathnox-askedyes")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
        (global.get $free)
        (global.set $free (i32.add (global.get $free) (local.get $size))))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (drop (call $get (i32.const 0) (i32.const 10) (i32.const 5) (i32.const 100) (i32.const 104)))
        (if (i32.eq (i32.load (i32.const 104)) (i32.const 7))
            (then (drop (call $respond (i32.const 403) (i32.const 0) (i32.const 0) (i32.const 15) (i32.const 2)
                (i32.const 0) (i32.const 0) (i32.const -1)))
                (return (i32.const 1))))
        (drop (call $add (i32.const 0) (i32.const 17) (i32.const 7) (i32.const 24) (i32.const 3)))
        (i32.const 0))
    (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
        (drop (call $add (i32.const 2) (i32.const 0) (i32.const 5) (i32.const 5) (i32.const 5)))
        (i32.const 0)))"#;

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    (listener, address)
}

/// Answers each request with its own text.
fn echo(listener: &TcpListener) {
    for connection in listener.incoming() {
        let mut connection = connection.expect("a connection");
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        while !request.windows(4).any(|part| part == b"\r\n\r\n") {
            let size = connection.read(&mut buffer).expect("a request");
            request.extend_from_slice(&buffer[..size]);
        }
        let length = request.len();
        write!(connection, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").expect("a head");
        connection.write_all(&request).expect("a body");
    }
}

fn get(proxy: SocketAddr, path: &str) -> String {
    let mut socket = TcpStream::connect(proxy).expect("the proxy");
    write!(socket, "GET {path} HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n")
        .expect("sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    answer.to_ascii_lowercase()
}

#[test]
fn a_filter_changes_requests_and_responses() {
    let (upstream, upstream_address) = listen();
    std::thread::spawn(move || echo(&upstream));
    let (proxy, address) = listen();
    let wasm = wat::parse_str(FILTER).expect("WebAssembly text");
    let code = Arc::new(Code::compile(&wasm).expect("a module"));
    std::thread::spawn(move || {
        let served = hyper_example::serve(&proxy, upstream_address, code, b"");
        served.map_err(|error| error.to_string()).expect("a proxy");
    });

    let answer = get(address, "/a?b");
    assert!(answer.starts_with("http/1.1 200 ok\r\n"), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
    assert!(head.contains("\r\nhello: world"), "{answer}");
    assert!(body.starts_with("get /a?b http/1.1\r\n"), "{answer}");
    assert!(body.contains("\r\nx-asked: yes\r\n"), "{answer}");
    assert!(body.contains("\r\nhost: example.com\r\n"), "{answer}");

    let denied = get(address, "/denied");
    assert!(denied.starts_with("http/1.1 403 forbidden\r\n"), "{denied}");
    assert!(denied.ends_with("\r\n\r\nno"), "{denied}");
    assert!(!denied.contains("hello"), "{denied}");
}
