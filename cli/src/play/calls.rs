//! The calls that filters make, and what answers them.

use std::collections::BTreeMap;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::headers::Headers;
use crate::core::callout::{Exchange, Failure, FailureKind, Response, Step, Target, Upstream};
use crate::core::grpc::{Code, Event, Opening, Status};
use crate::core::guest::Dispatched;
use crate::core::limits::CALL_MS;
use crate::core::redis;

/// A call as it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Call {
    pub filter: String,
    pub protocol: Protocol,
    /// The clock when it was made, in milliseconds after the start.
    pub at_ms: u64,
    /// The upstream as the filter named it.
    pub upstream: String,
    pub method: String,
    pub path: String,
    /// Header lines, Host among them.
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub timeout_ms: u32,
    /// The status that came back, or why none did.
    pub answer: String,
}

/// What a call speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Http,
    Grpc,
    Redis,
}

/// What a call is answered.
#[derive(Clone, Debug, Default)]
pub struct Canned {
    /// Only calls of this method.
    pub method: Option<String>,
    /// Only calls for this path.
    pub path: Option<String>,
    pub status: u16,
    pub headers: Headers,
    pub body: Vec<u8>,
    pub trailers: Headers,
    /// After so many milliseconds.
    pub after_ms: u64,
    /// In place of an answer.
    pub failure: Option<FailureKind>,
}

/// What is behind the name of an upstream.
#[derive(Clone, Debug)]
pub enum Source {
    /// A server that is really called.
    Real(Upstream),
    /// Answers in turn; the last one stays.
    Canned(Vec<Canned>),
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Upstreams {
    sources: BTreeMap<String, Source>,
    /// How many answers of each were given.
    given: BTreeMap<String, Vec<usize>>,
}

/// What comes of a call, and after how many milliseconds.
pub type Answer = (u64, Result<Response, Failure>);

impl Upstreams {
    /// Puts something behind a name.
    pub fn insert(&mut self, name: &str, source: Source) {
        self.given.remove(name);
        self.sources.insert(name.into(), source);
    }

    /// The names, each with where a host would connect to.
    pub fn registered(&self) -> Vec<(String, Upstream)> {
        let upstream = |name: &str, source: &Source| match source {
            Source::Real(upstream) => Some(upstream.clone()),
            // Nothing connects to it.
            Source::Canned(_) => Upstream::parse(name.as_bytes(), false)
                .or_else(|| Upstream::parse(b"canned.invalid", false)),
        };
        let all = self.sources.iter();
        all.filter_map(|(name, source)| Some((name.clone(), upstream(name, source)?))).collect()
    }

    /// Answers an HTTP call.
    pub fn answer(&mut self, dispatched: &Dispatched, call: &Call) -> Answer {
        self.answer_as(call, || real(dispatched))
    }

    /// Answers a gRPC call: what it is told, and after how many milliseconds.
    pub fn answer_grpc(&mut self, call: &Call) -> (u64, Event) {
        let real = || {
            let details =
                "proxy-wasm calls no gRPC server: put a file with its message in its place";
            Err(Failure::new(FailureKind::Connect, details))
        };
        let (after_ms, result) = self.answer_as(call, real);
        (after_ms, event(result))
    }

    /// Answers a Redis call: what the server says, as bytes of its protocol.
    pub fn answer_redis(&mut self, call: &Call) -> (u64, Result<Vec<u8>, Failure>) {
        let real = || {
            let details =
                "proxy-wasm calls no Redis server: put a file with its answer in its place";
            Err(Failure::new(FailureKind::Connect, details))
        };
        let (after_ms, result) = self.answer_as(call, real);
        (after_ms, result.map(|response| response.body))
    }

