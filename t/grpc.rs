//! gRPC through nginx, with a real client and a real server: `grpc/peer.py`.

use super::support::{self, Nginx, Running, root};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const PEER: &str = "peer.py";

/// A script, run by a Python that has grpcio.
pub(crate) fn python(script: &str, arguments: &[&str]) -> Command {
    let mut command = support::python();
    command.arg(root().join("t/grpc").join(script)).args(arguments);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    // The client must not go through a proxy of the machine's.
    command.env_remove("http_proxy").env_remove("https_proxy").env_remove("grpc_proxy");
    command
}

/// Ends when it is dropped.
pub(crate) struct Server {
    child: Child,
    /// Where it listens, when that is no path.
    pub port: u16,
}

impl Server {
    pub(crate) fn start(socket: &Path) -> Server {
        Server::start_with(socket, &[])
    }

    /// One that speaks TLS, by files of keys and certificates.
    pub(crate) fn start_with(socket: &Path, files: &[&str]) -> Server {
        Server::start_script(PEER, &socket.display().to_string(), files)
    }

    /// One of the servers in `grpc/`, at a path or an address with a port.
    pub(crate) fn start_script(script: &str, socket: &str, files: &[&str]) -> Server {
        Server::run(python(script, &[&["server", socket], files].concat()))
    }

    fn run(mut command: Command) -> Server {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a server");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        let port = line.trim().strip_prefix("ready ").and_then(|port| port.parse().ok());
        Server { child, port: port.unwrap_or_else(|| panic!("{command:?}: {line:?}")) }
    }
}

#[cfg(feature = "grpc")]
impl Server {
    /// One at a port of its own.
    pub(crate) fn start_tcp() -> Server {
        Server::start_script(PEER, "127.0.0.1:0", &[])
    }

    /// One on tonic.
    pub(crate) fn start_tonic(socket: &Path, files: &[&str]) -> Server {
        let found = Command::new(root().join("tools/tonic-peer")).output().expect("a script");
        assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
        let mut command = Command::new(String::from_utf8_lossy(&found.stdout).trim());
        command.arg("server").arg(socket).args(files);
        Server::run(command)
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Peers {
    nginx: Running,
    _server: Server,
    _dir: tempfile::TempDir,
}

impl Peers {
    /// A gRPC server behind a chain of one filter.
    fn new(options: &str, script: &str) -> Peers {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("grpc.sock");
        let server = Server::start(&socket);
        let nginx = Nginx::new()
            .guest("probe")
            .http(&format!(
                r#"init_by_lua_block {{
                    local wasm = require("resty.proxy-wasm")
                    local plugin = assert(wasm.load("probe", "probe.wasm", {{ {options} }}))
                    chain = wasm.new_chain({{ assert(wasm.on_configure(plugin, [==[{script}]==])) }})
                }}"#
            ))
            .http2()
            .server(&format!(
                "client_max_body_size 0;
                 location / {{
                     access_by_lua_block {{ chain:access() }}
                     header_filter_by_lua_block {{ chain:header_filter() }}
                     body_filter_by_lua_block {{ chain:body_filter() }}
                     grpc_pass grpc://unix:{};
                 }}",
                socket.display()
            ))
            .start();
        Peers { nginx, _server: server, _dir: dir }
    }

    /// What a client says of a call.
    fn call(&self, name: &str, metadata: &[&str]) -> Vec<String> {
        let target = format!("unix:{}", self.nginx.path("h2.sock"));
        let output = python(PEER, &[&["client", &target, name], metadata].concat())
            .output()
            .expect("python3");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("text");
        // nginx's own.
        let own = |line: &&str| {
            !line.starts_with("initial server=") && !line.starts_with("initial date=")
        };
        text.lines().filter(own).map(Into::into).collect()
    }
}

const HEADERS: &str = "
    request_headers: get_header_map_value 0 content-type
    request_headers: get_header_map_value 0 :path
    request_headers: get_header_map_value 0 x-client
    request_headers: add_header_map_value 0 x-filter yes
    response_headers: get_header_map_value 2 x-initial
    response_headers: add_header_map_value 2 x-added 3
    response_trailers: get_header_map_value 3 grpc-status
    response_trailers: get_header_map_value 3 x-trailing
    log: get_property_int response.grpc_status";

