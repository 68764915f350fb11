//! proxy_grpc_call against a real server: `grpc/peer.py`.

use super::grpc::Server;
use super::support::{Outcome, Probe, Running, poll};
use tempfile::TempDir;

/// A server at a socket of its own.
pub(crate) struct Peer {
    pub server: Server,
    pub dir: TempDir,
}

impl Peer {
    pub(crate) fn start() -> Peer {
        let dir = tempfile::tempdir().expect("a directory");
        let server = Server::start(&dir.path().join("grpc.sock"));
        Peer { server, dir }
    }

    /// One on tonic.
    pub(crate) fn start_tonic() -> Peer {
        let dir = tempfile::tempdir().expect("a directory");
        let server = Server::start_tonic(&dir.path().join("grpc.sock"), &[]);
        Peer { server, dir }
    }

    /// The upstream as a filter names it.
    pub(crate) fn upstream(&self) -> String {
        format!("unix:{}", self.dir.path().join("grpc.sock").display())
    }

    /// A script's call of a method.
    pub(crate) fn call(&self, method: &str, metadata: &str, message: &str, timeout: u32) -> String {
        format!("grpc_call {} t.Peer {method} '{metadata}' '{message}' {timeout}", self.upstream())
    }
}

/// A request whose filter waits for a call, with these lines for its end. Lines of the error log that have `expected` in
/// them are no surprise.
pub(crate) fn waiting(call: &str, lines: &str, expected: &[&str]) -> Outcome {
    declaring(call, lines, |nginx| expected.iter().for_each(|line| nginx.expect_log(line)))
}

/// The same, where the closure says what the error log may hold.
pub(crate) fn declaring(call: &str, lines: &str, declare: impl FnOnce(&Running)) -> Outcome {
    let nginx = Probe::new(&format!(
        "request_headers: {call}
         request_headers: pause
         {lines}
         grpc_receive,grpc_close: set_effective_context caller
         grpc_receive,grpc_close: continue_stream 0"
    ))
    .nginx(|nginx| nginx.http("lua_socket_log_errors off;"))
    .start();
    declare(&nginx);
    let response = nginx.get("/");
    nginx.stop();
    Outcome { nginx, response }
}

#[test]
fn a_call_that_succeeds_is_one_message() {
    let peer = Peer::start();
    let run = waiting(
        &peer.call("echo", "x-filter=yes", "hello", 5000),
        "grpc_initial,grpc_trailing,grpc_receive,grpc_close: args
         grpc_receive: get_buffer_bytes 5 0 max
         grpc_receive: get_buffer_status 5
         grpc_receive: get_status
         grpc_receive: get_header_map_pairs 4
         grpc_receive: get_header_map_pairs 5",
        &[],
    );
    assert_eq!(run.response.status, 200);
    assert_eq!(
        run.lines().into_iter().filter(|line| line.starts_with("grpc")).collect::<Vec<_>>()[..6],
        [
            "grpc_receive args -> token=1 size=10",
            "grpc_receive get_buffer_bytes 5 0 max -> 0 echo hello",
            "grpc_receive get_buffer_status 5 -> 0 10 0",
            "grpc_receive get_status -> 0 0 ''",
            "grpc_receive get_header_map_pairs 4 -> 0 ''",
            "grpc_receive get_header_map_pairs 5 -> 0 ''",
        ]
    );
}

/// The code and the message with which a call ends.
pub(crate) fn failure(run: &Outcome) -> (String, String) {
    let lines = run.of("grpc_close");
    let value = |op: &str| {
        let line = lines.iter().find_map(|line| line.strip_prefix(op));
        line.unwrap_or_else(|| panic!("no {op} in {lines:?}")).to_string()
    };
    (value("args -> token=1 status="), value("get_status -> 0 "))
}

pub(crate) const FAILURE: &str = "grpc_receive,grpc_close: args; grpc_close: get_status";

#[test]
fn a_call_that_the_server_fails_is_one_close() {
    let peer = Peer::start();
    let run = waiting(&peer.call("fail", "", "hello", 5000), FAILURE, &[]);
    assert_eq!(run.response.status, 200);
    assert_eq!(failure(&run), ("5".into(), "5 not here".into()));
    assert!(run.of("grpc_receive").is_empty());
    let run = waiting(&peer.call("nothing", "", "hello", 5000), FAILURE, &[]);
    assert_eq!(failure(&run).0, "12");
}

