//! Connections of clients: hyper speaks HTTP, the filters and the upstream are asked.

use std::io::Cursor;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, StatusCode};

use super::body::Filtered;
use super::log::Log;
use super::socket::{Socket, block_on};
use super::upstream::{Answer, Upstream, is_of_connection};
use super::worker::{Begun, Job, Ticket, Way, Worker};
use crate::play::local::is_bodiless;
use crate::play::request::Request;

/// What connections share.
pub struct Site {
    pub worker: Worker,
    pub upstream: Upstream,
    /// Each request begins as this one.
    pub pattern: Request,
    pub max_body: usize,
    pub log: Log,
}

/// Connections at once; more wait to be accepted.
const MOST: usize = 256;

/// How long one that waits is not looked at.
const LOOK: Duration = Duration::from_millis(10);

type Response = hyper::Response<Filtered>;

/// Takes connections for ever.
pub fn accept(listener: &TcpListener, site: &Arc<Site>) {
    let open = Arc::new(AtomicUsize::new(0));
    for socket in listener.incoming() {
        let Ok(socket) = socket else {
            // Files may have run out. One that the client gave up before it was accepted is none.
            std::thread::sleep(LOOK);
            continue;
        };
        while open.load(Ordering::Acquire) >= MOST {
            std::thread::sleep(LOOK);
        }
        open.fetch_add(1, Ordering::AcqRel);
        let (site, open) = (site.clone(), open.clone());
        std::thread::spawn(move || {
            // A client that breaks off, or speaks no HTTP, is no concern of others.
            let _ = serve(socket, &site);
            open.fetch_sub(1, Ordering::AcqRel);
        });
    }
}

fn serve(socket: TcpStream, site: &Site) -> Result<(), Box<dyn std::error::Error>> {
    let addresses = (socket.peer_addr()?, socket.local_addr()?);
    socket.set_nodelay(true)?;
    let service = service_fn(|request| answer(site, addresses, request));
    // Else hyper looks, while a request is served, whether the client has gone: that read would block.
    let mut builder = http1::Builder::new();
    block_on(builder.half_close(true).serve_connection(Socket(socket), service))?;
    Ok(())
}

/// Answers a request. An error closes the connection.
async fn answer(
    site: &Site,
    addresses: (SocketAddr, SocketAddr),
    request: hyper::Request<Incoming>,
) -> Result<Response, String> {
    let (head, body) = request.into_parts();
    if head.method == Method::CONNECT {
        return refuse(site, &head, StatusCode::METHOD_NOT_ALLOWED, "this is no tunnel".into());
    }
    let body = match Limited::new(body, site.max_body).collect().await {
        Ok(body) => body.to_bytes().to_vec(),
        Err(error) if error.is::<LengthLimitError>() => {
            let cause = format!("its body has more than {} bytes (--max-body)", site.max_body);
            return refuse(site, &head, StatusCode::PAYLOAD_TOO_LARGE, cause);
        }
        Err(error) => return Err(error.to_string()),
    };
    let request = Box::new(as_request(site, &head, addresses));
    let is_head = request.is_head;
    let Begun { number, way } = site.worker.ask(|reply| Job::Begin { request, body, reply })?;
    let mut ticket = Ticket::new(site.worker.clone(), number);
    let Answer { status, headers, body, from } = match way {
        Way::Forward { request, body } => site.upstream.answer(&request, body),
        Way::Respond(local) => Answer {
            status: local.status,
            headers: local.sent_headers(),
            body: Box::new(Cursor::new(local.body)),
            from: None,
        },
        Way::Close => {
            let cause = "a filter closed the connection";
            ticket.cut(cause.into());
            return Err(cause.into());
        }
    };
    let sent = ticket.respond(status, headers, from)?;
    let mut response = hyper::Response::new(if is_head || is_bodiless(sent.status) {
        // Filters are told of the end. What they would send has no place.
        Filtered::end(ticket)?
    } else {
        let length = sent.headers.get(b"content-length").map(String::from_utf8_lossy);
        let length = length.and_then(|text| text.parse().ok());
        Filtered::new(body, length, ticket)
    });
    *response.status_mut() = StatusCode::from_u16(sent.status).map_err(|e| e.to_string())?;
    for (name, value) in sent.headers.iter().filter(|(name, _)| !is_of_connection(name)) {
        let name = HeaderName::from_bytes(name).map_err(|error| error.to_string())?;
        let value = HeaderValue::from_bytes(value).map_err(|error| error.to_string())?;
        response.headers_mut().append(name, value);
    }
    Ok(response)
}

/// Answers a request that filters are not told of, and closes its connection.
fn refuse(
    site: &Site,
    head: &Parts,
    status: StatusCode,
    cause: String,
) -> Result<Response, String> {
    let path = head.uri.to_string();
    site.log
        .refused(head.method.as_str(), &path, status.as_u16(), &cause)
        .map_err(|fail| fail.to_string())?;
    let mut response = hyper::Response::new(Filtered::whole(cause + "\n"));
    *response.status_mut() = status;
    response.headers_mut().insert("connection", HeaderValue::from_static("close"));
    Ok(response)
}

/// A request as filters see it.
fn as_request(site: &Site, head: &Parts, (peer, own): (SocketAddr, SocketAddr)) -> Request {
    let mut request = site.pattern.clone();
    request.method = head.method.as_str().into();
    request.is_head = head.method == Method::HEAD;
    request.target = head.uri.path_and_query().map_or("/", |path| path.as_str()).into();
    let of_uri = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    let of_header = head.headers.get("host").map(HeaderValue::as_bytes);
    request.authority = of_uri.or(of_header).map(<[u8]>::to_vec);
    for (name, value) in head.headers.iter().filter(|(name, _)| *name != "host") {
        request.headers.add(name.as_str().as_bytes(), value.as_bytes());
    }
    for (name, value) in [
        ("remote_addr", peer.ip().to_string()),
        ("remote_port", peer.port().to_string()),
        ("server_addr", own.ip().to_string()),
        ("server_port", own.port().to_string()),
        ("server_protocol", format!("{:?}", head.version)),
    ] {
        request.variables.entry(name.into()).or_insert(value.into_bytes());
    }
    request
}
