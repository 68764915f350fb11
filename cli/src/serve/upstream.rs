//! What answers the requests that filters let through.

use std::io::{Cursor, Read};
use std::net::ToSocketAddrs as _;
use std::time::Duration;

use ureq::http::uri::{Authority, Scheme};
use ureq::http::{self, Method, Uri};
use ureq::tls::TlsConfig;
use ureq::{Agent, Body, Error, SendBody};

use super::ServeArgs;
use crate::fail::Fail;
use crate::oci;
use crate::play::headers::Headers;
use crate::play::local::Local;
use crate::play::request::Request;
use crate::text;

/// See the module.
pub enum Upstream {
    Real { agent: Agent, scheme: Scheme, authority: Authority, rewrite_host: bool },
    Canned { status: u16, headers: Headers, body: Vec<u8> },
}

/// A response.
pub struct Answer {
    pub status: u16,
    pub headers: Headers,
    pub body: Box<dyn Read + Send>,
    /// The address that it comes from.
    pub from: Option<String>,
}

/// How long an upstream may take to be connected to, and then to begin its response: nginx's defaults.
const TIMEOUT: Duration = Duration::from_secs(60);

impl Upstream {
    /// As the command line says.
    pub fn new(args: &ServeArgs) -> Result<Self, Fail> {
        if let Some(text) = &args.respond {
            let (status, mut headers, body) = text::response(&text::or_file(text)?)
                .map_err(|cause| Fail::input(format!("--respond: {cause}")))?;
            if headers.get(b"content-length").is_none() {
                headers.add(b"Content-Length", body.len().to_string().as_bytes());
            }
            if !(200..600).contains(&status) {
                return Err(Fail::input(format!(
                    "--respond: its status {status} is not from 200 to 599"
                )));
            }
            return Ok(Self::Canned { status, headers, body });
        }
        let url = args.upstream.as_deref().unwrap_or_default();
        let wrong = |cause: &str| Fail::input(format!("--upstream {url}: {cause}"));
        let no_url = || wrong("it is neither http://HOST:PORT nor https://HOST");
        let parts = url.parse::<Uri>().map_err(|_| no_url())?.into_parts();
        let scheme = parts.scheme.filter(|s| *s == Scheme::HTTP || *s == Scheme::HTTPS);
        let (scheme, authority) = scheme.zip(parts.authority).ok_or_else(no_url)?;
        if parts.path_and_query.is_some_and(|path| path != "/") {
            return Err(wrong("requests keep their own paths, so it must have none"));
        }
        let mut tls = TlsConfig::builder();
        if let Some(roots) = oci::client::roots(None)? {
            tls = tls.root_certs(roots);
        }
        let config = Agent::config_builder()
            .tls_config(tls.build())
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .allow_non_standard_methods(true)
            .proxy(None)
            .user_agent("")
            .accept("")
            .timeout_connect(Some(TIMEOUT))
            .timeout_recv_response(Some(TIMEOUT))
            .build();
        let rewrite_host = args.rewrite_host;
        Ok(Self::Real { agent: config.into(), scheme, authority, rewrite_host })
    }

    /// Answers a request. What fails is answered by a page, as nginx does.
    pub fn answer(&self, request: &Request, body: Vec<u8>) -> Answer {
        match self {
            Self::Canned { status, headers, body } => Answer {
                status: *status,
                headers: headers.clone(),
                body: Box::new(Cursor::new(body.clone())),
                from: Some("127.0.0.1:80".into()),
            },
            Self::Real { .. } => self.ask(request, body).unwrap_or_else(|(status, cause)| {
                eprintln!("proxy-wasm: the upstream: {cause}");
                let page = Local::page(status);
                Answer {
                    status,
                    headers: page.sent_headers(),
                    body: Box::new(Cursor::new(page.body)),
                    from: None,
                }
            }),
        }
    }

    fn ask(&self, request: &Request, body: Vec<u8>) -> Result<Answer, (u16, String)> {
        let Self::Real { agent, scheme, authority, rewrite_host } = self else {
            return Err((502, "there is none".into()));
        };
        let uri = Uri::builder()
            .scheme(scheme.clone())
            .authority(authority.clone())
            .path_and_query(request.path_now())
            .build()
            .map_err(|error| (502, error.to_string()))?;
        let mut asked = http::Request::builder().method(&*request.method).uri(uri.clone());
        if let Some(host) = request.authority.as_ref().filter(|_| !rewrite_host) {
            asked = asked.header("host", host.as_slice());
        }
        let is_length = |name: &[u8]| name.eq_ignore_ascii_case(b"content-length");
        let has_body = !body.is_empty() || request.headers.iter().any(|(name, _)| is_length(name));
        for (name, value) in request.headers.iter() {
            let is_done = is_of_connection(name) || is_length(name) || is_expect(name);
            if !is_done {
                asked = asked.header(name, value);
            }
        }
        if has_body {
            asked = asked.header("content-length", body.len());
        }
        let response = asked.body(()).map_err(Error::from).and_then(|asked| {
            if has_body { send(agent, &uri, &asked, body) } else { agent.run(asked) }
        });
        let response = response.map_err(|error| {
            let status = if matches!(error, Error::Timeout(_)) { 504 } else { 502 };
            (status, error.to_string())
        })?;
        let (head, body) = response.into_parts();
        let headers = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        Ok(Answer {
            status: head.status.as_u16(),
            headers: headers.filter(|(name, _)| !is_of_connection(name.as_bytes())).collect(),
            body: Box::new(body.into_with_config().limit(u64::MAX).reader()),
            from: Some(address(scheme, authority)),
        })
    }
}

/// Sends a request with a body. The client has to be told where a body is unusual.
fn send(
    agent: &Agent,
    uri: &Uri,
    asked: &http::Request<()>,
    body: Vec<u8>,
) -> Result<http::Response<Body>, Error> {
    let mut forced = match *asked.method() {
        Method::GET => agent.get(uri),
        Method::HEAD => agent.head(uri),
        Method::DELETE => agent.delete(uri),
        Method::OPTIONS => agent.options(uri),
        Method::TRACE => agent.trace(uri),
        _ => {
            let mut request = http::Request::new(SendBody::from_owned_reader(Cursor::new(body)));
            request.method_mut().clone_from(asked.method());
            request.uri_mut().clone_from(uri);
            request.headers_mut().clone_from(asked.headers());
            return agent.run(request);
        }
    };
    for (name, value) in asked.headers() {
        forced = forced.header(name, value);
    }
    forced.force_send_body().send(SendBody::from_owned_reader(Cursor::new(body)))
}

/// The address of the upstream; its name, where that is not known.
fn address(scheme: &Scheme, authority: &Authority) -> String {
    let port = authority.port_u16().unwrap_or(if *scheme == Scheme::HTTPS { 443 } else { 80 });
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let found = (host, port).to_socket_addrs().ok().and_then(|mut all| all.next());
    found.map_or_else(|| format!("{host}:{port}"), |address| address.to_string())
}

/// hyper has told the client to send its body.
fn is_expect(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"expect")
}

/// Whether a header is of one connection: it is not handed on to the next one.
pub fn is_of_connection(name: &[u8]) -> bool {
    const NAMES: [&str; 7] = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    NAMES.iter().any(|of| name.eq_ignore_ascii_case(of.as_bytes()))
}
