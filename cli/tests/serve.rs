//! `proxy-wasm serve`: over real sockets.

use super::command::{command, file, guest, proxy_wasm, temporary};
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

const ADD: &str = "examples/add-header/build/release.wasm";
const AUTH: &str = "examples/auth/build/release.wasm";

/// The command while it serves. Its events are read as JSON.
struct Serving {
    child: Child,
    address: String,
    events: Receiver<Value>,
}

impl Serving {
    fn start(args: &[&str]) -> Self {
        let mut all = vec!["serve", "--json", "--listen", "127.0.0.1:0"];
        all.extend(args);
        let mut command = command(&super::command::root(), &all);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the command runs");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let (sender, events) = channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let event: Value = serde_json::from_str(&line).expect("JSON");
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        let mut serving = Self { child, address: String::new(), events };
        let url = serving.event("listening")["url"].as_str().expect("a text").to_owned();
        serving.address = url.strip_prefix("http://").expect("a URL").into();
        serving
    }

    /// The next event of that kind; those before it are dropped.
    fn event(&self, kind: &str) -> Value {
        loop {
            let event = self.events.recv_timeout(PATIENCE);
            let event = event.unwrap_or_else(|error| panic!("no event {kind}: {error}"));
            if event["event"] == kind {
                return event;
            }
        }
    }

    fn connect(&self) -> TcpStream {
        connect(&self.address)
    }

    /// Sends a request with `Connection: close`, and returns head and body of what comes.
    fn ask(&self, head: &str, body: &str) -> (String, String) {
        Self::ask_at(&self.address, head, body)
    }

    fn ask_at(address: &str, head: &str, body: &str) -> (String, String) {
        let mut socket = connect(address);
        let request = format!("{head}\r\nHost: a.test\r\nConnection: close\r\n\r\n{body}");
        socket.write_all(request.as_bytes()).expect("a server");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        (head.to_lowercase(), body.into())
    }

    fn get(&self, path: &str) -> (String, String) {
        self.ask(&format!("GET {path} HTTP/1.1"), "")
    }
}

fn connect(address: &str) -> TcpStream {
    let socket = TcpStream::connect(address).expect("a connection");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    socket
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server that answers each connection's one request by `answer`, which is given the socket and the request.
fn upstream(
    answer: impl Fn(&mut TcpStream, &str) + Send + Sync + 'static,
) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (sender, requests): (Sender<String>, _) = channel();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.expect("a connection");
            let request = request(&mut socket);
            let _ = sender.send(request.clone());
            answer(&mut socket, &request);
        }
    });
    (url, requests)
}

/// A request with the body that its Content-Length announces.
fn request(socket: &mut TcpStream) -> String {
    let (mut got, mut byte) = (Vec::new(), [0]);
    while !got.ends_with(b"\r\n\r\n") && socket.read(&mut byte).expect("a request") == 1 {
        got.push(byte[0]);
    }
    let head = String::from_utf8(got).expect("UTF-8").to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a number"))];
    socket.read_exact(&mut body).expect("a body");
    head + &String::from_utf8(body).expect("UTF-8")
}

