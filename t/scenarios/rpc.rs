//! A gRPC server that says what a scenario has it say: `grpc/scenario.py`.

use super::answers::Answers;
use super::values::{bytes, pairs, sorted, string, without_own_address};
use crate::grpc::python;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

/// It ends when it is dropped.
pub(super) struct Peer {
    child: Child,
    pub port: u16,
}

impl Peer {
    pub(super) fn start(answers: Arc<Answers>) -> Self {
        let mut command = python("scenario.py", &[]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a server");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut line = move || Some(lines.next()?.expect("a line"));
        let ready = line().expect("a line");
        let port = ready.strip_prefix("ready ").and_then(|port| port.parse().ok());
        let port = port.unwrap_or_else(|| panic!("{ready}"));
        let input = Arc::new(Mutex::new(child.stdin.take().expect("a pipe")));
        thread::spawn(move || {
            while let Some(line) = line() {
                let (answers, input) = (answers.clone(), input.clone());
                thread::spawn(move || {
                    let call: Value = serde_json::from_str(&line).expect("JSON");
                    let Some(due) = answers.to(message(&call)) else { return };
                    let line = format!("{}\n", answer(due.answer, &call["id"]));
                    // A server that is gone by now belongs to a test that is over.
                    let _ = input.lock().expect("a lock").write_all(line.as_bytes());
                });
            }
        });
        Self { child, port }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn message(call: &Value) -> super::values::Message {
    // The time that is left is not part of what the command shows.
    let headers = pairs(&call["headers"]).into_iter().filter(|(name, _)| name != "grpc-timeout");
    let body = BASE64.decode(string(&call["message"])).expect("base64");
    let body = without_own_address(&String::from_utf8_lossy(&body));
    (format!("POST {}", string(&call["path"])), sorted(headers), body)
}

fn answer(of: &Value, id: &Value) -> Value {
    assert!(
        of["fails"].is_null(),
        "all answers of an upstream fail by {}, or none does",
        of["fails"]
    );
    json!({
        "id": id,
        "status": of["status"],
        "headers": of["headers"],
        "message": BASE64.encode(bytes(&of["body"])),
        "trailers": of["trailers"],
    })
}
