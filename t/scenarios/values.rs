//! What the command says, as JSON, and what nginx does: both as values that are compared.

use crate::support::Incoming;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use std::fmt::Write as _;

/// A request: method and path, header lines by name, body.
pub(super) type Message = (String, Vec<(String, String)>, String);

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(super) fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

pub(super) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

pub(super) fn pairs(value: &Value) -> Vec<(String, String)> {
    let pair = |pair: &Value| (string(&pair[0]).to_owned(), string(&pair[1]).to_owned());
    list(value).iter().map(pair).collect()
}

/// A text, or `{base64: TEXT}`.
pub(super) fn bytes(value: &Value) -> Vec<u8> {
    match value["base64"].as_str() {
        Some(text) => BASE64.decode(text).expect("base64"),
        None => string(value).into(),
    }
}

/// Bytes as Lua reads them, whatever is in them.
pub(super) fn lua(bytes: impl AsRef<[u8]>) -> String {
    let byte = |&byte: &u8| {
        if byte.is_ascii_alphanumeric() {
            char::from(byte).to_string()
        } else {
            format!("\\{byte:03}")
        }
    };
    format!("\"{}\"", bytes.as_ref().iter().map(byte).collect::<String>())
}

/// Bytes as a word of the probe's scripts.
pub(super) fn word(bytes: impl AsRef<[u8]>) -> String {
    let mut word = String::from("'");
    for byte in bytes.as_ref() {
        write!(word, "\\x{byte:02x}").expect("text");
    }
    word + "'"
}

/// A request that came.
pub(super) fn request(incoming: &Incoming) -> Message {
    let headers = incoming.headers.iter().cloned();
    let headers = headers.filter(|(name, _)| !name.eq_ignore_ascii_case("connection"));
    let body = String::from_utf8_lossy(&incoming.body).into_owned();
    (format!("{} {}", incoming.method, incoming.target), sorted(headers), body)
}

/// A message of the command.
pub(super) fn message(of: &Value) -> Message {
    let first = string(&of["first_line"]).to_owned();
    (first, sorted(pairs(&of["headers"]).into_iter()), string(&of["body"]).to_owned())
}

/// What a message of protobuf has behind the address and port of the server itself, which are other ones in nginx and in the
/// command, and so are the lengths before.
pub(super) fn without_own_address(body: &str) -> String {
    let behind = body.split_once("\u{12}\t127.0.0.1\u{18}");
    // The next field is the request.
    behind.and_then(|(_, port)| port.split_once('"')).map_or(body, |(_, rest)| rest).into()
}

/// A call of the command.
pub(super) fn call(of: &Value) -> Message {
    let first = format!("{} {}", string(&of["method"]), string(&of["path"]));
    let headers = pairs(&of["headers"]).into_iter();
    let headers = headers.filter(|(name, _)| !name.eq_ignore_ascii_case("connection"));
    let body = string(&of["body"]);
    let body = if of["protocol"] == "grpc" { without_own_address(body) } else { body.into() };
    (first, sorted(headers), body)
}

/// Header lines by name; those of one name stay in order.
pub(super) fn sorted(headers: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
    let mut headers: Vec<_> = headers.map(|(name, value)| (name.to_lowercase(), value)).collect();
    headers.sort_by(|a, b| a.0.cmp(&b.0));
    headers
}

/// A line that a filter said, as the command has it in a step.
pub(super) fn guest_line(line: &Value) -> Option<(String, String)> {
    parse_line(&format!("[{}] {}", string(&line["level"]), string(&line["text"])))
}

/// `[LEVEL] wasm log NAME: TEXT`
pub(super) fn parse_line(line: &str) -> Option<(String, String)> {
    let (level, text) = line.strip_prefix('[')?.split_once("] wasm log ")?;
    Some((level.into(), text.split_once(": ")?.1.into()))
}
