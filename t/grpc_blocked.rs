//! A gRPC server that reads nothing: what is sent to it waits, and deadlines pass all the same.

use super::h2_frames::{SETTINGS, WINDOW_UPDATE, frame};
use super::support::Probe;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread::spawn;

/// Takes connections and gives them room for a gigabyte, of which it reads nothing.
fn listen(path: &str) -> Receiver<UnixStream> {
    let listener = UnixListener::bind(path).expect("a socket");
    let (tell, taken) = channel();
    spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let room: u32 = 1 << 30;
            let window = [&[0, 4], &room.to_be_bytes()[..]].concat();
            let opened = stream
                .read_exact(&mut [0; 24])
                .and_then(|()| stream.write_all(&frame(SETTINGS, 0, 0, &window)))
                .and_then(|()| stream.write_all(&frame(WINDOW_UPDATE, 0, 0, &room.to_be_bytes())));
            opened.expect("a client");
            let _ = tell.send(stream);
        }
    });
    taken
}

#[test]
fn a_server_that_reads_nothing_holds_up_no_deadline() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("grpc.sock").display().to_string();
    let taken = listen(&socket);
    let nginx = Probe::new(&format!(
        "configure: set_tick_period_milliseconds 1
         tick@first: grpc_stream unix:{socket} s m '' >id
         tick@first: grpc_send $id '\\R{{8000000}}x' 0
         request_headers: grpc_call unix:{socket} s m '' '' 200
         request_headers: pause
         grpc_close: args
         grpc_close: set_effective_context caller
         grpc_close: continue_stream 0"
    ))
    .start();
    nginx.expect_log("failed: DEADLINE_EXCEEDED");
    nginx.expect_log("the worker is to end");
    // With the first one the light threads may have begun to send; with the others that light thread certainly waits.
    for _ in 0..3 {
        assert_eq!(nginx.get("/").status, 200);
    }
    nginx.stop();
    let told = nginx.guest_log("probe");
    let passed =
        told.iter().filter(|line| line.contains("grpc_close args") && line.ends_with("status=4"));
    assert_eq!(passed.count(), 3, "{told:?}");
    // All went over one connection, which was there until now.
    assert_eq!(taken.try_iter().count(), 1);
}
