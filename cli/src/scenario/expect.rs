//! Comparing what came with what must come.

use std::collections::BTreeMap;

use super::matching::HeaderMatch;
use super::model::{CallExpect, Expect, MessageExpect};
use super::record::{Other, Sent, Step};
use super::state;
use crate::play::calls::Call;
use crate::play::chain::Chain;
use crate::play::trace::Line;
use crate::run::report::Message;

/// What came in one step.
#[derive(Debug, Default)]
pub struct Seen {
    /// There was a request.
    pub was_requested: bool,
    pub response: Option<Message>,
    /// Why the client did not get a whole response.
    pub cut: Option<String>,
    pub upstream: Option<Message>,
    /// The request, and what the upstream answers.
    pub sent: Option<Sent>,
    /// What other workers did.
    pub others: Vec<Other>,
    log: Vec<Line>,
    errors: Vec<String>,
    calls: Vec<Call>,
    /// How far the trace and the calls were looked at.
    steps: usize,
    made: usize,
}

impl Seen {
    /// Looks at what happened since the last look.
    pub fn take(&mut self, chain: &mut Chain) {
        let server = chain.server.clone();
        chain.trace.orphans(&server);
        for step in &chain.trace.steps[self.steps..] {
            self.log.extend(step.log.iter().cloned());
            self.errors
                .extend(step.error.iter().map(|e| format!("filter \"{}\": {e}", step.filter)));
        }
        self.steps = chain.trace.steps.len();
        self.calls.extend(chain.calls[self.made..].iter().cloned());
        self.made = chain.calls.len();
    }

    /// What came, to be compared with what another host does.
    pub fn record(&self, line: usize, advance_ms: Option<u64>, chain: &Chain) -> Step {
        Step {
            line,
            advance_ms,
            at_ms: chain.server.passed_ms(),
            others: self.others.clone(),
            sent: self.sent.clone(),
            response: self.response.clone(),
            cut: self.cut.clone(),
            upstream: self.upstream.clone(),
            log: self.log.clone(),
            calls: self.calls.clone(),
            metrics: state::metrics(chain),
        }
    }

    /// Forgets that filters failed.
    pub fn forget_errors(&mut self) {
        self.errors.clear();
    }

    /// Forgets it: the next step begins.
    pub fn reset(&mut self) {
        self.log.clear();
        self.errors.clear();
        self.calls.clear();
        self.reset_messages();
    }

    /// Forgets the last request and its response.
    pub fn reset_messages(&mut self) {
        self.was_requested = false;
        self.response = None;
        self.cut = None;
        self.upstream = None;
        self.sent = None;
        self.others.clear();
    }
}

/// What is not as it must be.
pub fn check(expect: &Expect, chain: &Chain, seen: &Seen) -> Vec<String> {
    let mut wrong = Vec::new();
    errors(expect, seen, &mut wrong);
    response(expect, seen, &mut wrong);
    upstream(expect, seen, &mut wrong);
    for line in &expect.log {
        if !seen.log.iter().any(|said| line.is(said.level, &said.text)) {
            wrong.push(format!("log: no line is {line}; the lines are {}", shown(&seen.log)));
        }
    }
    for line in &expect.no_log {
        if let Some(said) = seen.log.iter().find(|said| line.is(said.level, &said.text)) {
            wrong.push(format!("no_log: a line is {line}: [{}] {:?}", said.level, said.text));
        }
    }
    if let Some(expected) = &expect.calls {
        calls(expected, &seen.calls, &mut wrong);
    }
    let metrics = state::metrics(chain);
    for (name, expected) in &expect.metrics {
        match metrics.get(name) {
            Some(value) if *value == i128::from(*expected) => {}
            Some(value) => wrong.push(format!("metrics: {name} is {value}, not {expected}")),
            None => {
                let names: Vec<&str> = metrics.keys().map(String::as_str).collect();
                wrong.push(format!("metrics: there is no {name}; there are {names:?}"));
            }
        }
    }
    for (key, expected) in &expect.shared_data {
        let value = state::shared(chain, &expect.vm_id, key);
        let values: Vec<&str> = value.as_deref().into_iter().collect();
        if let Err(cause) = expected.check(&values) {
            wrong.push(format!("shared_data: {key} {cause}"));
        }
    }
    wrong
}

