//! A server that speaks Redis' protocol and says what a scenario has it say.

use super::answers::Answers;
use super::values::bytes;
use redis_protocol::resp2::decode::decode;
use redis_protocol::resp2::types::OwnedFrame;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

/// Returns its address.
pub(super) fn serve(answers: Answers) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let answers = Arc::new(answers);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answers = answers.clone();
            thread::spawn(move || converse(stream, &answers));
        }
    });
    address
}

/// Answers the queries of a connection, each of which has come whole.
fn converse(mut stream: TcpStream, answers: &Answers) -> std::io::Result<()> {
    let mut came = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        came.extend(&buffer[..count]);
        let Some(words) = words(&came) else { continue };
        came.clear();
        let call = (format!("REDIS {}", words[0]), Vec::new(), words.join(" "));
        let Some(due) = answers.to(call) else { return Ok(()) };
        match due.answer["fails"].as_str() {
            None => stream.write_all(&bytes(&due.answer["body"]))?,
            Some("closed") => return Ok(()),
            Some("protocol") => stream.write_all(b"nonsense\r\n")?,
            Some(other) => panic!("all answers of an upstream fail by {other}, or none does"),
        }
    }
}

/// The words of the commands that have come; `None` when the last one is not whole.
fn words(mut came: &[u8]) -> Option<Vec<String>> {
    let mut words = Vec::new();
    while !came.is_empty() {
        let (frame, length) = decode(came).expect("Redis' protocol")?;
        let OwnedFrame::Array(parts) = frame else { panic!("{frame:?} is no command") };
        for part in parts {
            let OwnedFrame::BulkString(word) = part else { panic!("{part:?} is no word") };
            words.push(String::from_utf8_lossy(&word).into_owned());
        }
        came = &came[length..];
    }
    Some(words)
}
