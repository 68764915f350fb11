//! Bodies in both directions: every framing, size and edit, over HTTP/1.1 and HTTP/2, byte by byte.

use super::support::{Answer, Curl, Nginx, Running, Upstream};
use std::fs;
use std::io::{self, Write};
use std::sync::Arc;

const MIB: usize = 1024 * 1024;
const SIZES: [usize; 5] = [0, 1, 64 * 1024, MIB, 100 * MIB];

/// What a filter does, by the path that it does it for. BODY and N stand for the direction.
const EDITS: [(&str, &str); 5] = [
    ("none", "BODY@eos: args"),
    ("replace", "BODY@more: set_buffer_bytes N 0 max ''; BODY@eos: set_buffer_bytes N 0 max new"),
    ("prepend", "BODY@first: set_buffer_bytes N 0 0 '>>>'"),
    ("append", "BODY@eos: set_buffer_bytes N max 0 '<<<'"),
    ("empty", "BODY: set_buffer_bytes N 0 max ''"),
];

fn edited(edit: &str, body: &[u8]) -> Vec<u8> {
    match edit {
        "none" => body.to_vec(),
        "replace" => b"new".to_vec(),
        "prepend" => [b">>>", body].concat(),
        "append" => [body, b"<<<"].concat(),
        "empty" => Vec::new(),
        other => panic!("no edit {other}"),
    }
}

/// Bytes that do not repeat with any size of buffers.
fn pattern(size: usize) -> Vec<u8> {
    let mut state: u32 = 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..size).map(|_| next()).collect()
}

/// Where two bodies differ: the bodies themselves are too long to be shown.
fn difference(left: &[u8], right: &[u8]) -> Option<String> {
    if left == right {
        return None;
    }
    let at = left.iter().zip(right).take_while(|(a, b)| a == b).count();
    Some(format!("{} and {} bytes, different from byte {at} on", left.len(), right.len()))
}

/// An nginx with a location for each edit, `/NAME`, in front of an upstream.
fn nginx(direction: &str, number: &str, upstream: &Upstream) -> Running {
    let mut lua = String::from("local wasm = require('resty.proxy-wasm')\nchains = {}\n");
    let mut locations = String::new();
    for (edit, script) in EDITS {
        let script = script.replace("BODY", direction).replace(" N ", &format!(" {number} "));
        let options = if edit == "none" { "" } else { "body = true" };
        lua += &format!(
            "do
                local plugin = assert(wasm.load('probe', 'probe.wasm', {{ {options} }}))
                local ctx = assert(wasm.on_configure(plugin, [==[{script}]==]))
                chains.{edit} = wasm.new_chain({{ ctx }})
            end\n"
        );
        locations += &format!(
            "location /{edit} {{
                access_by_lua_block {{ chains.{edit}:access() }}
                header_filter_by_lua_block {{ chains.{edit}:header_filter() }}
                body_filter_by_lua_block {{ chains.{edit}:body_filter() }}
                proxy_pass {};
            }}\n",
            upstream.url()
        );
    }
    Nginx::new()
        .guest("probe")
        .http(&format!("init_by_lua_block {{ {lua} }}"))
        .http2()
        .server(
            "client_max_body_size 0;
             proxy_max_temp_file_size 0;
             proxy_http_version 1.1;
             set $framing $http_content_length/$http_transfer_encoding;
             proxy_set_header X-Framing $framing;\n",
        )
        .server(&locations)
        .start()
}

fn curl(nginx: &Running, http2: bool) -> Curl<'_> {
    if http2 { Curl::http2(nginx) } else { Curl::new(nginx) }
}

#[test]
fn requests() {
    let upstream = Upstream::sink();
    let nginx = nginx("request_body", "0", &upstream);
    nginx.expect_log("a client request body is buffered to a temporary file");
    for size in SIZES {
        let body = pattern(size);
        fs::write(nginx.path("input"), &body).expect("a file");
        for (edit, _) in EDITS {
            // A filter is not told of a body that is not there.
            let expected = if size == 0 { Vec::new() } else { edited(edit, &body) };
            for http2 in [false, true] {
                for known in [true, false] {
                    let cell = format!("{size} bytes, {edit}, HTTP/2: {http2}, length: {known}");
                    let request = curl(&nginx, http2);
                    let request =
                        if known { request.upload("input") } else { request.stream("input") };
                    let answer = request.get(&format!("/{edit}"));
                    assert_eq!(answer.status, 200, "{cell}");
                    let came = upstream.take();
                    let framing = match (known, http2) {
                        (true, _) => format!("{size}/"),
                        (false, false) => "/chunked".into(),
                        (false, true) => "/".into(),
                    };
                    assert_eq!(came.header("x-framing"), Some(framing.as_str()), "{cell}");
                    assert_eq!(difference(&came.body, &expected), None, "{cell}");
                    assert_eq!(came.header("transfer-encoding"), None, "{cell}");
                    let length = came.header("content-length").unwrap_or("0");
                    assert_eq!(length, expected.len().to_string(), "{cell}");
                }
            }
        }
    }
}

/// Answers with a body in the framing that the query names, `?FRAMING=SIZE`.
fn respond(body: &[u8], target: &str, out: &mut dyn Write) -> io::Result<()> {
    let (_, query) = target.split_once('?').expect("a query");
    let (framing, size) = query.split_once('=').expect("a framing");
    let body = &body[..size.parse().map_err(io::Error::other)?];
    out.write_all(b"HTTP/1.1 200 OK\r\nX-Upstream: yes\r\nConnection: close\r\n")?;
    match framing {
        "length" => write!(out, "Content-Length: {}\r\n\r\n", body.len())?,
        "chunked" => out.write_all(b"Transfer-Encoding: chunked\r\n\r\n")?,
        _ => out.write_all(b"\r\n")?,
    }
    if framing != "chunked" {
        return out.write_all(body);
    }
    for chunk in body.chunks(50_000) {
        write!(out, "{:x}\r\n", chunk.len())?;
        out.write_all(chunk)?;
        out.write_all(b"\r\n")?;
    }
    out.write_all(b"0\r\n\r\n")
}

/// The length that a client is told.
fn told_length(answer: &Answer) -> Option<usize> {
    answer.header("content-length").map(|length| length.parse().expect("a number"))
}

#[test]
fn responses() {
    let body: Arc<[u8]> = pattern(100 * MIB).into();
    let served = body.clone();
    let upstream = Upstream::start(move |request, out| respond(&served, &request.target, out));
    let nginx = nginx("response_body", "1", &upstream);
    for size in SIZES {
        for (edit, _) in EDITS {
            let expected = edited(edit, &body[..size]);
            for http2 in [false, true] {
                for framing in ["length", "chunked", "close"] {
                    let cell = format!("{size} bytes, {edit}, HTTP/2: {http2}, {framing}");
                    let answer = curl(&nginx, http2).get(&format!("/{edit}?{framing}={size}"));
                    assert_eq!(answer.status, 200, "{cell}");
                    assert_eq!(difference(&answer.body, &expected), None, "{cell}");
                    let known = framing == "length" && edit == "none";
                    assert_eq!(told_length(&answer), known.then_some(size), "{cell}");
                    let coding = answer.header("transfer-encoding");
                    let chunked = !http2 && !known;
                    assert_eq!(coding, chunked.then_some("chunked"), "{cell}");
                }
            }
        }
    }
}
