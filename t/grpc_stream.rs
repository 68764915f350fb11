//! proxy_grpc_stream, _send, _close and _cancel against a real server: `grpc/peer.py`.

use super::grpc::Server;
use super::grpc_call::{Peer, RESET};
use super::support::{Outcome, Probe, Running};

/// A request whose filter begins a stream, does these lines, and waits for the stream's end.
pub(crate) fn streaming(peer: &Peer, method: &str, metadata: &str, lines: &str) -> Outcome {
    let nginx = Probe::new(&format!(
        "request_headers: grpc_stream {} t.Peer {method} '{metadata}' >id
         request_headers: pause
         {lines}
         grpc_close: args
         grpc_close: get_status
         grpc_close: set_effective_context caller
         grpc_close: continue_stream 0",
        peer.upstream()
    ))
    .start();
    let response = nginx.get("/");
    assert_eq!(response.status, 200);
    nginx.stop();
    Outcome { nginx, response }
}

/// What the guest logged in callbacks of gRPC but the last two lines, which let the request continue.
pub(crate) fn told(run: &Outcome) -> Vec<String> {
    let lines = run.lines().into_iter().filter(|line| line.starts_with("grpc"));
    let mut lines: Vec<String> = lines.collect();
    lines.truncate(lines.len() - 2);
    lines
}

#[test]
fn messages_of_the_server_come_one_by_one() {
    let peer = Peer::start();
    let run = streaming(
        &peer,
        "stream",
        "",
        "request_headers: grpc_send $id hello 1
         grpc_initial: get_header_map_value 4 :status
         grpc_receive: get_buffer_bytes 5 0 max
         grpc_trailing: get_header_map_value 5 x-trailing
         grpc_trailing: get_header_map_value 5 grpc-status",
    );
    assert_eq!(
        told(&run),
        [
            "grpc_initial get_header_map_value 4 :status -> 0 200",
            "grpc_receive get_buffer_bytes 5 0 max -> 0 hello 0",
            "grpc_receive get_buffer_bytes 5 0 max -> 0 hello 1",
            "grpc_receive get_buffer_bytes 5 0 max -> 0 hello 2",
            "grpc_trailing get_header_map_value 5 x-trailing -> 0 2",
            "grpc_trailing get_header_map_value 5 grpc-status -> 0 0",
            "grpc_close args -> token=1 status=0",
            "grpc_close get_status -> 0 0 ''",
        ]
    );
}

#[test]
fn messages_of_the_filter_come_one_by_one() {
    let peer = Peer::start();
    let run = streaming(
        &peer,
        "sum",
        "",
        "request_headers: grpc_send $id abc 0
         request_headers: grpc_send $id '' 0
         request_headers: grpc_send $id '\\R{100000}x' 0
         request_headers: grpc_close $id
         request_headers: grpc_send $id late 0
         request_headers: grpc_close $id
         grpc_receive: get_buffer_bytes 5 0 max",
    );
    assert_eq!(told(&run)[0], "grpc_receive get_buffer_bytes 5 0 max -> 0 3 100003");
    let sent = run.of("request_headers");
    assert!(sent.contains(&"grpc_send $id late 0 -> 2".into()), "{sent:?}");
    assert_eq!(sent.last().map(String::as_str), Some("grpc_close $id -> 0"));
}

#[test]
fn messages_go_back_and_forth() {
    let peer = Peer::start();
    let run = streaming(
        &peer,
        "chat",
        "",
        "request_headers: grpc_send $id one 0
         grpc_receive: get_buffer_bytes 5 0 max
         grpc_receive@first: grpc_send $id two 0
         grpc_receive@again: grpc_close $id",
    );
    let lines = told(&run);
    let answers: Vec<_> = lines
        .iter()
        .filter_map(|l| l.strip_prefix("grpc_receive get_buffer_bytes 5 0 max -> 0 "))
        .collect();
    assert_eq!(answers, ["re one", "re two"]);
}

#[test]
fn an_error_ends_a_stream_with_its_code() {
    let peer = Peer::start();
    let run = streaming(&peer, "fail", "", "request_headers: grpc_send $id a 1");
    assert_eq!(
        told(&run),
        ["grpc_close args -> token=1 status=5", "grpc_close get_status -> 0 5 not here"]
    );
}

fn lines_of(nginx: &Running) -> Vec<String> {
    nginx.guest_log("probe").into_iter().filter(|line| line.starts_with("grpc")).collect()
}