    fn answer_as(
        &mut self,
        call: &Call,
        real: impl FnOnce() -> Result<Response, Failure>,
    ) -> Answer {
        let limit = u64::from(call.timeout_ms);
        match self.sources.get(&call.upstream) {
            None => {
                let details = format!("nothing is behind {} here: name it", call.upstream);
                (0, Err(Failure::new(FailureKind::Connect, details)))
            }
            Some(Source::Real(_)) => (0, real()),
            Some(Source::Canned(all)) => {
                let Some(canned) = choose(&mut self.given, &call.upstream, all, call) else {
                    let details = format!("no answer is given for {} {}", call.method, call.path);
                    return (0, Err(Failure::new(FailureKind::Connect, details)));
                };
                if canned.after_ms > limit || canned.failure == Some(FailureKind::Timeout) {
                    return (limit, Err(Failure::new(FailureKind::Timeout, "")));
                }
                (canned.after_ms, canned.result())
            }
        }
    }
}

/// The next answer of those that are for such a call.
fn choose<'a>(
    given: &mut BTreeMap<String, Vec<usize>>,
    name: &str,
    all: &'a [Canned],
    call: &Call,
) -> Option<&'a Canned> {
    let is_for = |canned: &Canned| {
        canned.method.as_ref().is_none_or(|method| *method == call.method)
            && canned.path.as_ref().is_none_or(|path| *path == call.path)
    };
    let given = given.entry(name.into()).or_insert_with(|| vec![0; all.len()]);
    let fitting = || all.iter().enumerate().filter(|(_, canned)| is_for(canned));
    let unused = fitting().find(|(index, _)| given.get(*index) == Some(&0));
    let (index, chosen) = unused.or_else(|| fitting().next_back())?;
    if let Some(count) = given.get_mut(index) {
        *count += 1;
    }
    Some(chosen)
}

impl Canned {
    fn result(&self) -> Result<Response, Failure> {
        if let Some(kind) = self.failure {
            return Err(Failure::new(kind, "as the scenario says"));
        }
        let mut response = Response { body: self.body.clone(), ..Response::default() };
        response.headers.push(b":status", self.status.to_string().as_bytes());
        for (name, value) in self.headers.iter() {
            response.headers.push(name, value);
        }
        // Over HTTP/1.1 trailers come behind chunks, whose length is not known.
        if self.headers.get(b"content-length").is_none() && self.trailers.iter().next().is_none() {
            response.headers.push(b"content-length", self.body.len().to_string().as_bytes());
        }
        for (name, value) in self.trailers.iter() {
            response.trailers.push(name, value);
        }
        Ok(response)
    }
}

/// What a response means to a gRPC call: its body is the message, and the status in its trailers is OK when there is none.
fn event(result: Result<Response, Failure>) -> Event {
    let response = match result {
        Ok(response) => response,
        Err(failure) if failure.kind == FailureKind::Timeout => {
            return Event::Close(Status::new(Code::DeadlineExceeded, "the deadline passed"));
        }
        Err(failure) => return Event::Close(Status::of_failure(&failure)),
    };
    let status = [&response.trailers, &response.headers].into_iter().find_map(Status::of_trailers);
    let http = response.headers.get(b":status").unwrap_or_default();
    let http = std::str::from_utf8(http).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    match status {
        Some(status) if status.code != Code::Ok => Event::Close(status),
        None if http != 200 => {
            Event::Close(Status::new(Code::of_http(http), format!("HTTP status {http}")))
        }
        _ => Event::Message(response.body),
    }
}

/// The size of what goes before a message of gRPC.
const PREFIX: usize = 5;

impl Call {
    /// What a filter asked for by gRPC; `None` for a stream.
    pub fn of_grpc(filter: &str, opening: &Opening) -> Option<Self> {
        let head = opening.request.head(None)?;
        let message = opening.message.as_ref()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let lines = head.headers().iter();
        Some(Self {
            filter: filter.into(),
            protocol: Protocol::Grpc,
            at_ms: 0,
            upstream: opening.name.clone(),
            method: head.method().to_string(),
            path: head.uri().path().to_string(),
            headers: lines.map(|(n, v)| (n.to_string(), text(v.as_bytes()))).collect(),
            body: text(message.bytes.get(PREFIX..).unwrap_or_default()),
            timeout_ms: opening.timeout_ms.unwrap_or(CALL_MS),
            answer: String::new(),
        })
    }

    /// What a filter asked of Redis: the method is `REDIS`, the path the command, the body all of its words.
    pub fn of_redis(filter: &str, call: &redis::Call) -> Self {
        let words = words(&call.query.bytes);
        let (upstream, _) = redis::split(call.target.name.as_bytes());
        Self {
            filter: filter.into(),
            protocol: Protocol::Redis,
            at_ms: 0,
            upstream: String::from_utf8_lossy(upstream).into_owned(),
            method: "REDIS".into(),
            path: words.first().cloned().unwrap_or_default(),
            headers: Vec::new(),
            body: words.join(" "),
            timeout_ms: call.timeout_ms,
            answer: String::new(),
        }
    }

