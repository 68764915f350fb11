//! A small reverse proxy that runs a filter on each request.
//!
//! `cargo run --release -p proxy-wasm-host --example hyper -- 127.0.0.1:8000 127.0.0.1:9000 filter.wasm [CONFIGURATION]`
//!
//! hyper speaks HTTP with clients, [`callout::Exchange`] with the upstream. Each connection is served on the thread that
//! accepted it, with blocking sockets; a server with more connections than that would use an event loop. Bodies are taken
//! whole, and a filter that pauses is not waited for.
#![allow(
    clippy::disallowed_methods,
    reason = "the library has no input and output; its embedders have"
)]

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as Task, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use parking_lot::Mutex;
use proxy_wasm_host::callout::{self, Exchange, Step, Upstream};
use proxy_wasm_host::vm::deadline;
use proxy_wasm_host::{
    Action, Attribute, Callback, Clock, Code, Context, EffectKind, Effects, Error, Event,
    HeaderMap, Host, Jobs, Log, LogLevel, MemoryStore, Module, Options, Output, Phase, Plugin,
    RequestId, Requests, Store, Stores, StreamRef,
};

type Failure = Box<dyn std::error::Error>;

/// What the filter can ask of a request.
#[derive(Clone, Debug, Default)]
struct Message {
    method: Vec<u8>,
    authority: Vec<u8>,
    path: Vec<u8>,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    status: u16,
}

/// The host: the requests under way, and a store for what filters share.
struct Server {
    requests: Mutex<HashMap<RequestId, Message>>,
    store: MemoryStore,
}

impl Server {
    fn with<R>(&self, request: RequestId, f: impl FnOnce(&mut Message) -> R) -> R {
        let mut requests = self.requests.lock();
        f(requests.entry(request).or_default())
    }
}

impl Log for Server {
    fn log(&self, _: Option<RequestId>, level: LogLevel, line: &[u8]) {
        eprintln!("{level:?} {}", line.escape_ascii());
    }
}

impl Requests for Server {
    fn phase(&self, request: RequestId) -> Phase {
        if self.response_status(request) == 0 { Phase::Request } else { Phase::ResponseHeaders }
    }

    fn attribute(&self, request: RequestId, attribute: Attribute<'_>, out: &mut Vec<u8>) -> bool {
        out.clear();
        self.with(request, |message| match attribute {
            Attribute::RequestMethod => out.extend_from_slice(&message.method),
            Attribute::RequestScheme => out.extend_from_slice(b"http"),
            Attribute::RequestAuthority => out.extend_from_slice(&message.authority),
            Attribute::RequestPath => out.extend_from_slice(&message.path),
            _ => {}
        });
        !out.is_empty()
    }

    fn request_headers(&self, request: RequestId, out: &mut HeaderMap) {
        self.with(request, |m| m.headers.iter().for_each(|(name, value)| out.push(name, value)));
    }

    fn headers_sent(&self, _: RequestId) -> bool {
        false
    }

    fn response_status(&self, request: RequestId) -> u16 {
        self.with(request, |message| message.status)
    }
}

impl Stores for Server {
    fn shared(&self) -> Option<&dyn Store> {
        Some(&self.store)
    }
}

impl Clock for Server {}
impl Jobs for Server {}
impl Host for Server {}

/// A configured filter in front of an upstream. It stays on its thread.
struct Proxy {
    host: Arc<Server>,
    context: Rc<Context>,
    upstream: SocketAddr,
}

/// Serves connections one after the other.
pub(crate) fn serve(
    listener: &TcpListener,
    upstream: SocketAddr,
    code: Arc<Code>,
    configuration: &[u8],
) -> Result<(), Failure> {
    let store = MemoryStore::new(1 << 20);
    let host = Arc::new(Server { requests: Mutex::default(), store });
    let shared: Arc<dyn Host> = host.clone();
    let module = Module::new(code, Options::new("filter"), &shared)?;
    let context = Context::new(&Plugin::new(module, shared)?, configuration)?;
    let proxy = Proxy { host, context, upstream };
    for (number, connection) in listener.incoming().enumerate() {
        let id = RequestId(NonZeroUsize::MIN.saturating_add(number));
        let service = service_fn(|request| proxy.serve(id, request));
        // Else hyper looks, while a request is served, whether the client has gone: that read would block.
        let mut builder = http1::Builder::new();
        let connection = builder.half_close(true).serve_connection(Socket(connection?), service);
        if let Err(error) = block_on(connection) {
            eprintln!("{error}");
        }
    }
    Ok(())
}

