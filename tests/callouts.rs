//! The HTTP client of calls: requests as they go out, responses in all framings, fed whole and in pieces.

use resty_proxy_wasm::callout::{Exchange, FailureKind, Request, Response, Step, Upstream};
use resty_proxy_wasm::limits;

type Pairs<'a> = &'a [(&'a str, &'a str)];

/// The exchange, and which headers were left out.
fn exchange(
    headers: Pairs<'_>,
    body: &str,
    trailers: Pairs<'_>,
) -> Result<(Exchange, Vec<String>), &'static str> {
    let pairs = |pairs: Pairs<'static>| -> Vec<(&'static [u8], &'static [u8])> {
        pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect()
    };
    // Lent for ever, which a test may do.
    let own = |pairs: Pairs<'_>| -> Pairs<'static> {
        let owned: Vec<(&str, &str)> =
            pairs.iter().map(|(n, v)| (&*n.to_string().leak(), &*v.to_string().leak())).collect();
        owned.leak()
    };
    let upstream = Upstream::parse(b"auth:8080", false).expect("an upstream");
    let (headers, trailers) = (pairs(own(headers)), pairs(own(trailers)));
    let mut left_out = Vec::new();
    let request = Request::build(&upstream, &headers, body.as_bytes(), &trailers, |name| {
        left_out.push(name.escape_ascii().to_string());
    });
    let request = request.map_err(|malformed| malformed.0)?;
    Ok((Exchange::new(&request).expect("an exchange"), left_out))
}

/// The bytes of a request, its header lines sorted.
fn sent(headers: Pairs<'_>, body: &str, trailers: Pairs<'_>) -> String {
    let (mut exchange, _) = exchange(headers, body, trailers).expect("a request");
    let mut out = Vec::new();
    assert_eq!(exchange.advance(b"", false, &mut out), Step::Receive);
    let text = String::from_utf8(out).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let mut lines: Vec<&str> = head.split("\r\n").collect();
    lines[1..].sort_unstable();
    format!("{}||{}", lines.join("|"), body.replace("\r\n", "~"))
}

#[test]
fn requests() {
    for (headers, body, trailers, expected) in [
        (&[][..], "", &[][..], "GET / HTTP/1.1|host: auth:8080||"),
        (
            &[
                (":method", "POST"),
                (":path", "/a?b=c"),
                (":authority", "example.com"),
                ("x-a", "1"),
                ("X-A", "2"),
            ],
            "hello",
            &[],
            "POST /a?b=c HTTP/1.1|content-length: 5|host: example.com|x-a: 1|x-a: 2||hello",
        ),
        (&[("host", "given")], "", &[], "GET / HTTP/1.1|host: given||"),
        (
            &[
                ("connection", "close, x-hop"),
                ("x-hop", "1"),
                ("transfer-encoding", "chunked"),
                ("te", "trailers"),
                ("content-length", "7"),
                ("upgrade", "h2c"),
                ("keep-alive", "1"),
                ("expect", "100-continue"),
                ("x", "y"),
            ],
            "",
            &[],
            "GET / HTTP/1.1|host: auth:8080|x: y||",
        ),
        (
            &[(":method", "POST")],
            "hello",
            &[("x-sum", "1")],
            "POST / HTTP/1.1|host: auth:8080|trailer: x-sum|transfer-encoding: chunked||5~hello~0~x-sum: 1~~",
        ),
        (&[(":method", "DELETE"), (":path", "")], "", &[], "DELETE / HTTP/1.1|host: auth:8080||"),
    ] {
        assert_eq!(sent(headers, body, trailers), expected);
    }
}

#[test]
fn requests_that_cannot_be() {
    for (headers, trailers, wrong) in [
        (&[(":method", "CONNECT")][..], &[][..], "bad :method"),
        (&[(":method", "a b")], &[], "bad :method"),
        (&[(":path", "/a b")], &[], "bad :path"),
        (&[(":path", "/\r\nx: y")], &[], "bad :path"),
        (&[(":path", "#/")], &[], "bad :path"),
        (&[(":path", "?a=b")], &[], "bad :path"),
        (&[(":path", "http://a/")], &[], "bad :path"),
        (&[(":authority", "a\r\nx: y")], &[], "bad :authority"),
        (&[], &[("a\n", "b")], "bad header name"),
        (&[], &[("content-length", "1")], "a trailer that cannot be one"),
    ] {
        assert_eq!(exchange(headers, "", trailers).map(|_| ()), Err(wrong));
    }
}

