//! The HTTP client of calls: what a guest asks becomes one request and no other, and what an upstream answers means the
//! same however it is cut into pieces.

use resty_proxy_wasm::callout::{Exchange, Request, Response, Step, Upstream};
use resty_proxy_wasm::limits;

use super::input::Input;

type Pair = (Vec<u8>, Vec<u8>);

/// Bytes past which a server's answer is not made longer by repeating it.
const ANSWER: usize = 4096;

/// The first byte decides what the others are: a name, a request, or a response.
pub(super) fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    match input.byte() % 4 {
        0 => name(input.0),
        1 => request(&mut input),
        _ => response(&mut input),
    }
}

fn name(name: &[u8]) {
    for tls in [false, true] {
        let Some(upstream) = Upstream::parse(name, tls) else { continue };
        // nginx gets to see no control characters.
        for text in [upstream.authority(), upstream.pool("name")] {
            assert!(!text.bytes().any(|b| b.is_ascii_control()), "{text:?}");
        }
        let authority = upstream.authority();
        assert!(Upstream::parse(authority.as_bytes(), upstream.tls).is_some(), "{authority:?}");
        assert!(Request::build(&upstream, &[], b"", &[], |_| ()).is_ok());
    }
}

fn request(input: &mut Input<'_>) {
    let body = input.string(256);
    let pairs = |input: &mut Input<'_>| -> Vec<Pair> {
        (0..input.byte() % 6).map(|_| (header_name(input), input.string(64).to_vec())).collect()
    };
    let (headers, trailers) = (pairs(input), pairs(input));
    let (headers, trailers) = (lent(&headers), lent(&trailers));
    let upstream = Upstream::parse(b"auth:8080", false).expect("an upstream");
    let Ok(request) = Request::build(&upstream, &headers, body, &trailers, |_| ()) else { return };
    let mut exchange = Exchange::new(&request).expect("an exchange");
    let mut out = Vec::new();
    assert_eq!(exchange.advance(b"", false, &mut out), Step::Receive);
    assert_one_message(&out, body, trailers.len());
}

fn lent(pairs: &[Pair]) -> Vec<(&[u8], &[u8])> {
    pairs.iter().map(|(name, value)| (&name[..], &value[..])).collect()
}

/// Often a name that means something.
fn header_name(input: &mut Input<'_>) -> Vec<u8> {
    const NAMES: [&str; 12] = [
        ":method",
        ":path",
        ":authority",
        ":scheme",
        "host",
        "connection",
        "content-length",
        "transfer-encoding",
        "trailer",
        "expect",
        "upgrade",
        "x-a",
    ];
    let choice = usize::from(input.byte()) % (NAMES.len() + 4);
    NAMES.get(choice).map_or_else(|| input.string(32).to_vec(), |name| name.as_bytes().to_vec())
}

/// A reader that knows nothing of the writer finds the body where the writer meant it, and nothing behind it.
fn assert_one_message(bytes: &[u8], body: &[u8], trailers: usize) {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut fields);
    let head = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        other => panic!("{other:?}: {}", bytes.escape_ascii()),
    };
    let values = |name: &str| -> Vec<&[u8]> {
        let of_name = parsed.headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name));
        of_name.map(|h| h.value).collect()
    };
    assert_eq!(values("host").len(), 1);
    for name in ["connection", "expect", "upgrade", "te", "keep-alive"] {
        assert!(values(name).is_empty(), "{name}");
    }
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    let rest = &bytes[head..];
    if trailers > 0 {
        assert!(lengths.is_empty() && codings == [b"chunked"]);
        assert!(rest.ends_with(b"\r\n\r\n") || rest.ends_with(b"0\r\n\r\n"));
    } else {
        assert!(codings.is_empty());
        let length: usize = lengths.first().map_or(0, |length| {
            std::str::from_utf8(length).expect("digits").parse().expect("a number")
        });
        assert!(lengths.len() < 2);
        assert_eq!((length, rest), (body.len(), body));
    }
}

/// What an exchange came to.
#[derive(Debug, PartialEq)]
enum End {
    Whole(Vec<Pair>, Vec<u8>, Vec<Pair>),
    Failed,
    /// The connection is open, and more may come.
    Open,
}

fn response(input: &mut Input<'_>) {
    let method = [&b"GET"[..], b"HEAD", b"POST"][usize::from(input.byte() % 3)];
    let (closes, cut, repeat) = (input.byte() % 2 == 1, input.byte(), input.byte());
    let mut answer = input.0.to_vec();
    if repeat > 250 && !answer.is_empty() {
        answer = answer.repeat(ANSWER.div_ceil(answer.len()));
    }
    let whole = fed(method, &[&answer], closes);
    let size = usize::from(cut % 16) + 1;
    let pieces: Vec<&[u8]> = answer.chunks(size).collect();
    let pieced = fed(method, &pieces, closes);
    let shown = answer.escape_ascii();
    match (&whole, &pieced) {
        (End::Whole(..), End::Whole(..)) => assert_eq!(whole, pieced, "{shown}"),
        // What is missing is missing, however it is cut. An error shows sooner or later.
        (End::Whole(..), End::Open) | (End::Open, End::Whole(..)) => panic!("{shown}"),
        _ => {}
    }
    assert!(
        !closes || (whole != End::Open && pieced != End::Open),
        "nothing more can come: {shown}"
    );
}

fn fed(method: &[u8], pieces: &[&[u8]], closes: bool) -> End {
    let upstream = Upstream::parse(b"auth", false).expect("an upstream");
    let request =
        Request::build(&upstream, &[(b":method", method)], b"", &[], |_| ()).expect("a request");
    let mut exchange = Exchange::new(&request).expect("an exchange");
    let mut out = Vec::new();
    assert_eq!(exchange.advance(b"", false, &mut out), Step::Receive);
    let mut steps = pieces.iter().map(|piece| (*piece, false)).collect::<Vec<_>>();
    if closes {
        steps.push((b"", true));
    }
    for (piece, eof) in steps {
        match exchange.advance(piece, eof, &mut out) {
            Step::Receive => {}
            Step::Failed(failure) => {
                assert!(!failure.kind.word().is_empty());
                return End::Failed;
            }
            Step::Done { .. } => return ended(exchange),
        }
        assert!(exchange.received() <= limits::CALL_BODY);
    }
    End::Open
}

fn ended(exchange: Exchange) -> End {
    let Response { headers, body, trailers } = exchange.into_response();
    let pairs = |map: &resty_proxy_wasm::snapshot::HeaderMap| -> Vec<Pair> {
        map.iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect()
    };
    assert!(headers.len() <= limits::HEADER_MAP_PAIRS + 1);
    for (name, value) in pairs(&headers).iter().chain(&pairs(&trailers)) {
        assert!(!value.iter().any(|b| b"\r\n\0".contains(b)), "{}", name.escape_ascii());
    }
    End::Whole(pairs(&headers), body, pairs(&trailers))
}