impl Proxy {
    async fn serve(
        &self,
        id: RequestId,
        request: Request<Incoming>,
    ) -> hyper::Result<Response<Full<Bytes>>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let authority = head.headers.get("host").map(|host| host.as_bytes().to_vec());
        let fields = head.headers.iter().filter(|(name, _)| *name != "host");
        let message = Message {
            method: head.method.as_str().into(),
            authority: authority.unwrap_or_default(),
            path: head.uri.path_and_query().map_or("/", |path| path.as_str()).into(),
            headers: fields.map(|(n, v)| (n.as_str().into(), v.as_bytes().into())).collect(),
            status: 0,
        };
        self.host.with(id, |known| *known = message);
        let answer = self.filter(id, &body).unwrap_or_else(|error| {
            eprintln!("{error}");
            failed(StatusCode::BAD_GATEWAY)
        });
        self.host.requests.lock().remove(&id);
        Ok(answer)
    }

    /// One request from its headers to the end of its response.
    fn filter(&self, id: RequestId, body: &Bytes) -> Result<Response<Full<Bytes>>, Failure> {
        let stream = self.context.start_stream(id, false)?;
        let answer = self.events(id, stream, body);
        // The stream ends whatever happened.
        self.context.end_stream(stream)?;
        answer
    }

    fn events(
        &self,
        id: RequestId,
        stream: StreamRef,
        body: &Bytes,
    ) -> Result<Response<Full<Bytes>>, Failure> {
        let mut body = body.to_vec();
        let request = Event::headers(Callback::RequestHeaders);
        if let Some(answer) = self.event(id, stream, request, None, &mut Vec::new())? {
            return Ok(answer);
        }
        if !body.is_empty() {
            let chunk = body.clone();
            let event = Event::body(Callback::RequestBody, &chunk, true);
            if let Some(answer) = self.event(id, stream, event, None, &mut body)? {
                return Ok(answer);
            }
        }
        let mut response = self.ask_upstream(id, &body)?;
        self.host.with(id, |message| message.status = response.status().as_u16());
        let event = Event::headers(Callback::ResponseHeaders);
        if let Some(answer) = self.event(id, stream, event, Some(&mut response), &mut Vec::new())? {
            return Ok(answer);
        }
        let chunk = std::mem::take(response.body_mut());
        let mut body = chunk.to_vec();
        let event = Event::body(Callback::ResponseBody, &chunk, true);
        self.event(id, stream, event, Some(&mut response), &mut body)?;
        response.headers_mut().remove("content-length");
        Ok(response.map(|_| Full::from(body)))
    }

    /// Tells the filter of an event and does what it asks. Returns the response that it made itself, if it did.
    fn event(
        &self,
        id: RequestId,
        stream: StreamRef,
        event: Event<'_>,
        mut response: Option<&mut Response<Bytes>>,
        body: &mut Vec<u8>,
    ) -> Result<Option<Response<Full<Bytes>>>, Failure> {
        let mut effects = Effects::default();
        let outcome = self.context.with_stream(stream, |vm| -> Result<_, Error> {
            if let Some(response) = &response
                && vm.wants_response_headers(stream.id, event.callback)
                && let Some(map) = vm.response_headers_mut(stream.id)
            {
                let fields = response.headers().iter();
                fields
                    .for_each(|(name, value)| map.push(name.as_str().as_bytes(), value.as_bytes()));
            }
            let outcome = vm.run(stream.id, event)?;
            vm.take_effects(stream.id, &mut effects);
            Ok(outcome)
        })?;
        let mut answer = None;
        for effect in effects.iter() {
            self.apply(
                id,
                effect.kind,
                effect.number,
                (effect.name, effect.value),
                &mut response,
                &mut answer,
            )?;
        }
        if let Output::Replace(bytes) | Output::Pass(bytes) = outcome.body {
            *body = bytes;
        }
        Ok(match outcome.action {
            Action::Continue => None,
            Action::Respond => answer,
            Action::Pause | Action::Close => Some(failed(StatusCode::GATEWAY_TIMEOUT)),
        })
    }

    fn apply(
        &self,
        id: RequestId,
        kind: EffectKind,
        number: i32,
        (name, value): (&[u8], &[u8]),
        response: &mut Option<&mut Response<Bytes>>,
        answer: &mut Option<Response<Full<Bytes>>>,
    ) -> Result<(), Failure> {
        let field = || -> Result<_, Failure> {
            Ok((http::HeaderName::from_bytes(name)?, http::HeaderValue::from_bytes(value)?))
        };
        let status = || -> Result<_, Failure> { Ok(StatusCode::from_u16(u16::try_from(number)?)?) };
        let of_response = response.as_mut().map(|response| response.headers_mut());
        match kind {
            EffectKind::SetRequestHeader | EffectKind::RemoveRequestHeader => {
                self.host.with(id, |m| m.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name)));
                if kind == EffectKind::SetRequestHeader {
                    self.host.with(id, |m| m.headers.push((name.to_vec(), value.to_vec())));
                }
            }
            EffectKind::AddRequestHeader => {
                self.host.with(id, |m| m.headers.push((name.to_vec(), value.to_vec())));
            }
            EffectKind::SetMethod => self.host.with(id, |m| m.method = value.to_vec()),
            EffectKind::SetPath => self.host.with(id, |m| m.path = value.to_vec()),
            EffectKind::SetResponseHeader => {
                let (name, value) = field()?;
                of_response.map(|headers| headers.insert(name, value));
            }
            EffectKind::AddResponseHeader => {
                let (name, value) = field()?;
                of_response.map(|headers| headers.append(name, value));
            }
            EffectKind::RemoveResponseHeader => {
                let (name, _) = field()?;
                of_response.map(|headers| headers.remove(name));
            }
            EffectKind::SetStatus => {
                let status = status()?;
                response.iter_mut().for_each(|response| *response.status_mut() = status);
            }
            EffectKind::LocalResponse => {
                let mut made = Response::new(Full::from(value.to_vec()));
                *made.status_mut() = status()?;
                *answer = Some(made);
            }
            EffectKind::LocalResponseHeader => {
                let (name, value) = field()?;
                answer.iter_mut().for_each(|made| {
                    made.headers_mut().append(name.clone(), value.clone());
                });
            }
        }
        Ok(())
    }

    /// Sends the request on, on a connection of its own.
    fn ask_upstream(&self, id: RequestId, body: &[u8]) -> Result<Response<Bytes>, Failure> {
        let upstream = Upstream::parse(self.upstream.to_string().as_bytes(), false);
        let upstream = upstream.ok_or("no upstream")?;
        let message = self.host.with(id, |message| message.clone());
        let pseudo = [
            (&b":method"[..], &message.method[..]),
            (b":authority", &message.authority),
            (b":path", &message.path),
        ];
        let fields = message.headers.iter().map(|(name, value)| (&name[..], &value[..]));
        let headers: Vec<_> = pseudo.into_iter().chain(fields).collect();
        let request = callout::Request::build(&upstream, &headers, body, &[], |_| ())
            .map_err(|malformed| malformed.0)?;
        let mut exchange = Exchange::new(&request).map_err(|failure| failure.to_string())?;
        let mut socket = TcpStream::connect(self.upstream)?;
        let (mut received, mut out, mut buffer) = (0, Vec::new(), [0; 16 * 1024]);
        let mut ended = false;
        loop {
            let step = exchange.advance(&buffer[..received], ended, &mut out);
            socket.write_all(&out)?;
            out.clear();
            match step {
                Step::Receive => {
                    received = socket.read(&mut buffer)?;
                    ended = received == 0;
                }
                Step::Done { .. } => break,
                Step::Failed(failure) => return Err(failure.to_string().into()),
            }
        }
        let received = exchange.into_response();
        let mut response = Response::builder();
        for (name, value) in received.headers.iter() {
            response = match name {
                b":status" => response.status(value),
                b"transfer-encoding" | b"connection" | b"keep-alive" => response,
                _ => response.header(name, value),
            };
        }
        Ok(response.body(received.body.into())?)
    }
}