/// 250,000 options beside a thousand headers: a client's may be thousands, and must not keep a filter from asking.
#[test]
fn options_of_a_connection_take_what_they_name() {
    let names: Vec<String> = (0..1000).map(|index| format!("x-{index}")).collect();
    let options = ",".repeat(250_000) + "X-7, x-8 ,x-none";
    let mut headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    headers.push(("Connection", &options));
    let text = sent(&headers, "", &[]);
    assert_eq!(text.matches("|x-").count(), 998);
    assert!(text.contains("|x-9: 1|") && !text.contains("|x-7:") && !text.contains("|x-8:"));
}

#[test]
fn headers_that_cannot_be_sent_are_left_out() {
    let headers = [
        ("a b", "c"),
        ("x-sound", "1"),
        ("", "c"),
        ("a", "b\nc"),
        ("control", "\x01"),
        ("a", "b\0"),
        ("x-sound", "2"),
    ];
    let (_, left_out) = exchange(&headers, "", &[]).expect("a request");
    assert_eq!(left_out, ["a b", "", "a", "control", "a"]);
    let expected = "GET / HTTP/1.1|host: auth:8080|x-sound: 1|x-sound: 2||";
    assert_eq!(sent(&headers, "", &[]), expected);
}

fn shown(response: &Response) -> String {
    let pairs = |map: &resty_proxy_wasm::snapshot::HeaderMap| {
        map.iter()
            .map(|(n, v)| format!("{}={}", n.escape_ascii(), v.escape_ascii()))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let body = response.body.escape_ascii();
    format!("{} [{body}] {}", pairs(&response.headers), pairs(&response.trailers))
}

/// Feeds a response in pieces of that size, then the end when `eof`.
fn answer(method: &str, bytes: &[u8], size: usize, eof: bool) -> (Step, String) {
    let (mut exchange, _) = exchange(&[(":method", method)], "", &[]).expect("a request");
    let mut out = Vec::new();
    let mut step = exchange.advance(b"", false, &mut out);
    for piece in bytes.chunks(size) {
        assert_eq!(step, Step::Receive, "more comes");
        step = exchange.advance(piece, false, &mut out);
    }
    if eof && step == Step::Receive {
        step = exchange.advance(b"", true, &mut out);
    }
    (step, shown(&exchange.into_response()))
}

#[test]
fn responses_in_every_framing_and_any_pieces() {
    let done = |reusable| Step::Done { reusable };
    for (method, bytes, eof, step, expected) in [
        (
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: 1\r\n\r\nhello",
            false,
            done(true),
            ":status=200 content-length=5 x-a=1 [hello] ",
        ),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", false, done(true), ":status=204 [] "),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            false,
            done(true),
            ":status=200 content-length=5 [] ",
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n",
            false,
            done(true),
            ":status=200 [hello!] ",
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 9\r\n\r\n",
            false,
            done(true),
            ":status=200 trailer=x-sum [hi] x-sum=9",
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
            false,
            done(false),
            ":status=200 content-length=2 [hi] ",
        ),
        (
            "GET",
            "HTTP/1.0 200 OK\r\n\r\nto the end",
            true,
            done(false),
            ":status=200 [to the end] ",
        ),
        (
            "GET",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
            false,
            done(true),
            ":status=503 content-length=0 [] ",
        ),
    ] {
        for size in [1, 2, 7, 1000] {
            let (got, response) = answer(method, bytes.as_bytes(), size, eof);
            assert_eq!((got, response.as_str()), (step.clone(), expected), "{bytes:?} by {size}");
        }
    }
}

fn failed(bytes: &[u8], eof: bool) -> FailureKind {
    match answer("GET", bytes, 100_000, eof).0 {
        Step::Failed(failure) => failure.kind,
        other => panic!("{other:?}"),
    }
}

#[test]
fn responses_that_are_none() {
    for bytes in [
        &b"SSH-2.0-OpenSSH\r\n\r\n"[..],
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
    ] {
        assert_eq!(failed(bytes, false), FailureKind::Protocol, "{}", bytes.escape_ascii());
    }
    for bytes in [
        &b""[..],
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
    ] {
        assert_eq!(failed(bytes, true), FailureKind::Closed, "{}", bytes.escape_ascii());
    }
    let mut huge = b"HTTP/1.1 200 OK\r\n".to_vec();
    huge.extend(
        (0..limits::HEADER_MAP_PAIRS + 1).flat_map(|i| format!("x{i}: y\r\n").into_bytes()),
    );
    huge.extend(b"\r\n");
    assert_eq!(failed(&huge, false), FailureKind::TooLarge);
    let mut wide = b"HTTP/1.1 200 OK\r\nx: ".to_vec();
    wide.resize(limits::CALL_HEAD + 1000, b'y');
    assert_eq!(failed(&wide, false), FailureKind::TooLarge);
    let length = limits::CALL_BODY + 1;
    let mut large = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes();
    large.resize(large.len() + length, b'z');
    assert_eq!(failed(&large, false), FailureKind::TooLarge);
}
