//! The gRPC client: names of upstreams, decoders among them, and what a server sends.

use resty_proxy_wasm::callout::{Failure, FailureKind, Upstream};
use resty_proxy_wasm::grpc::{Decoder, Event, Held, Message, Opening, Pool, Request, Target, Wait};

use super::input::Input;

/// The first byte decides what the others are: a name, messages, or frames of a server.
pub(super) fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    match input.byte() % 4 {
        0 => name(input.0),
        1 => messages(&mut input),
        _ => server(&mut input),
    }
}

fn name(name: &[u8]) {
    let Some(target) = Target::parse(name, |_| None) else { return };
    for text in [target.upstream.authority(), target.name.clone()] {
        assert!(!text.bytes().any(|b| b.is_ascii_control()), "{text:?}");
    }
    let metadata: Vec<_> =
        target.metadata.iter().map(|(name, value)| (name.as_bytes(), value.as_slice())).collect();
    let authority = target.authority();
    let _ = Request::build(target.upstream.tls, &authority, b"s", b"m", &metadata);
}

/// Messages mean the same however they are cut.
fn messages(input: &mut Input<'_>) {
    let at = usize::from(input.byte());
    let bytes = input.0;
    let decode = |pieces: &[&[u8]]| {
        let mut decoder = Decoder::default();
        decoder.set_encoding(b"gzip");
        let mut messages = Vec::new();
        let ended = pieces.iter().try_for_each(|piece| {
            decoder.push(piece);
            while let Some(message) = decoder.take()? {
                messages.push(message);
            }
            Ok(())
        });
        (messages, ended.and_then(|()| decoder.end()).map_err(|status| status.code))
    };
    let (head, tail) = bytes.split_at(at.min(bytes.len()));
    assert_eq!(decode(&[bytes]), decode(&[head, tail]));
}

fn opening(token: u32, held: &Held) -> Opening {
    Opening {
        token,
        name: "a".into(),
        upstream: Upstream::parse(b"a:1", false).expect("an upstream"),
        server_name: "a".into(),
        judged: None,
        request: Request::build(false, "a:1", b"s", b"m", &[]).expect("a request"),
        message: (token % 2 == 1).then(|| Message::new(held, b"a").expect("a message")),
        timeout_ms: None,
        of_request: true,
    }
}

/// A call and a stream with a server that sends these bytes: each ends once, and nothing is told of it after that.
fn server(input: &mut Input<'_>) {
    let (held, mut pool) = (Held::default(), Pool::<u32>::default());
    for token in 1..=2 {
        pool.open(token, opening(token, &held), 0);
    }
    let connection = 1;
    pool.connected(connection, None, 0);
    pool.receive(connection, b"\0\0\0\x04\0\0\0\0\0", false, 0);
    let step = usize::from(input.byte()) + 1;
    let mut ended = [false; 2];
    let mut out = Vec::new();
    for piece in input.0.chunks(step) {
        pool.receive(connection, piece, false, 0);
        pool.next(connection, Some(&mut out), 0);
        told(&mut pool, &mut ended);
    }
    // A call that was refused may wait for another connection.
    for connection in 1..=3 {
        pool.receive(connection, b"", true, 0);
        pool.failed(connection, &Failure::new(FailureKind::Closed, ""), 0);
        told(&mut pool, &mut ended);
    }
    assert_eq!(ended, [true; 2]);
    assert_eq!(pool.next(connection, None, 0), Wait::Close);
}

fn told(pool: &mut Pool<u32>, ended: &mut [bool; 2]) {
    while let Some((id, event)) = pool.take_event() {
        let Some((owner, over)) = pool.owner_of(id, &event) else { continue };
        if let Event::Message(message) = &event {
            pool.told(id, message.len());
        }
        let ended = &mut ended[owner as usize - 1];
        assert!(!*ended, "{event:?} after the end");
        *ended = over.is_some();
        assert!(*ended || !matches!(event, Event::Close(_)));
    }
}