#[test]
fn a_deadline_that_passes() {
    let peer = Peer::start();
    // The server knows of the deadline, too, and may be first to say so. Then it is no failure on the way.
    let may_fail = |nginx: &Running| nginx.may_log("gRPC call to unix:");
    let run = declaring(&peer.call("slow", "", "hello", 200), FAILURE, may_fail);
    let (code, message) = failure(&run);
    assert_eq!(code, "4");
    assert!(
        ["4 the deadline passed", "4 Deadline Exceeded"].contains(&message.as_str()),
        "{message}"
    );
    // The server hears of it.
    let answer = "grpc_receive: get_buffer_bytes 5 0 max";
    for _ in 0..100 {
        let run = waiting(&peer.call("cancelled", "", "", 5000), answer, &[]);
        if run.of("grpc_receive")[0] == "get_buffer_bytes 5 0 max -> 0 1" {
            return;
        }
    }
    panic!("the server was not told");
}

#[test]
fn no_connection_is_unavailable_with_the_cause() {
    for (upstream, cause) in [
        ("127.0.0.1:1", "connect (connection refused)"),
        ("unix:/nowhere/grpc.sock", "connect (no such file or directory)"),
        ("no.such.host.invalid:1", "resolver"),
    ] {
        let call = format!("grpc_call {upstream} s m '' '' 5000");
        let of_nginx = "connect() to unix:/nowhere";
        let logged = ["gRPC call to", of_nginx];
        let logged = if upstream.starts_with("unix:") { &logged[..] } else { &logged[..1] };
        let run = waiting(&call, FAILURE, logged);
        let (code, message) = failure(&run);
        assert_eq!(code, "14", "{upstream}");
        assert!(message.starts_with(&format!("14 {cause}")), "{upstream}: {message}");
    }
}

#[test]
fn metadata_is_kept_in_both_directions() {
    let peer = Peer::start();
    let answer = "grpc_receive: get_buffer_bytes 5 0 max";
    let run = waiting(&peer.call("meta", "k=1|k=2|K-bin=\\xff\\n", "", 5000), answer, &[]);
    assert_eq!(
        run.of("grpc_receive")[0],
        "get_buffer_bytes 5 0 max -> 0 [('k', '1'), ('k', '2'), ('k-bin', b'\\xff\\n')]"
    );
}

#[test]
fn what_cannot_be_called_is_refused_with_a_warning() {
    for (call, warning) in [
        ("grpc_call 'not a host' s m '' '' 1000", "is neither a registered upstream nor"),
        ("grpc_call 127.0.0.1:1 s 'm m' '' '' 1000", "bad name of a method"),
        ("grpc_call 127.0.0.1:1 '' m '' '' 1000", "bad name of a service"),
        ("grpc_call 127.0.0.1:1 s m 'grpc-timeout=1S' '' 1000", "whose name is reserved"),
        ("grpc_call 127.0.0.1:1 s m 'a=b\\n' '' 1000", "bad value of metadata"),
    ] {
        let nginx = Probe::new(&format!("request_headers: {call}")).start();
        nginx.expect_log(warning);
        assert_eq!(nginx.get("/").status, 200);
        nginx.stop();
        assert_eq!(nginx.guest_log("probe"), [format!("request_headers {call} -> 4")]);
        assert!(nginx.error_log().contains(warning), "{call}");
    }
}

#[test]
fn compressed_and_large_messages() {
    let peer = Peer::start();
    let answer = "grpc_receive: args";
    let run = waiting(&peer.call("gzip", "", "", 5000), answer, &[]);
    assert_eq!(run.of("grpc_receive")[0], "args -> token=1 size=10000");
    let message = "\\R{4194304}x";
    let run = waiting(&peer.call("large", "", message, 20000), answer, &[]);
    assert_eq!(run.of("grpc_receive")[0], "args -> token=1 size=4194304");
}

/// What nginx logs when a server was killed before it had read all.
pub(crate) const RESET: &str = "recv() failed (104: Connection reset by peer)";

#[test]
fn a_server_that_restarts_is_called_again() {
    let Peer { server, dir } = Peer::start();
    let socket = dir.path().join("grpc.sock");
    let call = format!("grpc_call unix:{} t.Peer echo '' a 5000", socket.display());
    let nginx = Probe::new(&format!(
        "request_headers: {call}
         request_headers: pause
         grpc_receive: get_buffer_bytes 5 0 max
         grpc_receive: set_effective_context caller
         grpc_receive: continue_stream 0"
    ))
    .nginx(|nginx| nginx.http("lua_socket_log_errors off;"))
    .start();
    nginx.may_log(RESET);
    assert_eq!(nginx.get("/").status, 200);
    server.kill();
    let server = Server::start(&socket);
    assert_eq!(nginx.get("/").status, 200);
    nginx.stop();
    let told = nginx.guest_log("probe");
    let answers = told.iter().filter(|line| line.ends_with("get_buffer_bytes 5 0 max -> 0 echo a"));
    assert_eq!(answers.count(), 2);
    drop(server);
}