#[test]
fn a_stream_that_is_cancelled_is_silent() {
    let peer = Peer::start();
    let nginx = Probe::new(&format!(
        "request_headers: grpc_stream {} t.Peer chat '' >id
         request_headers: grpc_send $id a 0
         request_headers: pause
         grpc_initial,grpc_trailing,grpc_close: args
         grpc_receive: grpc_cancel $id
         grpc_receive: grpc_cancel $id
         grpc_receive: grpc_send $id late 0
         grpc_receive: grpc_send 77 never 0
         grpc_receive: set_effective_context caller
         grpc_receive: continue_stream 0",
        peer.upstream()
    ))
    .start();
    assert_eq!(nginx.get("/").status, 200);
    nginx.stop();
    let lines = lines_of(&nginx);
    assert_eq!(
        lines[1..5],
        [
            "grpc_receive grpc_cancel $id -> 0",
            "grpc_receive grpc_cancel $id -> 1",
            "grpc_receive grpc_send $id late 0 -> 2",
            "grpc_receive grpc_send 77 never 0 -> 1",
        ]
    );
    assert!(!lines.iter().any(|line| line.starts_with("grpc_close")), "{lines:?}");
}

#[test]
fn a_stream_ends_with_the_request_that_began_it() {
    let peer = Peer::start();
    let nginx = Probe::new(&format!(
        "request_headers: grpc_stream {} t.Peer chat ''
         grpc_close: args",
        peer.upstream()
    ))
    .start();
    assert_eq!(nginx.get("/").status, 200);
    // The worker ends: nothing of the stream is left.
    nginx.stop();
    assert_eq!(lines_of(&nginx), [""; 0]);
}

#[test]
fn a_stream_of_a_plugin_context_does_not_hold_up_the_end_of_the_worker() {
    let peer = Peer::start();
    let nginx = Probe::new(&format!(
        "configure: set_tick_period_milliseconds 10
         tick@first: grpc_stream {} t.Peer chat '' >id
         tick@first: grpc_send $id a 0
         grpc_receive: get_buffer_bytes 5 0 max
         grpc_close: args",
        peer.upstream()
    ))
    .start();
    nginx.expect_log("the worker is to end");
    // A worker ticks from its first request on.
    assert_eq!(nginx.get("/").status, 200);
    super::ops::wait_for(&nginx, "grpc_receive", 1);
    nginx.stop();
    assert_eq!(
        lines_of(&nginx).last().map(String::as_str),
        Some("grpc_close args -> token=1 status=14")
    );
}

#[test]
fn a_server_that_is_killed_in_the_middle_ends_its_streams() {
    let Peer { server, dir } = Peer::start();
    let socket = dir.path().join("grpc.sock");
    let nginx = Probe::new(&format!(
        "configure: set_tick_period_milliseconds 10
         tick@first: grpc_stream unix:{0} t.Peer chat '' >id
         tick@first: grpc_send $id a 0
         request_headers: grpc_call unix:{0} t.Peer echo '' b 20000
         request_headers: pause
         grpc_receive: get_buffer_bytes 5 0 max
         grpc_trailing: args
         grpc_close: args
         grpc_receive@again: set_effective_context caller
         grpc_receive@again: continue_stream 0",
        socket.display()
    ))
    .nginx(|nginx| {
        nginx.http("init_worker_by_lua_block { require(\"resty.proxy-wasm\").init_worker() }")
    })
    .start();
    nginx.expect_log("gRPC stream to unix:");
    nginx.may_log(RESET);
    super::ops::wait_for(&nginx, "grpc_receive", 1);
    server.kill();
    super::ops::wait_for(&nginx, "grpc_close", 1);
    let server = Server::start(&socket);
    assert_eq!(nginx.get("/").status, 200);
    nginx.stop();
    assert_eq!(
        lines_of(&nginx)[..4],
        [
            "grpc_receive get_buffer_bytes 5 0 max -> 0 re a",
            "grpc_trailing args -> token=1 trailers=0",
            "grpc_close args -> token=1 status=14",
            "grpc_receive get_buffer_bytes 5 0 max -> 0 echo b",
        ]
    );
    drop(server);
}

#[test]
fn many_calls_share_a_connection() {
    let peer = Peer::start();
    let call = peer.call("echo", "", "a", 20000);
    let nginx = Probe::new(&format!(
        "configure: set_tick_period_milliseconds 10
         tick@first: {}
         grpc_receive,grpc_close: args",
        vec![call; 100].join("\n tick@first: ")
    ))
    .start();
    assert_eq!(nginx.get("/").status, 200);
    super::ops::wait_for(&nginx, "grpc_receive", 100);
    nginx.stop();
    assert_eq!(lines_of(&nginx).len(), 100);
}