fn errors(expect: &Expect, seen: &Seen, wrong: &mut Vec<String>) {
    match &expect.error {
        None => wrong.extend(seen.errors.iter().map(|error| format!("a filter failed: {error}"))),
        Some(expected) => {
            if seen.errors.is_empty() {
                wrong.push("error: no filter failed".into());
            } else if let Some(cause) = all_wrong(&seen.errors, |e| expected.check_part(e)) {
                wrong.push(format!("error: the error {cause}"));
            }
        }
    }
}

/// The last cause, when each is wrong.
fn all_wrong<T>(all: &[T], check: impl Fn(&T) -> Result<(), String>) -> Option<String> {
    let causes: Vec<String> = all.iter().filter_map(|one| check(one).err()).collect();
    if causes.len() == all.len() { causes.into_iter().next_back() } else { None }
}

fn response(expect: &Expect, seen: &Seen, wrong: &mut Vec<String>) {
    let is_about = expect.status.is_some() || !expect.headers.is_empty() || expect.body.is_some();
    match (&seen.cut, expect.cut) {
        (Some(cause), false) => wrong.push(format!("the client got no whole response: {cause}")),
        (None, true) => wrong.push("cut: the client got a whole response".into()),
        _ => {}
    }
    let Some(response) = &seen.response else {
        if is_about && seen.cut.is_none() {
            wrong.push("there is no response, since there was no request".into());
        }
        return;
    };
    if let Some(status) = expect.status
        && response.first_line != status.to_string()
    {
        wrong.push(format!("status: is {}, not {status}", response.first_line));
    }
    headers("headers", &expect.headers, &response.headers, wrong);
    if let Some(body) = &expect.body
        && let Err(cause) = body.check(&response.body)
    {
        wrong.push(format!("body: {cause}"));
    }
}

fn headers(
    of: &str,
    expected: &BTreeMap<String, HeaderMatch>,
    lines: &[(String, String)],
    wrong: &mut Vec<String>,
) {
    for (name, rule) in expected {
        let lines = lines.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        let lines: Vec<&str> = lines.map(|(_, value)| value.as_str()).collect();
        if let Err(cause) = rule.check(&lines) {
            wrong.push(format!("{of}: {name} {cause}"));
        }
    }
}

fn upstream(expect: &Expect, seen: &Seen, wrong: &mut Vec<String>) {
    let Some(expected) = &expect.upstream else { return };
    match (&seen.upstream, expected.none) {
        (None, true) => {}
        (Some(got), true) => {
            wrong.push(format!("upstream: it got {}, and should get nothing", got.first_line));
        }
        (None, false) => wrong.push("upstream: it got nothing".into()),
        (Some(got), false) => message("upstream", &expected.message, got, wrong),
    }
}

fn message(of: &str, expected: &MessageExpect, got: &Message, wrong: &mut Vec<String>) {
    let (method, path) = got.first_line.split_once(' ').unwrap_or_default();
    for (name, rule, text) in [("method", &expected.method, method), ("path", &expected.path, path)]
    {
        if let Some(Err(cause)) = rule.as_ref().map(|rule| rule.check(text)) {
            wrong.push(format!("{of}: {name} {cause}"));
        }
    }
    headers(&format!("{of}: headers"), &expected.headers, &got.headers, wrong);
    if let Some(Err(cause)) = expected.body.as_ref().map(|rule| rule.check(&got.body)) {
        wrong.push(format!("{of}: body {cause}"));
    }
}

fn calls(expected: &[CallExpect], made: &[Call], wrong: &mut Vec<String>) {
    if expected.len() != made.len() {
        let made: Vec<String> = made
            .iter()
            .map(|call| format!("{} {} {}", call.upstream, call.method, call.path))
            .collect();
        wrong.push(format!("calls: there were {}, not {}: {made:?}", made.len(), expected.len()));
        return;
    }
    for (index, (expected, call)) in expected.iter().zip(made).enumerate() {
        let of = format!("calls[{index}]");
        if let Some(Err(cause)) = expected.upstream.as_ref().map(|rule| rule.check(&call.upstream))
        {
            wrong.push(format!("{of}: upstream {cause}"));
        }
        let got = Message {
            first_line: format!("{} {}", call.method, call.path),
            headers: call.headers.clone(),
            body: call.body.clone(),
        };
        let CallExpect { method, path, headers, body, .. } = expected.clone();
        message(&of, &MessageExpect { method, path, headers, body }, &got, wrong);
    }
}

fn shown(lines: &[Line]) -> String {
    if lines.is_empty() {
        return "none".into();
    }
    let lines: Vec<String> =
        lines.iter().map(|line| format!("[{}] {:?}", line.level, line.text)).collect();
    lines.join(", ")
}