fn failed(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

/// A blocking socket for hyper: it is always ready.
struct Socket(TcpStream);

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Task<'_>,
        mut to: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut buffer = [0; 16 * 1024];
        let most = to.remaining().min(buffer.len());
        let size = self.0.read(&mut buffer[..most])?;
        to.put_slice(&buffer[..size]);
        Poll::Ready(Ok(()))
    }
}

impl Write for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Task<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(self.0.write(bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Task<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.flush())
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Task<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.shutdown(std::net::Shutdown::Write))
    }
}

/// Runs a future whose sockets block: it waits for nothing else.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Task::from_waker(Waker::noop())) {
            return output;
        }
    }
}

/// Counts the time of guests, so that their limits hold.
pub(crate) fn start_ticks() {
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(std::time::Duration::from_millis(deadline::TICK_MS.into()));
            deadline::tick();
        }
    });
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, upstream, filter, rest @ ..] = &*arguments else {
        return Err("usage: hyper LISTEN UPSTREAM FILTER [CONFIGURATION]".into());
    };
    let listener = TcpListener::bind(listen)?;
    let code = Arc::new(Code::compile(&std::fs::read(filter)?)?);
    let configuration = rest.first().map_or("", String::as_str);
    start_ticks();
    serve(&listener, upstream.parse()?, code, configuration.as_bytes())
}
