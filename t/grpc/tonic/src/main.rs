//! A gRPC server on tonic for t/grpc_tonic.rs: the calls of peer.py but `gzip` and `never`, which say what they do, at a socket.
//!
//! `peer server PATH [KEY CERTIFICATE [CLIENTS]]`, as serving.py.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::io::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt as _, iter, once};
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::{KeyAndValueRef, MetadataMap};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};
use tower_service::Service;

type Message = Vec<u8>;
type Answers = Pin<Box<dyn Stream<Item = Result<Message, Status>> + Send>>;
type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Messages are plain bytes.
#[derive(Clone, Copy, Default)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Message;
    type Decode = Message;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Message;
    type Error = Status;

    fn encode(&mut self, item: Message, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Message;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Message>, Status> {
        let mut message = vec![0; from.remaining()];
        from.copy_to_slice(&mut message);
        Ok(Some(message))
    }
}

/// What calls know of each other.
struct Shared {
    cancelled: AtomicUsize,
    /// How many calls of `wait` there are.
    waiting: watch::Sender<usize>,
    released: watch::Sender<bool>,
}

#[derive(Clone)]
struct Peer(Arc<Shared>);

impl NamedService for Peer {
    const NAME: &'static str = "t.Peer";
}

impl Service<http::Request<Body>> for Peer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Later<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let shared = self.0.clone();
        Box::pin(async move {
            // On the wire a call is a stream of one message each way.
            let mut grpc = Grpc::new(Bytes).apply_max_message_size_config(Some(usize::MAX), None);
            Ok(grpc.streaming(Method(method, shared), request).await)
        })
    }
}

struct Method(String, Arc<Shared>);

impl StreamingService<Message> for Method {
    type Response = Message;
    type ResponseStream = Answers;
    type Future = Later<Result<Response<Answers>, Status>>;

    fn call(&mut self, request: Request<Streaming<Message>>) -> Self::Future {
        let (method, shared) = (self.0.clone(), self.1.clone());
        Box::pin(answer(method, shared, request))
    }
}

fn one(message: Message) -> Response<Answers> {
    Response::new(Box::pin(once(Ok(message))))
}

async fn answer(
    method: String,
    shared: Arc<Shared>,
    request: Request<Streaming<Message>>,
) -> Result<Response<Answers>, Status> {
    let (metadata, _, mut messages) = request.into_parts();
    if method == "chat" {
        let answers = messages.map(|message| Ok([b"re ", &*message?].concat()));
        return Ok(Response::new(Box::pin(answers)));
    }
    if method == "sum" {
        let (mut count, mut bytes) = (0, 0);
        while let Some(message) = messages.message().await? {
            (count, bytes) = (count + 1, bytes + message.len());
        }
        return Ok(one(format!("{count} {bytes}").into_bytes()));
    }
    let message = messages.message().await?.unwrap_or_default();
    Ok(match method.as_str() {
        "echo" => {
            let mut response = one([b"echo ", &*message].concat());
            response.metadata_mut().insert("x-initial", "1".parse().expect("a value"));
            response
        }
        "fail" => return Err(Status::not_found("not here")),
        "large" => one(message),
        "stream" => {
            let answers = (0..3).map(move |i| Ok([&*message, format!(" {i}").as_bytes()].concat()));
            Response::new(Box::pin(iter(answers.collect::<Vec<_>>())))
        }
        "meta" => one(shown(&metadata).into_bytes()),
        "slow" => {
            let mut guard = Guard(Some(shared));
            tokio::time::sleep(Duration::from_secs(10)).await;
            guard.0 = None;
            one(b"late".to_vec())
        }
        "cancelled" => one(shared.cancelled.load(Ordering::Relaxed).to_string().into_bytes()),
        "wait" => {
            shared.waiting.send_modify(|count| *count += 1);
            let _ = shared.released.subscribe().wait_for(|released| *released).await;
            one(message)
        }
        "release" => {
            let wanted = String::from_utf8_lossy(&message).parse().unwrap_or(0);
            let _ = shared.waiting.subscribe().wait_for(|count| *count >= wanted).await;
            shared.released.send_replace(true);
            one(b"released".to_vec())
        }
        _ => return Err(Status::unimplemented("no such method")),
    })
}

/// Counts calls that end before they are answered.
struct Guard(Option<Arc<Shared>>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            shared.cancelled.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The metadata whose names begin with k, in order.
fn shown(metadata: &MetadataMap) -> String {
    let pairs = metadata.iter().map(|pair| match pair {
        KeyAndValueRef::Ascii(name, value) => (name.to_string(), value.as_encoded_bytes().to_vec()),
        KeyAndValueRef::Binary(name, value) => {
            (name.to_string(), value.to_bytes().expect("base64").to_vec())
        }
    });
    let wanted = pairs.filter(|(name, _)| name.starts_with('k'));
    let each = wanted.map(|(name, value)| format!("{name}={}", value.escape_ascii()));
    each.collect::<Vec<_>>().join(" ")
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [command, path, files @ ..] = &*arguments else { panic!("no socket") };
    assert_eq!(command, "server");
    // More than hyper's 200, so that a thousand calls fit on one connection.
    let mut server = Server::builder().max_concurrent_streams(2000);
    if let [key, certificate, clients @ ..] = files {
        let read = |path: &String| std::fs::read(path).expect("a file");
        let mut tls =
            ServerTlsConfig::new().identity(Identity::from_pem(read(certificate), read(key)));
        if let [clients] = clients {
            tls = tls.client_ca_root(Certificate::from_pem(read(clients)));
        }
        server = server.tls_config(tls).expect("TLS");
    }
    let listener = UnixListener::bind(path).expect("a socket");
    let shared = Shared {
        cancelled: AtomicUsize::new(0),
        waiting: watch::Sender::new(0),
        released: watch::Sender::new(false),
    };
    let served = server
        .add_service(Peer(Arc::new(shared)))
        .serve_with_incoming(UnixListenerStream::new(listener));
    let mut out = std::io::stdout();
    writeln!(out, "ready 0").and_then(|()| out.flush()).expect("stdout");
    let mut input = tokio::io::stdin();
    let mut buffer = [0];
    tokio::select! {
        result = served => result.expect("a server"),
        _ = input.read(&mut buffer) => ready(()).await,
    }
}
