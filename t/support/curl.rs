//! curl, for what the client of `http.rs` does not speak: HTTP/2, and bodies in files.

use super::Running;
use std::fs;
use std::process::{Command, Stdio};

/// A request to be completed and sent by curl.
pub(crate) struct Curl<'a> {
    nginx: &'a Running,
    arguments: Vec<String>,
    http2: bool,
    discard: bool,
    /// The answer must be incomplete.
    cut: bool,
    stdin: Option<String>,
}

/// What curl got.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    /// `HTTP/1.1`, `HTTP/2`.
    pub protocol: String,
    /// In order, with repeats; in HTTP/2 trailers are among them.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Bytes of the body as it came, also when they were thrown away.
    pub received: u64,
}

impl Answer {
    /// The first value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl<'a> Curl<'a> {
    /// A request over HTTP/1.1.
    pub(crate) fn new(nginx: &'a Running) -> Curl<'a> {
        Curl { nginx, arguments: Vec::new(), http2: false, discard: false, cut: false, stdin: None }
    }

    /// A request over HTTP/2 without TLS; for servers made by [`super::Nginx::http2`].
    pub(crate) fn http2(nginx: &'a Running) -> Curl<'a> {
        let curl = Curl { http2: true, ..Curl::new(nginx) };
        let socket = nginx.path("h2.sock");
        curl.arguments(&["--http2-prior-knowledge", "--unix-socket", &socket])
    }

    /// A request over HTTP/2 with TLS, for [`Curl::send`]; the certificate is not verified.
    pub(crate) fn tls(nginx: &'a Running) -> Curl<'a> {
        Curl { http2: true, ..Curl::new(nginx) }.arguments(&["-k", "--http2"])
    }

    /// More of what curl takes on its command line.
    pub(crate) fn arguments(mut self, arguments: &[&str]) -> Curl<'a> {
        self.arguments.extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// Sends a file of nginx's directory with its length.
    pub(crate) fn upload(self, name: &str) -> Curl<'a> {
        let path = self.nginx.path(name);
        self.arguments(&["-H", "Expect:", "-T", &path])
    }

    /// Sends a file of nginx's directory without saying its length before.
    pub(crate) fn stream(mut self, name: &str) -> Curl<'a> {
        self.stdin = Some(self.nginx.path(name));
        self.arguments(&["-H", "Expect:", "-T", "-"])
    }

    /// Throws the body of the answer away.
    pub(crate) fn discard(mut self) -> Curl<'a> {
        self.discard = true;
        self
    }

    /// Requests a path.
    pub(crate) fn get(self, path: &str) -> Answer {
        let url = self.nginx.url(path);
        self.send(&url)
    }

    /// Requests a path whose answer is incomplete. Returns what came of its body.
    pub(crate) fn get_cut(self, path: &str) -> Vec<u8> {
        let url = self.nginx.url(path);
        self.send_cut(&url)
    }

    /// Requests a URL whose answer is incomplete. Returns what came of its body.
    pub(crate) fn send_cut(mut self, url: &str) -> Vec<u8> {
        self.cut = true;
        self.send(url).body
    }

    /// Requests a URL.
    pub(crate) fn send(self, url: &str) -> Answer {
        let dir = tempfile::tempdir().expect("a directory");
        let (head, body) = (dir.path().join("head"), dir.path().join("body"));
        let mut command = match &self.stdin {
            // From a pipe, whose length curl cannot know.
            Some(path) => {
                let mut cat =
                    Command::new("cat").arg(path).stdout(Stdio::piped()).spawn().expect("cat runs");
                let mut command = Command::new("curl");
                command.stdin(cat.stdout.take().expect("a pipe"));
                std::thread::spawn(move || cat.wait());
                command
            }
            None => Command::new("curl"),
        };
        let seconds = super::patience().as_secs().to_string();
        // A transfer may take its time, but not stand still.
        let output = command
            .args(["-sS", "--speed-limit", "1", "--speed-time", &seconds])
            .args(["-w", "%{http_version} %{size_download}", "-D"])
            .arg(&head)
            .arg("-o")
            .arg(if self.discard { "/dev/null".as_ref() } else { body.as_path() })
            .args(&self.arguments)
            .arg(url)
            .output()
            .expect("curl runs: ./build.sh test installs it");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.success(), !self.cut, "curl {:?} {url}: {said}", self.arguments);
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let (version, received) = told.split_once(' ').expect("what -w asks for");
        assert!(self.cut || (version == "2") == self.http2, "{url}: HTTP/{version}");
        let head = fs::read_to_string(head).unwrap_or_default();
        let received = received.parse().expect("a number");
        parse(&head, fs::read(body).unwrap_or_default(), received)
    }
}

/// The last head counts: those of 1xx come before it.
fn parse(head: &str, body: Vec<u8>, received: u64) -> Answer {
    let mut answer =
        Answer { status: 0, protocol: String::new(), headers: Vec::new(), body, received };
    for line in head.lines() {
        if let Some((protocol, rest)) = line.split_once(' ')
            && protocol.starts_with("HTTP/")
        {
            let status = rest.get(..3).and_then(|digits| digits.parse().ok());
            answer.status = status.expect("a status");
            answer.protocol = protocol.into();
            answer.headers.clear();
        } else if let Some((name, value)) = line.split_once(':') {
            answer.headers.push((name.into(), value.trim().into()));
        }
    }
    answer
}
