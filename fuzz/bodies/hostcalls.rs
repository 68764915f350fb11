//! Host functions with arbitrary arguments, memory and surroundings, in every callback of a stream.

use super::input::Input;
use crate::world::player::{check_statuses, player};
use crate::world::{Filter, Request, Stream, sim_host};
use resty_proxy_wasm::abi::{Attribute, Callback, LogLevel, PROPERTIES, Source};
use resty_proxy_wasm::error::Error;
use resty_proxy_wasm::ports::Phase;
use std::sync::LazyLock;

/// Callbacks of one stream.
const EVENTS: usize = 12;

pub(super) fn run(bytes: &[u8]) {
    thread_local! {
        static FILTERS: [Filter; 2] =
            ["0_2_1", "0_1_0"].map(|version| Filter::new(&sim_host(), &player(version)));
    }
    FILTERS.with(|filters| {
        let mut input = Input(bytes);
        let flavour = usize::from(input.byte());
        let filter = &filters[flavour % 2];
        let world = &filter.host;
        world.reset();
        world.set_log_level(LogLevel::try_from(flavour as u32 / 2 % 6).expect("a level"));
        // A VM of its own, so that an input does the same in every run.
        filter.fork();
        let context = filter.context("");
        let request = world.add(request(&mut input));
        let wild = input.wild();
        world.with(request, |r| r.set_property("tape", &input.tape(16, &wild), false));
        let Ok(stream) = filter.try_open(&context, request).map_err(fine) else { return };
        // Another context to work on by its number.
        let other = filter.open(&context);
        let _ = events(&stream, &mut input, &wild).map_err(fine);
        let ended = stream.end().and(other.end());
        let _ = ended.map_err(fine);
        world.warned();
    });
}

/// A guest may trap, and is told so.
fn fine(error: Error) {
    check_statuses(&error);
    assert!(matches!(error, Error::Trap { .. } | Error::Lost(_) | Error::Cut(_)), "{error}");
}

fn events(stream: &Stream, input: &mut Input<'_>, wild: &[&[u8]]) -> Result<(), Error> {
    const CHUNK: &[u8] = b"the body of a message";
    for _ in 0..EVENTS {
        if input.is_empty() {
            break;
        }
        let (callback, whence) = (input.byte(), input.byte());
        let tape = input.tape(16, wild);
        stream.host.with(stream.request, |r| {
            r.set_property("tape", &tape, false);
            r.phase = phase(whence, callback);
            r.headers_sent = r.phase == Phase::Log || whence & 0x20 != 0;
            r.status = [0, 200, 204, 404][usize::from(whence >> 6)];
        });
        let chunk = &CHUNK[..usize::from(callback >> 3) % CHUNK.len()];
        let end = whence & 0x10 != 0;
        match callback % 5 {
            0 => stream.run(Callback::RequestHeaders, b"", false).map(|_| ())?,
            1 => stream.run(Callback::RequestBody, chunk, end).map(|_| ())?,
            // It sets the phase by itself.
            2 => stream.try_response_headers(&[("a", "1"), ("Content-Length", "5")]).map(|_| ())?,
            3 => stream.run(Callback::ResponseBody, chunk, end).map(|_| ())?,
            _ => stream.resumed().map(|_| ())?,
        }
    }
    Ok(())
}

/// Mostly the phase that the callback has in a server.
fn phase(whence: u8, callback: u8) -> Phase {
    match (whence & 0xf, callback % 5) {
        (0, _) => Phase::Other,
        (1, _) => Phase::Log,
        (2, _) => Phase::ResponseHeaders,
        (3, _) | (_, 3) => Phase::ResponseBody,
        _ => Phase::Request,
    }
}

/// The attributes that properties are made of, and those that the host looks at for itself.
static ATTRIBUTES: LazyLock<Vec<Attribute<'static>>> = LazyLock::new(|| {
    let sources = PROPERTIES.iter().flat_map(|property| match property.source {
        Source::Attribute(attribute) | Source::Size(attribute) => vec![attribute],
        Source::Address(address, port) => vec![address, port],
        _ => Vec::new(),
    });
    let more = [
        Attribute::UpstreamAnswered,
        Attribute::PeerVerified,
        Attribute::PeerCertificate,
        Attribute::RequestAuthority,
        Attribute::RequestMethod,
        Attribute::RequestPath,
        Attribute::ResponseContentLength,
        Attribute::ResponseHeader(b"a"),
    ];
    sources.chain(more).collect()
});

/// A request with arbitrary headers and attributes: clients and upstreams choose what is in them.
fn request(input: &mut Input<'_>) -> Request {
    let mut request = Request::default().header("a", "1").writable("free", "");
    for _ in 0..input.byte() % 4 {
        let name = ["a", "content-type", "content-length", "x-name"][usize::from(input.byte() % 4)];
        let value: &[u8] = match input.byte() {
            0 => b"application/grpc",
            _ => input.string(1024),
        };
        request.headers.push((name.into(), value.to_vec()));
    }
    for _ in 0..input.byte() % 4 {
        let attribute = ATTRIBUTES[usize::from(input.byte()) % ATTRIBUTES.len()];
        request.set_attribute(attribute, input.string(1024));
    }
    request
}
