//! gRPC without end: calls in answers of calls, messages faster than filters take them. The worker answers its requests
//! meanwhile, other jobs have their turns, and the worker ends when it must.

use super::h2_frames::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, SETTINGS, WINDOW_UPDATE, block, frame,
};
use super::jobs::{KINDS, Kind, TICKS, answers_meanwhile, start, worker_ends};
use super::jobs_memory::{Endless, JOBS, expect_flat, rows};
use super::support::valgrind;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::spawn;
use tempfile::TempDir;

/// What a server does with a request. It is written frame by frame, since it must be faster than the worker.
#[derive(Clone, Copy, Debug)]
enum Does {
    /// Answers at once.
    Answers,
    /// Answers at once and goes away.
    AnswersOnce,
    /// Sends empty messages without end.
    Floods,
    /// Sends pings without end.
    Pings,
}

fn head(stream: u32) -> Vec<u8> {
    let head = block(&[(":status", "200"), ("content-type", "application/grpc")]);
    frame(HEADERS, END_HEADERS, stream, &head)
}

/// Bytes that may be sent: of the connection, and of its only stream.
#[derive(Default)]
struct Window(Mutex<[i64; 2]>, Condvar);

impl Window {
    fn add(&self, of: usize, size: i64) {
        self.0.lock().expect("a window")[of] += size;
        self.1.notify_all();
    }

    fn take(&self, size: i64) {
        let mut left = self.0.lock().expect("a window");
        while left.iter().any(|left| *left < size) {
            left = self.1.wait(left).expect("a window");
        }
        left.iter_mut().for_each(|left| *left -= size);
    }
}

fn listen(path: &Path, does: Does) {
    let listener = UnixListener::bind(path).expect("a socket");
    spawn(move || {
        for stream in listener.incoming().flatten() {
            // It ends with the connection.
            spawn(move || drop(serve(stream, does)));
        }
    });
}

fn serve(mut stream: UnixStream, does: Does) -> std::io::Result<()> {
    stream.read_exact(&mut [0; 24])?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
    let window = Arc::new(Window::default());
    window.add(0, 65_535);
    loop {
        let mut head_of = [0; 9];
        stream.read_exact(&mut head_of)?;
        let length = u32::from_be_bytes([0, head_of[0], head_of[1], head_of[2]]) as usize;
        let (kind, flags) = (head_of[3], head_of[4]);
        let id = u32::from_be_bytes([head_of[5], head_of[6], head_of[7], head_of[8]]);
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload)?;
        match (kind, does) {
            (SETTINGS, _) if flags == 0 => {
                for setting in payload.chunks(6).filter(|setting| setting[..2] == [0, 4]) {
                    let size = setting[2..].try_into().map(u32::from_be_bytes).expect("4 bytes");
                    window.add(1, size.into());
                }
                stream.write_all(&frame(SETTINGS, 1, 0, &[]))?;
            }
            (WINDOW_UPDATE, _) => {
                let size = payload[..].try_into().map(u32::from_be_bytes).expect("4 bytes");
                window.add(usize::from(id != 0), size.into());
            }
            (DATA, Does::Answers | Does::AnswersOnce) if flags & END_STREAM != 0 => {
                let mut answer = frame(WINDOW_UPDATE, 0, 0, &(length as u32).to_be_bytes());
                answer.extend(head(id));
                answer.extend(frame(DATA, 0, id, &[0; 5]));
                let end = block(&[("grpc-status", "0")]);
                answer.extend(frame(HEADERS, END_HEADERS | END_STREAM, id, &end));
                if matches!(does, Does::AnswersOnce) {
                    let last = [id.to_be_bytes(), [0; 4]].concat();
                    answer.extend(frame(GOAWAY, 0, 0, &last));
                }
                stream.write_all(&answer)?;
            }
            (HEADERS, Does::Floods) => {
                let (mut stream, window) = (stream.try_clone()?, window.clone());
                spawn(move || -> std::io::Result<()> {
                    stream.write_all(&head(id))?;
                    let messages = frame(DATA, 0, id, &[0; 5 * 1000]);
                    loop {
                        window.take(5 * 1000);
                        stream.write_all(&messages)?;
                    }
                });
            }
            (HEADERS, Does::Pings) => {
                let mut stream = stream.try_clone()?;
                spawn(move || -> std::io::Result<()> {
                    let pings = frame(PING, 0, 0, &[0; 8]).repeat(1000);
                    loop {
                        stream.write_all(&pings)?;
                    }
                });
            }
            _ => {}
        }
    }
}

const CALLS: Kind = Kind {
    plugins: &[(
        "grpc_calls",
        "probe",
        "configure: set_tick_period_milliseconds 1
         tick: set_tick_period_milliseconds 0
         tick: grpc_call answers s m '' '' 10000
         grpc_receive: grpc_call answers s m '' '' 10000",
    )],
    callback: "proxy_on_grpc_receive",
    says: &[],
};

const CONNECTIONS: Kind = Kind {
    plugins: &[(
        "grpc_connections",
        "probe",
        "configure: set_tick_period_milliseconds 1
         tick: set_tick_period_milliseconds 0
         tick: grpc_call once s m '' '' 10000
         grpc_receive: grpc_call once s m '' '' 10000",
    )],
    callback: "proxy_on_grpc_receive",
    says: &[],
};