#[test]
fn a_chain_in_front_of_an_upstream() {
    let (url, requests) = upstream(|socket, _| {
        let body = "the secret word";
        let answer = format!(
            "HTTP/1.1 200 OK\r\nX-Up: 1\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(answer.as_bytes()).expect("a client");
    });
    let (guard, add) = (file("examples/word-guard/build/release.wasm"), file(ADD));
    let serving = Serving::start(&[
        &guard,
        &add,
        "-c",
        "secret",
        "-c",
        "both",
        "--root-id",
        "word_guard",
        "--root-id",
        "add_header",
        "--upstream",
        &url,
    ]);
    let (head, body) =
        serving.ask("POST /a?b=c HTTP/1.1\r\nContent-Length: 7\r\nTE: trailers", "an open");
    assert!(head.starts_with("http/1.1 200 ok\r\n"), "{head}");
    for line in ["hello: both", "x-up: 1", "transfer-encoding: chunked"] {
        assert!(head.lines().any(|l| l == line), "{line}: {head}");
    }
    assert!(body.contains("the ****** word"), "{body}");
    let got = requests.recv_timeout(PATIENCE).expect("a request");
    assert!(
        got.starts_with("post /a?b=c http/1.1\r\n") && got.ends_with("\r\n\r\nan open"),
        "{got}"
    );
    assert!(got.contains("\r\nhost: a.test\r\n") && got.contains("x-word-guard: passed"), "{got}");
    assert!(!got.contains("\r\nte:"), "{got}");

    let event = serving.event("request");
    assert_eq!((&event["method"], &event["path"]), (&"POST".into(), &"/a?b=c".into()));
    assert_eq!(
        (&event["status"], &event["bytes"], &event["cut"]),
        (&200.into(), &15.into(), &Value::Null)
    );
    let steps = event["steps"].to_string();
    assert!(steps.contains("add response header hello: both"), "{steps}");
    assert!(steps.contains("proxy_on_log"), "{steps}");

    // A request that the guard refuses reaches no upstream.
    let (head, body) = serving.ask("POST / HTTP/1.1\r\nContent-Length: 8", "a secret");
    assert!(
        head.starts_with("http/1.1 403") && body.contains("not with that word"),
        "{head} {body}"
    );
    assert_eq!(serving.event("request")["answered_by_filter"], true);
    assert!(requests.try_recv().is_err());
}

#[test]
fn bodies_stream() {
    let (go_on, wait) = channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let (url, _requests) = upstream(move |socket, _| {
        socket
            .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
            .expect("a client");
        wait.lock().expect("a lock").recv_timeout(PATIENCE).expect("the first piece came through");
        socket.write_all(b"4\r\nlast\r\n0\r\n\r\n").expect("a client");
    });
    let serving = Serving::start(&[&file(ADD), "--root-id", "add_header", "--upstream", &url]);
    let mut socket = serving.connect();
    socket.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("a server");
    let (mut got, mut buffer) = (String::new(), [0; 1024]);
    while !got.contains("first") {
        let size = socket.read(&mut buffer).expect("the first piece");
        assert!(size > 0, "{got}");
        got += std::str::from_utf8(&buffer[..size]).expect("UTF-8");
    }
    assert!(!got.contains("last"));
    // Meanwhile others are served.
    let mut other = serving.connect();
    other.write_all(b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n").expect("a server");
    assert!(other.read(&mut buffer).expect("an answer") > 0);
    assert_eq!(serving.event("refused")["status"], 405);
    go_on.send(()).expect("the upstream");
    socket.read_to_string(&mut got).expect("the rest");
    assert!(got.ends_with("4\r\nlast\r\n0\r\n\r\n"), "{got}");
    assert_eq!(serving.event("request")["bytes"], 9);
}

#[test]
fn one_connection_serves_requests_with_and_without_bodies() {
    let serving = Serving::start(&[&file(ADD), "--root-id", "add_header", "--respond", "hello"]);
    let mut socket = serving.connect();
    let ask = "HEAD /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    socket.write_all(ask.as_bytes()).expect("a server");
    let mut answers = String::new();
    socket.read_to_string(&mut answers).expect("answers");
    assert_eq!(answers.matches("content-length: 5").count(), 2, "{answers}");
    assert_eq!(answers.matches("hello: world!").count(), 2, "{answers}");
    assert!(answers.ends_with("\r\n\r\nhello"), "{answers}");
    for (path, bytes) in [("/a", 0), ("/b", 5)] {
        let event = serving.event("request");
        assert_eq!((&event["path"], &event["bytes"]), (&path.into(), &bytes.into()), "{event}");
        assert_eq!(event["cut"], Value::Null);
    }

    let (_folder, answer) = temporary("answer", "HTTP/1.1 204 No Content\r\nX-Up: 1\r\n\r\n");
    let add = file(ADD);
    let respond = format!("@{answer}");
    let serving = Serving::start(&[&add, "--root-id", "add_header", "--respond", &respond]);
    let (head, body) = serving.get("/");
    assert!(head.starts_with("http/1.1 204") && head.contains("x-up: 1"), "{head}");
    assert_eq!(body, "");
}

#[test]
fn filters_are_loaded_again_and_a_broken_one_is_not() {
    let (folder, filter) = temporary("greeter.wasm", fs::read(file(ADD)).expect("a filter"));
    let configuration = folder.path().join("configuration");
    fs::write(&configuration, "one").expect("a file");
    let config = format!("@{}", configuration.display());
    let args = [&*filter, "--root-id", "add_header", "-c", &config, "--respond", "x"];
    let serving = Serving::start(&args);
    let hello = || {
        let (head, _) = serving.get("/");
        head.lines().find_map(|line| line.strip_prefix("hello: ")).expect("a header").to_owned()
    };
    assert_eq!(hello(), "one");
    fs::write(&configuration, "another").expect("a file");
    assert_eq!(serving.event("reloaded")["filters"][0], "greeter");
    assert_eq!(hello(), "another");

    fs::write(&filter, "(module)").expect("a file");
    let error = serving.event("not reloaded")["error"].as_str().expect("a text").to_owned();
    assert!(error.contains("filter \"greeter\""), "{error}");
    assert_eq!(hello(), "another");
    fs::remove_file(&filter).expect("a file");
    let error = serving.event("not reloaded")["error"].as_str().expect("a text").to_owned();
    assert!(error.contains(&*filter) && error.contains("No such file"), "{error}");

    // Another filter, which refuses this configuration and takes the next one.
    fs::copy(guest("rust_filter"), &filter).expect("a file");
    let error = serving.event("not reloaded")["error"].as_str().expect("a text").to_owned();
    assert!(error.contains("refused its configuration"), "{error}");
    assert_eq!(hello(), "another");
    fs::write(&configuration, "hello: rust").expect("a file");
    serving.event("reloaded");
    assert_eq!(hello(), "rust");
}

#[test]
fn requests_end_with_the_filters_that_they_began_with() {
    let (go_on, wait) = channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let (url, requests) = upstream(move |socket, _| {
        wait.lock().expect("a lock").recv_timeout(PATIENCE).expect("a sign");
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").expect("a client");
    });
    let (_folder, configuration) = temporary("configuration", "old");
    let (add, config) = (file(ADD), format!("@{configuration}"));
    let args = [&*add, "--root-id", "add_header", "-c", &config, "--upstream", &url];
    let serving = Serving::start(&args);
    let address = serving.address.clone();
    let under_way = thread::spawn(move || Serving::ask_at(&address, "GET / HTTP/1.1", "").0);
    requests.recv_timeout(PATIENCE).expect("a request");
    fs::write(&configuration, "newer").expect("a file");
    serving.event("reloaded");
    go_on.send(()).expect("the upstream");
    assert!(under_way.join().expect("an answer").contains("hello: old"));
    go_on.send(()).expect("the upstream");
    assert!(serving.get("/").0.contains("hello: newer"));
}

#[test]
fn calls_are_made_and_ticks_come_between_requests() {
    let (service, calls) = upstream(|socket, _| {
        socket
            .write_all(
                b"HTTP/1.1 200 OK\r\nX-User: me\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            )
            .expect("a client");
    });
    let call = format!("auth={service}");
    let auth = file(AUTH);
    let serving = Serving::start(&[&auth, "-c", "auth /check", "--call", &call, "--respond", "in"]);
    assert_eq!(serving.get("/a").1, "in");
    let got = calls.recv_timeout(PATIENCE).expect("a call");
    assert!(got.starts_with("get /check ") && got.contains("x-original-uri: /a\r\n"), "{got}");
    let event = serving.event("request");
    assert_eq!(event["calls"][0]["answer"], "200");

    let (_folder, rules) = temporary("rules", "/closed\n");
    let (remote, call) =
        (file("examples/remote-config/build/release.wasm"), format!("config=@{rules}"));
    let args = [&*remote, "-c", "config /rules 1", "--call", &call, "--respond", "in"];
    let serving = Serving::start(&args);
    let is_call = |event: &Value| !event["calls"].as_array().expect("a list").is_empty();
    let ticks = std::iter::repeat_with(|| serving.event("background")).filter(is_call).take(2);
    assert_eq!(ticks.count(), 2);
    assert!(serving.get("/closed").0.starts_with("http/1.1 403"));
}

#[test]
fn what_fails_is_told() {
    // Nothing listens there any more.
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let (add, url) = (file(ADD), format!("http://{gone}"));
    let args = [&*add, "--root-id", "add_header", "--upstream", &url, "--max-body", "10"];
    let serving = Serving::start(&args);
    let (head, body) = serving.get("/");
    assert!(head.starts_with("http/1.1 502") && body.contains("502 Bad Gateway"), "{head} {body}");
    assert!(head.contains("hello: world!"), "filters see the page as they do in nginx: {head}");

    let (head, _) = serving.ask("POST / HTTP/1.1\r\nContent-Length: 11", "01234567890");
    assert!(head.starts_with("http/1.1 413"), "{head}");
    let refused = serving.event("refused");
    assert!(refused["error"].as_str().expect("a text").contains("more than 10 bytes (--max-body)"));

    // An upstream that breaks off.
    let (url, _requests) = upstream(|socket, _| {
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").expect("a client");
    });
    let serving = Serving::start(&[&add, "--root-id", "add_header", "--upstream", &url]);
    let (head, body) = serving.get("/");
    assert!(head.contains("content-length: 10") && body == "half", "{head} {body}");
    assert!(serving.event("request")["cut"].as_str().expect("a text").contains("upstream"));

    // A filter that traps.
    let wat = r#"(module (memory (export "memory") 1)
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) unreachable))"#;
    let (_folder, trap) = temporary("trap.wasm", wat::parse_str(wat).expect("a module"));
    let serving = Serving::start(&[&trap, "--respond", "x"]);
    assert!(serving.get("/").0.starts_with("http/1.1 503"));
    assert!(serving.event("request")["steps"].to_string().contains("unreachable"));
    // It still serves.
    assert!(serving.get("/").0.starts_with("http/1.1 503"));

    // Bytes that are no HTTP.
    let mut socket = serving.connect();
    socket.write_all(b"nonsense\r\n\r\n").expect("a server");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an end");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[test]
fn bad_arguments() {
    let probe = guest("probe");
    for (args, cause) in [
        (vec![], "--upstream <URL>"),
        (vec!["--upstream", "http://a", "--respond", "x"], "cannot be used with"),
        (vec!["--upstream", "ftp://a"], "neither http://HOST:PORT nor https://HOST"),
        (vec!["--upstream", "127.0.0.1"], "neither http://HOST:PORT nor https://HOST"),
        (vec!["--upstream", "http://127.0.0.1:80/path"], "it must have none"),
        (vec!["--respond", "@/no/file"], "/no/file: No such file"),
        (vec!["--respond", "HTTP/1.1 100 Continue\n\n"], "not from 200 to 599"),
        (vec!["--respond", "x", "--listen", "here"], "--listen"),
        (vec!["--respond", "x", "--call", "auth=ftp://x"], "--call auth=ftp://x: it is neither"),
        (vec!["--respond", "x", "--property", "request.method=GET"], "cannot be given"),
        (vec!["--respond", "x", "--rewrite-host"], "cannot be used with"),
    ] {
        let mut all = vec!["serve", &probe];
        all.extend(&args);
        let answer = proxy_wasm(&all).ended(2);
        assert!(answer.err.contains(cause), "{args:?}: {}", answer.err);
    }
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let answer = proxy_wasm(&["serve", &probe, "--respond", "x", "--listen", &address]).ended(3);
    assert!(answer.err.contains(&address) && answer.err.contains("in use"), "{}", answer.err);

    let args =
        ["serve", &file(AUTH), "-c", "nonsense", "--respond", "x", "--listen", "127.0.0.1:0"];
    let answer = proxy_wasm(&args).ended(1);
    for part in ["the configuration must be: UPSTREAM /PATH", "refused its configuration"] {
        assert!(answer.out.contains(part), "{}", answer.out);
    }
}
