//! gRPC calls and streams against a second implementation of servers, tonic: `grpc/tonic`.

use super::grpc::Server;
use super::grpc_call::{FAILURE, Peer, declaring, failure, waiting};
use super::grpc_stream::{streaming, told};
use super::grpc_tls::{calling, certificates, trusting};
use super::ops::wait_for;
use super::support::{Probe, Running};

const ANSWER: &str = "grpc_receive: get_buffer_bytes 5 0 max";

#[test]
fn calls() {
    let peer = Peer::start_tonic();
    for (method, metadata, message, answer) in [
        ("echo", "", "hello", "echo hello"),
        ("meta", "k=1|k=2|K-bin=\\xff\\n", "", "k=1 k=2 k-bin=\\xff\\n"),
    ] {
        let run = waiting(&peer.call(method, metadata, message, 20000), ANSWER, &[]);
        assert_eq!(run.of("grpc_receive")[0], format!("get_buffer_bytes 5 0 max -> 0 {answer}"));
    }
    let large = peer.call("large", "", "\\R{4194304}x", 20000);
    let run = waiting(&large, "grpc_receive: args", &[]);
    assert_eq!(run.of("grpc_receive")[0], "args -> token=1 size=4194304");
    for (method, code, message) in
        [("fail", "5", "5 not here"), ("nothing", "12", "12 no such method")]
    {
        let run = waiting(&peer.call(method, "", "", 20000), FAILURE, &[]);
        assert_eq!(failure(&run), (code.into(), message.into()));
    }
}

#[test]
fn a_deadline_that_passes() {
    let peer = Peer::start_tonic();
    // The server may be first to say so; tonic says CANCELLED then.
    let may_fail = |nginx: &Running| nginx.may_log("gRPC call to unix:");
    let run = declaring(&peer.call("slow", "", "", 200), FAILURE, may_fail);
    let (code, _) = failure(&run);
    assert!(["1", "4"].contains(&code.as_str()), "{code}");
    let cancelled = || {
        let run = waiting(&peer.call("cancelled", "", "", 20000), ANSWER, &[]);
        run.of("grpc_receive")[0] == "get_buffer_bytes 5 0 max -> 0 1"
    };
    assert!((0..100).any(|_| cancelled()), "the server was not told");
}

#[test]
fn streams() {
    let peer = Peer::start_tonic();
    let lines = "request_headers: grpc_send $id hello 1
         grpc_initial: get_header_map_value 4 :status
         grpc_receive: get_buffer_bytes 5 0 max
         grpc_trailing: get_header_map_value 5 grpc-status";
    assert_eq!(
        told(&streaming(&peer, "stream", "", lines)),
        [
            "grpc_initial get_header_map_value 4 :status -> 0 200",
            "grpc_receive get_buffer_bytes 5 0 max -> 0 hello 0",
            "grpc_receive get_buffer_bytes 5 0 max -> 0 hello 1",
            "grpc_receive get_buffer_bytes 5 0 max -> 0 hello 2",
            "grpc_trailing get_header_map_value 5 grpc-status -> 0 0",
            "grpc_close args -> token=1 status=0",
            "grpc_close get_status -> 0 0 ''",
        ]
    );
    let lines = "request_headers: grpc_send $id abc 0
         request_headers: grpc_send $id '' 0
         request_headers: grpc_send $id '\\R{1000000}x' 0
         request_headers: grpc_close $id
         grpc_receive: get_buffer_bytes 5 0 max";
    let lines = told(&streaming(&peer, "sum", "", lines));
    assert_eq!(lines[0], "grpc_receive get_buffer_bytes 5 0 max -> 0 3 1000003");
    let lines = "request_headers: grpc_send $id one 0
         grpc_receive: get_buffer_bytes 5 0 max
         grpc_receive@first: grpc_send $id two 0
         grpc_receive@again: grpc_close $id";
    let lines = told(&streaming(&peer, "chat", "", lines));
    let received = |line: &&String| line.starts_with("grpc_receive get_buffer_bytes");
    let answers: Vec<_> = lines.iter().filter(received).collect();
    assert_eq!(answers.len(), 2, "{lines:?}");
    assert!(answers[0].ends_with("-> 0 re one") && answers[1].ends_with("-> 0 re two"));
    let lines = told(&streaming(&peer, "fail", "", "request_headers: grpc_send $id a 1"));
    assert_eq!(
        lines,
        ["grpc_close args -> token=1 status=5", "grpc_close get_status -> 0 5 not here"]
    );
}

#[test]
fn a_thousand_calls_are_under_way_on_one_connection() {
    let peer = Peer::start_tonic();
    let call = peer.call("wait", "", "a", 60000);
    let nginx = Probe::new(&format!(
        "configure: set_tick_period_milliseconds 10
         tick@first: {}
         tick@first: {}
         grpc_receive,grpc_close: args",
        vec![call; 1000].join("\n tick@first: "),
        peer.call("release", "", "1000", 60000)
    ))
    .start();
    assert_eq!(nginx.get("/").status, 200);
    wait_for(&nginx, "grpc_receive", 1001);
    nginx.stop();
    assert!(!nginx.guest_log("probe").iter().any(|line| line.starts_with("grpc_close")));
}

#[test]
fn tls_and_a_name_that_is_wrong() {
    for (host, right) in [("localhost", true), ("other.test", false)] {
        let dir = certificates(host);
        let file = |name: &str| dir.path().join(name).display().to_string();
        let files = [file("server.key"), file("server.pem")];
        let server =
            Server::start_tonic(&dir.path().join("grpc.sock"), &files.each_ref().map(|f| &**f));
        let run = calling(dir.path(), &trusting(dir.path()), !right, |nginx| nginx);
        if right {
            assert_eq!(run.of("grpc_receive")[0], "get_buffer_bytes 5 0 max -> 0 echo hello");
        } else {
            let status = &run.of("grpc_close")[0];
            assert!(status.contains("not valid for name"), "{status}");
        }
        drop(server);
    }
}

#[test]
fn tls_with_certificates_of_both_sides() {
    let dir = certificates("localhost");
    let path = dir.path().display();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let files = [file("server.key"), file("server.pem"), file("ca.pem")];
    let server =
        Server::start_tonic(&dir.path().join("grpc.sock"), &files.each_ref().map(|f| &**f));
    // What setup says of certificates belongs to a name.
    let setup = format!(
        r#"assert(wasm.setup({{ upstreams = {{ peer = {{ address = "grpcs://unix:{path}/grpc.sock",
            trusted_certificate = "{path}/ca.pem",
            certificate = "{path}/server.pem", certificate_key = "{path}/server.key" }} }} }}))"#
    );
    let nginx = Probe::new(
        "request_headers: grpc_call peer t.Peer echo '' hello 20000
         request_headers: pause
         grpc_receive: get_buffer_bytes 5 0 max
         grpc_receive,grpc_close: set_effective_context caller
         grpc_receive,grpc_close: continue_stream 0",
    )
    .init(&setup)
    .start();
    assert_eq!(nginx.get("/").status, 200);
    nginx.stop();
    let told = nginx.guest_log("probe");
    assert_eq!(told[2], "grpc_receive get_buffer_bytes 5 0 max -> 0 echo hello", "{told:?}");
    drop(server);
}