#[test]
fn a_call_that_is_dropped_leaves_a_line() {
    let peer = Peer::start();
    let nginx = Probe::new(&format!("request_headers: {}", peer.call("slow", "", "", 5000)))
        .options("calls_hold = false")
        .nginx(|nginx| nginx.log_level("info"))
        .start();
    assert_eq!(nginx.get("/").status, 200);
    nginx.wait_for_log(&format!("gRPC call to {} dropped: its stream ended", peer.upstream()));
}

#[test]
fn a_thousand_calls_are_under_way_on_one_connection() {
    let peer = Peer::start();
    let call = peer.call("wait", "", "a", 60000);
    let nginx = Probe::new(&format!(
        "configure: set_tick_period_milliseconds 10
         tick@first: {}
         tick@first: {}
         grpc_receive,grpc_close: args",
        vec![call; 1000].join("\n tick@first: "),
        // It is answered when the others are there, and then they are.
        peer.call("release", "", "1000", 60000)
    ))
    .start();
    assert_eq!(nginx.get("/").status, 200);
    super::ops::wait_for(&nginx, "grpc_receive", 1001);
    nginx.stop();
    let lines = nginx.guest_log("probe");
    assert!(!lines.iter().any(|line| line.starts_with("grpc_close")));
    let peers = lines.iter().filter(|line| line.contains("size=")).count();
    assert_eq!(peers, 1001);
}

#[test]
fn a_reload_waits_for_calls() {
    let peer = Peer::start();
    let nginx = Probe::new(&format!(
        "request_headers: {}
         request_headers: pause
         grpc_receive: get_buffer_bytes 5 0 max
         grpc_receive: set_effective_context caller
         grpc_receive: continue_stream 0",
        peer.call("wait", "", "a", 60000)
    ))
    .start();
    let mut waiting = nginx.connect();
    waiting.write(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    // The server has the call.
    let more = Probe::new(&format!(
        "request_headers: {}
         request_headers: pause
         grpc_receive: set_effective_context caller
         grpc_receive: continue_stream 0",
        peer.call("release", "reload=1", "1", 60000)
    ))
    .start();
    nginx.reload();
    assert_eq!(more.get("/").status, 200);
    assert_eq!(waiting.response().status, 200);
    nginx.wait_for_old_workers();
    more.stop();
    nginx.stop();
    let told = nginx.guest_log("probe");
    let answered = "grpc_receive get_buffer_bytes 5 0 max -> 0 a";
    assert!(told.iter().any(|line| line == answered), "{told:?}");
}

#[test]
fn calls_are_counted_by_upstream() {
    let peer = Peer::start();
    let nginx = Probe::new(
        "configure: set_tick_period_milliseconds 1
         tick@first: grpc_call peer t.Peer echo '' hello 5000
         tick@first: grpc_call peer t.Peer fail '' hello 5000
         tick@first: grpc_call peer t.Peer echo '' hello 5000",
    )
    .init(&format!(r#"assert(wasm.setup({{ upstreams = {{ peer = "{}" }} }}))"#, peer.upstream()))
    .nginx(|nginx| {
        nginx
            .http(
                "init_worker_by_lua_block { assert(require(\"resty.proxy-wasm\").init_worker()) }",
            )
            .server(
                r#"location /metrics {
                content_by_lua_block { ngx.print((require("resty.proxy-wasm").prometheus())) }
            }"#,
            )
    })
    .start();
    let labels = r#"{plugin="probe",upstream="peer",kind="grpc"}"#;
    let expected = [
        format!("proxy_wasm_upstream_calls_total{labels} 3"),
        format!("proxy_wasm_upstream_failed_calls_total{labels} 1"),
    ];
    let counted = || {
        let text = nginx.get("/metrics").text();
        text.lines()
            .filter(|line| line.contains("upstream="))
            .map(Into::into)
            .collect::<Vec<String>>()
    };
    assert!(poll(|| (counted() == expected).then_some(())).is_some(), "{:?}", counted());
}
