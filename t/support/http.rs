//! A small HTTP/1 client that hides nothing: header order, repeats and case, odd requests and broken answers.

use super::{Incoming, patience};
use std::io::{self, Error, Read as _, Write as _};
use std::net::TcpStream;

/// An answer as it was on the wire, its body taken out of the transfer encoding.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    /// The minor version: 0 or 1.
    pub version: u8,
    pub status: u16,
    pub reason: String,
    /// In order, with repeats, names as sent.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Response {
    /// The first value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.header_all(name).first().copied()
    }

    /// All values of a header, in order.
    pub(crate) fn header_all(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A request to be completed and sent. `Host`, `Connection` and `Content-Length` are added unless given.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    port: u16,
    method: String,
    target: String,
    version: &'static str,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
    chunked: bool,
}

impl Request {
    pub(super) fn new(port: u16, method: &str, target: &str) -> Request {
        Request {
            port,
            method: method.into(),
            target: target.into(),
            version: "HTTP/1.1",
            headers: Vec::new(),
            body: None,
            chunked: false,
        }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Request {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn http10(mut self) -> Request {
        self.version = "HTTP/1.0";
        self
    }

    pub(crate) fn body(mut self, body: impl AsRef<[u8]>) -> Request {
        self.body = Some(body.as_ref().into());
        self
    }

    /// The body in chunked encoding, a chunk for each piece.
    pub(crate) fn chunks(mut self, pieces: &[&str]) -> Request {
        let mut body: Vec<u8> = Vec::new();
        for piece in pieces {
            body.extend(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes());
        }
        body.extend(b"0\r\n\r\n");
        self.chunked = true;
        self.body(body)
    }

    /// Sends it on a connection of its own.
    pub(crate) fn send(self) -> Response {
        let line = format!("{} {}", self.method, self.target);
        self.try_send().unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// The same for a request that nginx may leave without a proper answer.
    pub(crate) fn try_send(mut self) -> io::Result<Response> {
        let mut connection = Connection::open(self.port)?;
        if !self.has("connection") && self.version == "HTTP/1.1" {
            self = self.header("Connection", "close");
        }
        let response = connection.try_request(&self)?;
        // nginx frees a request without a body before it closes, so what runs then has run when this returns. After a
        // body it lingers, and the request lives until it sees that the client has closed, too.
        if !connection.drain()?.is_empty() {
            return Err(Error::other("bytes after the answer"));
        }
        Ok(response)
    }

    fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(key, _)| key.eq_ignore_ascii_case(name))
    }

    fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} {}\r\n", self.method, self.target, self.version);
        if !self.has("host") {
            head += "Host: localhost\r\n";
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if self.chunked {
            head += "Transfer-Encoding: chunked\r\n";
        } else if let Some(body) = &self.body
            && !self.has("content-length")
        {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        head += "\r\n";
        let mut bytes = head.into_bytes();
        bytes.extend(self.body.iter().flatten());
        bytes
    }
}

/// One TCP connection to nginx.
pub(crate) struct Connection {
    stream: TcpStream,
    /// Bytes that arrived and are not used yet.
    buffer: Vec<u8>,
}

impl Connection {
    /// The other end of a connection: requests come in.
    pub(super) fn accepted(stream: TcpStream) -> io::Result<Connection> {
        stream.set_read_timeout(Some(patience()))?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, buffer: Vec::new() })
    }

    /// Reads a request; `None` when the client has closed the connection.
    pub(super) fn incoming(&mut self) -> io::Result<Option<Incoming>> {
        let mut incoming = loop {
            let mut headers = [httparse::EMPTY_HEADER; 256];
            let mut parsed = httparse::Request::new(&mut headers);
            let state = parsed.parse(&self.buffer).map_err(Error::other)?;
            if let httparse::Status::Complete(length) = state {
                let method = parsed.method.expect("parsed").to_string();
                let target = parsed.path.expect("parsed").to_string();
                let headers = owned(parsed.headers);
                self.buffer.drain(..length);
                break Incoming { method, target, headers, body: Vec::new() };
            }
            if !self.fill()? {
                return Ok(None);
            }
        };
        if incoming.header("transfer-encoding").is_some() {
            incoming.body = self.chunks()?;
            self.trailers()?;
        } else if let Some(length) = incoming.header("content-length") {
            let length = length.parse().map_err(Error::other)?;
            incoming.body = self.take(length)?;
        }
        Ok(Some(incoming))
    }

    pub(super) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    pub(super) fn open(port: u16) -> io::Result<Connection> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(patience()))?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, buffer: Vec::new() })
    }

    /// Sends a request and reads its answer; the connection stays open unless one of both sides closes it.
    pub(crate) fn request(&mut self, request: &Request) -> Response {
        self.try_request(request).unwrap_or_else(|error| panic!("{}: {error}", request.target))
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("nginx reads");
    }

    /// Reads one answer to a request with a method other than HEAD.
    pub(crate) fn response(&mut self) -> Response {
        self.try_response(false).expect("an answer")
    }

    /// Reads the next answer, which may be an interim one; `None` when nginx has closed the connection.
    pub(crate) fn answer_to(&mut self, method: &str) -> Option<Response> {
        if self.buffer.is_empty() && !self.fill().expect("bytes") {
            return None;
        }
        let answer = self.head().and_then(|head| self.framed(head, method == "HEAD"));
        Some(answer.unwrap_or_else(|error| {
            panic!("no answer: {error}, before {}", self.buffer.escape_ascii())
        }))
    }

    /// Waits for some bytes and returns all that is there; empty when nginx has closed the connection.
    pub(crate) fn read_some(&mut self) -> Vec<u8> {
        if self.buffer.is_empty() {
            self.fill().expect("bytes");
        }
        std::mem::take(&mut self.buffer)
    }

    /// Reads until nginx closes the connection.
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        self.drain().expect("an end")
    }

    /// Sends a request, whose answer [`Connection::finish`] reads.
    pub(crate) fn begin(&mut self, request: &Request) {
        // That writing failed is no matter when an answer came: nginx may refuse a long body before it has read it.
        let _ = self.stream.write_all(&request.bytes());
    }

    /// Reads the answer to a request that was sent; an error when there is no whole one.
    pub(crate) fn finish(&mut self, request: &Request) -> io::Result<Response> {
        self.try_response(request.method == "HEAD")
    }

    fn try_request(&mut self, request: &Request) -> io::Result<Response> {
        self.begin(request);
        self.finish(request)
    }

    fn try_response(&mut self, head_only: bool) -> io::Result<Response> {
        let mut response = self.head()?;
        while (100..200).contains(&response.status) {
            response = self.head()?;
        }
        self.framed(response, head_only)
    }

    /// An answer with its body.
    fn framed(&mut self, mut response: Response, head_only: bool) -> io::Result<Response> {
        let chunked = response
            .header("transfer-encoding")
            .is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
        if head_only || matches!(response.status, 100..=199 | 204 | 304) {
            return Ok(response);
        }
        if chunked {
            response.body = self.chunks()?;
            response.trailers = self.trailers()?;
        } else if let Some(length) = response.header("content-length") {
            let length = length.parse().map_err(Error::other)?;
            response.body = self.take(length)?;
        } else {
            response.body = self.drain()?;
        }
        Ok(response)
    }

    /// Status line and headers.
    fn head(&mut self) -> io::Result<Response> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; 256];
            let mut parsed = httparse::Response::new(&mut headers);
            let state = parsed.parse(&self.buffer).map_err(Error::other)?;
            if let httparse::Status::Complete(length) = state {
                let response = Response {
                    version: parsed.version.expect("parsed"),
                    status: parsed.code.expect("parsed"),
                    reason: parsed.reason.expect("parsed").into(),
                    headers: owned(parsed.headers),
                    body: Vec::new(),
                    trailers: Vec::new(),
                };
                self.buffer.drain(..length);
                return Ok(response);
            }
            self.need()?;
        }
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            match httparse::parse_chunk_size(&self.buffer) {
                Ok(httparse::Status::Complete((line, size))) => {
                    self.buffer.drain(..line);
                    if size == 0 {
                        return Ok(body);
                    }
                    let size = usize::try_from(size).map_err(Error::other)?;
                    body.extend(self.take(size)?);
                    if self.take(2)? != b"\r\n" {
                        return Err(Error::other("a chunk that does not end where it should"));
                    }
                }
                Ok(httparse::Status::Partial) => self.need()?,
                Err(_) => return Err(Error::other("a chunk without a size")),
            }
        }
    }

    fn trailers(&mut self) -> io::Result<Vec<(String, String)>> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let state =
                httparse::parse_headers(&self.buffer, &mut headers).map_err(Error::other)?;
            if let httparse::Status::Complete((length, headers)) = state {
                let trailers = owned(headers);
                self.buffer.drain(..length);
                return Ok(trailers);
            }
            self.need()?;
        }
    }

    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.need()?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    fn drain(&mut self) -> io::Result<Vec<u8>> {
        while self.fill()? {}
        Ok(std::mem::take(&mut self.buffer))
    }

    fn need(&mut self) -> io::Result<()> {
        if self.fill()? { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Reads what has come; false at the end of the stream.
    fn fill(&mut self) -> io::Result<bool> {
        let mut bytes = [0; 16 * 1024];
        let count = self.stream.read(&mut bytes)?;
        self.buffer.extend(&bytes[..count]);
        Ok(count > 0)
    }
}

fn owned(headers: &[httparse::Header<'_>]) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|header| (header.name.into(), String::from_utf8_lossy(header.value).into_owned()))
        .collect()
}