#[test]
fn headers_and_trailers_of_a_call() {
    let peers = Peers::new("", HEADERS);
    assert_eq!(
        peers.call("echo", &["x-client=a"]),
        [
            "message echo hello",
            "initial x-initial=1",
            "initial x-seen=yes",
            "initial x-added=3",
            "trailing x-trailing=2",
            "status OK "
        ]
    );
    peers.nginx.stop();
    assert_eq!(
        peers.nginx.guest_log("probe"),
        [
            "request_headers get_header_map_value 0 content-type -> 0 application/grpc",
            "request_headers get_header_map_value 0 :path -> 0 /t.Peer/echo",
            "request_headers get_header_map_value 0 x-client -> 0 a",
            "request_headers add_header_map_value 0 x-filter yes -> 0",
            "response_headers get_header_map_value 2 x-initial -> 0 1",
            "response_headers add_header_map_value 2 x-added 3 -> 0",
            "response_trailers get_header_map_value 3 grpc-status -> 0 0",
            "response_trailers get_header_map_value 3 x-trailing -> 0 2",
            "log get_property_int response.grpc_status -> 0 0",
        ]
    );
}

#[test]
fn streams_of_messages_flow() {
    let peers = Peers::new("", "request_body: ids; response_body@eos: args");
    let messages = |lines: Vec<String>| {
        assert_eq!(lines.last().map(String::as_str), Some("status OK "), "{lines:?}");
        let texts = lines.iter().filter_map(|line| line.strip_prefix("message "));
        texts.map(Into::into).collect::<Vec<String>>()
    };
    assert_eq!(messages(peers.call("stream", &[])), ["hello 0", "hello 1", "hello 2"]);
    // A body that were read first would keep these from ever beginning.
    assert_eq!(messages(peers.call("chat", &[])), ["re 0", "re 1", "re 2"]);
    assert_eq!(messages(peers.call("large", &[])), ["4194304"]);
    assert!(!peers.nginx.guest_log("probe").iter().any(|line| line.starts_with("request_body")));
}

#[test]
fn a_filter_that_was_loaded_for_bodies_gets_those_of_calls() {
    let peers = Peers::new("body = true", "request_body@eos: get_buffer_bytes 0 5 5");
    assert!(peers.call("echo", &[]).contains(&"message echo hello".to_string()));
    let lines = peers.nginx.guest_log("probe");
    assert_eq!(lines, ["request_body get_buffer_bytes 0 5 5 -> 0 hello"]);
}

#[test]
fn an_error_of_the_server_is_in_its_trailers() {
    let peers = Peers::new(
        "",
        "response_headers,response_trailers: ids; log: get_property_int response.grpc_status",
    );
    assert_eq!(
        peers.call("fail", &[]).last().map(String::as_str),
        Some("status NOT_FOUND not here")
    );
    peers.nginx.stop();
    let lines = peers.nginx.guest_log("probe");
    assert_eq!(
        lines.last().map(String::as_str),
        Some("log get_property_int response.grpc_status -> 0 5")
    );
}

#[test]
fn local_responses_are_errors_with_their_status() {
    for (callback, answer, status) in [
        ("request_headers", "403 '' 'no entry' x-a=1 7", "status PERMISSION_DENIED no entry"),
        ("request_headers", "401 '' 'who?' '' -1", "status UNAUTHENTICATED who?"),
        ("request_headers", "503 details '' '' -1", "status UNAVAILABLE details"),
        ("request_headers", r"200 '' 'caf\xc3\xa9' '' 5", "status NOT_FOUND caf\u{e9}"),
        ("response_headers", "403 '' late '' 7", "status PERMISSION_DENIED late"),
    ] {
        let peers = Peers::new("", &format!("{callback}: send_local_response {answer}"));
        let lines = peers.call("echo", &[]);
        assert_eq!(
            lines.last().map(String::as_str),
            Some(status),
            "{callback}: {answer}: {lines:?}"
        );
        assert!(!lines.iter().any(|line| line.starts_with("message")), "{lines:?}");
    }
}

#[test]
fn a_filter_that_fails_is_unavailable_to_clients() {
    for callback in ["request_headers", "response_headers"] {
        let peers = Peers::new("", &format!("{callback}: trap"));
        peers.nginx.expect_log("failed to run proxy_on_http_");
        let lines = peers.call("echo", &[]);
        assert_eq!(
            lines.last().map(String::as_str),
            Some("status UNAVAILABLE a filter failed"),
            "{lines:?}"
        );
    }
}
