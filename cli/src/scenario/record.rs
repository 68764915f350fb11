//! What was played and what came of it, as `test --json` prints it: enough to play the same in another host and to compare.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use serde_json::{Value, json};

use crate::core::vm::Options;
use crate::play::calls::{Call, Canned};
use crate::play::chain::{FilterSpec, text};
use crate::play::headers::Headers;
use crate::play::trace::Line;
use crate::run::report::Message;

/// One test.
#[derive(Debug, Default, Serialize)]
pub struct Played {
    pub filters: Vec<Filter>,
    /// Answers to calls, by the name that is called.
    pub upstreams: BTreeMap<String, Vec<Answer>>,
    /// Why the filters were not loaded.
    pub refused: Option<String>,
    /// The least severe lines of the log that there are.
    pub log_level: &'static str,
    pub steps: Vec<Step>,
}

/// A filter with the options of `load`.
#[derive(Debug, Serialize)]
pub struct Filter {
    pub file: String,
    pub name: String,
    pub root_id: String,
    pub configuration: Option<Value>,
    pub vm_configuration: Value,
    pub vm_id: String,
    pub env: BTreeMap<String, String>,
    pub memory_limit: u64,
    pub time_limit_ms: u32,
    pub start_time_limit_ms: u32,
    pub pause_timeout_ms: u32,
    pub body_limit: usize,
    pub fail_open: bool,
    pub body: bool,
    pub calls_hold: Option<bool>,
}

/// What a call is answered.
#[derive(Debug, Serialize)]
pub struct Answer {
    pub method: Option<String>,
    pub path: Option<String>,
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Value,
    pub trailers: Vec<(String, String)>,
    pub after_ms: u64,
    pub fails: Option<&'static str>,
}

/// Something that happened, and what came of it.
#[derive(Debug, Default, Serialize)]
pub struct Step {
    pub line: usize,
    pub advance_ms: Option<u64>,
    /// The clock at the end, in milliseconds.
    pub at_ms: u64,
    /// What other workers did before.
    pub others: Vec<Other>,
    pub sent: Option<Sent>,
    pub response: Option<Message>,
    /// Why the client did not get a whole response.
    pub cut: Option<String>,
    /// What the upstream got.
    pub upstream: Option<Message>,
    pub log: Vec<Line>,
    pub calls: Vec<Call>,
    pub metrics: BTreeMap<String, i128>,
}

/// What another worker put into a queue, or set as shared data.
#[derive(Clone, Debug, Serialize)]
pub struct Other {
    pub vm_id: String,
    pub queue: Option<String>,
    pub key: Option<String>,
    pub data: Value,
}

/// A request as the client sent it, and what the upstream answers to it.
#[derive(Clone, Debug, Serialize)]
pub struct Sent {
    pub request: Message,
    pub properties: BTreeMap<String, String>,
    pub status: u16,
    pub headers: Vec<(String, String)>,
    /// The body, in the pieces in which it comes.
    pub pieces: Vec<Value>,
}

impl Filter {
    pub fn of(file: &str, spec: &FilterSpec) -> Self {
        let options: &Options = &spec.options;
        Self {
            file: file.into(),
            name: options.name.clone(),
            root_id: options.root_id.clone(),
            configuration: spec.configuration.as_deref().map(bytes),
            vm_configuration: bytes(&options.vm_config),
            vm_id: options.vm_id.clone(),
            env: options.env.iter().cloned().collect(),
            memory_limit: options.memory_limit,
            time_limit_ms: options.time_limits.callback,
            start_time_limit_ms: options.time_limits.start,
            pause_timeout_ms: options.pause_timeout,
            body_limit: options.body_limit,
            fail_open: options.fail_open,
            body: options.body,
            calls_hold: options.calls_hold,
        }
    }
}

impl Answer {
    pub fn of(canned: &Canned) -> Self {
        Self {
            method: canned.method.clone(),
            path: canned.path.clone(),
            status: canned.status,
            headers: lines(&canned.headers),
            body: bytes(&canned.body),
            trailers: lines(&canned.trailers),
            after_ms: canned.after_ms,
            fails: canned.failure.map(|kind| kind.word()),
        }
    }
}

/// Header lines as text.
pub fn lines(headers: &Headers) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| (text(name), text(value))).collect()
}

/// Bytes as they stand in a scenario: a text, or base64 where they are none.
pub fn bytes(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({ "base64": BASE64.encode(bytes) }),
    }
}