    /// What a filter asked for by HTTP.
    pub fn of(filter: &str, dispatched: &Dispatched) -> Self {
        let request = &dispatched.request;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let lines = request.headers().iter();
        Self {
            filter: filter.into(),
            protocol: Protocol::Http,
            at_ms: 0,
            upstream: dispatched.name.clone(),
            method: request.method().to_string(),
            path: request.path().to_string(),
            headers: lines.map(|(n, v)| (n.to_string(), text(v.as_bytes()))).collect(),
            body: text(request.body()),
            timeout_ms: dispatched.timeout_ms,
            answer: String::new(),
        }
    }
}

/// The words of queries as Redis reads them: `*1\r\n$4\r\nPING\r\n`.
fn words(query: &[u8]) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = query;
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let (line, behind) = (&rest[..end], &rest[end + 2..]);
        rest = behind;
        let length = line.strip_prefix(b"$").map(|digits| String::from_utf8_lossy(digits));
        let length = length.and_then(|digits| digits.parse::<usize>().ok());
        if let Some((word, behind)) = length.and_then(|length| rest.split_at_checked(length)) {
            words.push(String::from_utf8_lossy(word).into_owned());
            rest = behind.strip_prefix(b"\r\n").unwrap_or(behind);
        }
    }
    words
}

/// Makes a call, which takes as long as it takes.
fn real(dispatched: &Dispatched) -> Result<Response, Failure> {
    let deadline = Instant::now() + Duration::from_millis(dispatched.timeout_ms.into());
    if dispatched.upstream.tls {
        let details = "proxy-wasm calls no upstream by TLS: put a plain http:// one in its place";
        return Err(Failure::new(FailureKind::Tls, details));
    }
    match &dispatched.upstream.target {
        Target::Tcp(host, port) => {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let addresses = (host, *port).to_socket_addrs();
            let resolver = |error: std::io::Error| {
                Failure::new(FailureKind::Resolver, format!("{host}: {error}"))
            };
            let address = addresses.map_err(resolver)?.next();
            let address = address.ok_or_else(|| {
                Failure::new(FailureKind::Resolver, format!("{host}: no address"))
            })?;
            let socket = TcpStream::connect_timeout(&address, left(deadline)?).map_err(connect)?;
            exchange(dispatched, deadline, socket, |socket, left| {
                socket.set_read_timeout(Some(left))?;
                socket.set_write_timeout(Some(left))
            })
        }
        Target::Unix(path) => {
            let socket = UnixStream::connect(path).map_err(connect)?;
            exchange(dispatched, deadline, socket, |socket, left| {
                socket.set_read_timeout(Some(left))?;
                socket.set_write_timeout(Some(left))
            })
        }
    }
}

fn exchange<S: std::io::Read + std::io::Write>(
    dispatched: &Dispatched,
    deadline: Instant,
    mut socket: S,
    set_timeout: impl Fn(&S, Duration) -> std::io::Result<()>,
) -> Result<Response, Failure> {
    let mut exchange = Exchange::new(&dispatched.request)?;
    let (mut received, mut eof) = (vec![0; 0], false);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let mut out = Vec::new();
        let step = exchange.advance(&received, eof, &mut out);
        let closed = |error: std::io::Error| Failure {
            kind: match error.kind() {
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => {
                    FailureKind::Timeout
                }
                _ => FailureKind::Closed,
            },
            reached: exchange.reached(),
            details: error.to_string(),
        };
        match step {
            Step::Done { .. } => return Ok(exchange.into_response()),
            Step::Failed(failure) => return Err(failure),
            Step::Receive => {}
        }
        set_timeout(&socket, left(deadline)?).map_err(connect)?;
        socket.write_all(&out).map_err(&closed)?;
        let count = socket.read(&mut buffer).map_err(&closed)?;
        eof = count == 0;
        received = buffer[..count].to_vec();
    }
}

fn connect(error: std::io::Error) -> Failure {
    Failure::new(FailureKind::Connect, error.to_string())
}

fn left(deadline: Instant) -> Result<Duration, Failure> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(Failure::new(FailureKind::Timeout, "")) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn words_of_queries() {
        let query = b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n*1\r\n$4\r\nPING\r\n";
        assert_eq!(words(query), ["GET", "a\r\nb", "PING"]);
        assert!(words(b"").is_empty() && words(b"$99\r\nx\r\n").is_empty());
    }
}
