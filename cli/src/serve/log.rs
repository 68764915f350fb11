//! What is said of requests and reloads: lines for people, or a JSON value on each line.

use std::fmt::Write as _;
use std::net::SocketAddr;

use serde::Serialize;
use serde_json::{Value, json};

use crate::fail::Fail;
use crate::out;
use crate::play::calls::Call;
use crate::play::trace::Step;
use crate::printable;
use crate::run::show;

/// A request that is over, and what filters did to it.
#[derive(Debug, Default, Serialize)]
pub struct Record {
    pub method: String,
    /// As the client sent it.
    pub path: String,
    /// What the client got; nothing when it got no response.
    pub status: Option<u16>,
    /// Of the response's body.
    pub bytes: u64,
    pub milliseconds: f64,
    pub answered_by_filter: bool,
    /// Why the client did not get a whole response.
    pub cut: Option<String>,
    pub steps: Vec<Step>,
    pub calls: Vec<Call>,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Log {
    pub json: bool,
    /// Steps that changed nothing are shown.
    pub verbose: bool,
}

impl Log {
    pub fn listening(self, address: SocketAddr, filters: &[String]) -> Result<(), Fail> {
        let url = format!("http://{address}");
        self.say(
            || format!("serving {url} with {}\n", printable::line(&filters.join(", "))),
            || json!({ "event": "listening", "url": url, "filters": filters }),
        )
    }

    pub fn not_loaded(self, cause: &str) -> Result<(), Fail> {
        self.say(
            || format!("failed: {}\n", printable::line(cause)),
            || json!({ "event": "not loaded", "error": cause }),
        )
    }

    pub fn reloaded(self, filters: &[String]) -> Result<(), Fail> {
        self.say(
            || format!("reloaded {}\n", printable::line(&filters.join(", "))),
            || json!({ "event": "reloaded", "filters": filters }),
        )
    }

    pub fn not_reloaded(self, cause: &str) -> Result<(), Fail> {
        self.say(
            || format!("not reloaded, the filters before stay: {}\n", printable::line(cause)),
            || json!({ "event": "not reloaded", "error": cause }),
        )
    }

    pub fn request(self, record: &Record) -> Result<(), Fail> {
        self.say(|| self.shown(record), || with_event("request", record))
    }

    /// A request that filters were not told of.
    pub fn refused(self, method: &str, path: &str, status: u16, cause: &str) -> Result<(), Fail> {
        let line = || {
            format!("{} {} → {status}: {cause}\n", printable::line(method), printable::line(path))
        };
        let value = || json!({ "event": "refused", "method": method, "path": path, "status": status, "error": cause });
        self.say(line, value)
    }

    /// What filters did outside of requests.
    pub fn between(self, record: &Record) -> Result<(), Fail> {
        if !record.steps.iter().any(|step| self.matters(step)) && record.calls.is_empty() {
            return Ok(());
        }
        let json =
            || json!({ "event": "background", "steps": record.steps, "calls": record.calls });
        self.say(|| self.details("", record), json)
    }

    fn say(self, text: impl FnOnce() -> String, json: impl FnOnce() -> Value) -> Result<(), Fail> {
        out::text(&if self.json { json().to_string() + "\n" } else { text() })
    }

    fn shown(self, record: &Record) -> String {
        let status = record.status.map_or("no response".into(), |status| status.to_string());
        let whose = if record.answered_by_filter { " (the filter's own)" } else { "" };
        let mut out = format!(
            "{} {} → {status}{whose}, {}, {:.1} ms\n",
            printable::line(&record.method),
            printable::line(&record.path),
            out::bytes(record.bytes),
            record.milliseconds
        );
        out += &self.details("    ", record);
        if let Some(cut) = &record.cut {
            let _ = writeln!(out, "    cut off: {}", printable::line(cut));
        }
        out
    }

    fn details(self, indent: &str, record: &Record) -> String {
        let steps = record.steps.iter().filter(|step| self.matters(step)).map(show::step);
        let calls = record.calls.iter().map(|call| {
            let Call { filter, upstream, method, path, answer, .. } = call;
            let call = format!("{filter} calls {upstream}: {method} {path} → {answer}");
            printable::line(&call) + "\n"
        });
        let all: String = steps.chain(calls).collect();
        all.lines().map(|line| format!("{indent}{line}\n")).collect()
    }

    /// Whether a step is shown.
    fn matters(self, step: &Step) -> bool {
        self.verbose
            || !step.changes.is_empty()
            || !step.log.is_empty()
            || step.error.is_some()
            || step.action.is_some_and(|action| action != "continue")
    }
}

fn with_event(event: &str, record: &Record) -> Value {
    let mut value = serde_json::to_value(record).unwrap_or_default();
    if let Value::Object(map) = &mut value {
        map.insert("event".into(), event.into());
    }
    value
}