const FAILING: Kind = Kind {
    plugins: &[(
        "grpc_fails",
        "probe",
        "configure: set_tick_period_milliseconds 1
         tick: set_tick_period_milliseconds 0
         tick: grpc_call unix:/none.sock s m '' '' 10000
         grpc_close: grpc_call unix:/none.sock s m '' '' 10000",
    )],
    callback: "proxy_on_grpc_close",
    says: &["gRPC call to unix:/none.sock failed", "connect() to unix:/none.sock failed"],
};

const FLOOD: Kind = Kind {
    plugins: &[(
        "grpc_flood",
        "probe",
        "configure: set_tick_period_milliseconds 1
         tick: set_tick_period_milliseconds 0
         tick: grpc_stream floods s m ''
         grpc_receive: get_buffer_bytes 5 0 max",
    )],
    callback: "proxy_on_grpc_receive",
    says: &["gRPC stream to floods failed"],
};

const PINGS: Kind = Kind {
    plugins: &[(
        "grpc_pings",
        "probe",
        "configure: set_tick_period_milliseconds 5
         tick@first: grpc_stream pings s m ''",
    )],
    callback: "proxy_on_tick",
    says: &["gRPC stream to pings failed"],
};

const GRPC: [&Kind; 5] = [&CALLS, &CONNECTIONS, &FAILING, &FLOOD, &PINGS];

/// The servers, and what `setup` says of them.
fn servers() -> (TempDir, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut upstreams = String::new();
    for (name, does) in [
        ("answers", Does::Answers),
        ("once", Does::AnswersOnce),
        ("floods", Does::Floods),
        ("pings", Does::Pings),
    ] {
        let path = dir.path().join(name);
        listen(&path, does);
        upstreams += &format!("{name} = \"unix:{}\", ", path.display());
    }
    (dir, upstreams)
}

#[test]
fn requests_are_answered_while_grpc_continues_without_end() {
    let (_dir, upstreams) = servers();
    for kind in GRPC {
        let nginx = start(&[kind], &upstreams);
        answers_meanwhile(&nginx, &[kind]);
        // The harness ends it by SIGQUIT.
    }
}

#[test]
fn grpc_and_other_jobs_take_turns() {
    let (_dir, upstreams) = servers();
    let service = super::jobs::service();
    let upstreams = upstreams + &super::jobs::upstream(&service);
    let kinds = [&GRPC[..], &KINDS[..]].concat();
    let nginx = start(&kinds, &upstreams);
    answers_meanwhile(&nginx, &kinds);
}

#[test]
fn workers_end_while_grpc_continues_without_end() {
    let (_dir, upstreams) = servers();
    let mixed = [&GRPC[..], &[&TICKS]].concat();
    for kinds in [&mixed[..], &[&CALLS], &[&CONNECTIONS], &[&FAILING], &[&FLOOD], &[&PINGS]] {
        worker_ends(&start(kinds, &upstreams), kinds);
    }
}

/// What a filter does not take, its server does not send.
#[test]
fn messages_wait_at_the_server() {
    if valgrind() {
        return;
    }
    let (_dir, upstreams) = servers();
    let nginx = start(&[&FLOOD, &TICKS], &upstreams);
    answers_meanwhile(&nginx, &[&FLOOD]);
    let worker = nginx.worker_pids()[0];
    let early = nginx.rss_kib(worker);
    for _ in 0..5 {
        answers_meanwhile(&nginx, &[&FLOOD]);
    }
    let late = nginx.rss_kib(worker);
    assert!(late < early + 4096, "{early} KiB became {late} KiB");
}

#[test]
fn calls_and_streams_leave_no_memory_behind() {
    if valgrind() {
        return;
    }
    let (dir, _) = servers();
    let at = |name: &str| format!("unix:{}", dir.path().join(name).display());
    let call = |upstream: &str| format!("grpc_call {upstream} s m '' '' 10000");
    let stream = format!("grpc_stream {} s m '' >id", at("answers"));
    let end = |next: &str| format!("grpc_close: {next}");
    // A connection takes its time, and leaves hundreds of bytes where it leaves any.
    let few = JOBS / 4;
    for (what, first, next, callback, number) in [
        ("calls", call(&at("answers")), "grpc_receive", "proxy_on_grpc_receive", JOBS),
        (
            "calls with a connection each",
            call(&at("once")),
            "grpc_receive",
            "proxy_on_grpc_receive",
            few,
        ),
        ("failing calls", call("unix:/none.sock"), "grpc_close", "proxy_on_grpc_close", few),
    ] {
        let script = rows(&first, &format!("{next}: {first}"));
        expect_flat(what, &Endless { script, init: "", callback, contexts: 1, number });
    }
    let script = rows(
        &format!("{stream}\ntick: grpc_send $id m 1"),
        &format!("{}\n{}", end(&stream), end("grpc_send $id m 1")),
    );
    let callback = "proxy_on_grpc_close";
    expect_flat("streams", &Endless { script, init: "", callback, contexts: 1, number: JOBS });
}
