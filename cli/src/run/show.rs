//! The report as text.

use std::fmt::Write as _;

use super::report::{Message, Number, Report};
use crate::out::bytes;
use crate::play::calls::Call;
use crate::play::trace::Step;
use crate::printable::line;

/// Of a body so much is shown.
const MOST_BODY: usize = 2000;

/// See the module.
pub fn report(of: &Report) -> String {
    let mut out = String::new();
    out.extend(of.steps.iter().map(step));
    if let Some(request) = &of.request {
        out += "\nrequest\n";
        match &of.forwarded {
            Some(forwarded) => out += &diff(request, forwarded),
            None => out += "  went no further\n",
        }
    }
    if let Some(response) = &of.response {
        let whose = if of.answered_by_filter { " (the filter's own)" } else { "" };
        let _ = writeln!(out, "\nresponse{whose}");
        match &of.upstream {
            Some(upstream) => out += &diff(upstream, response),
            None => out += &diff(&Message::default(), response),
        }
    }
    if !of.calls.is_empty() {
        out += "\ncalls\n";
        of.calls.iter().for_each(|call| out += &show_call(call));
    }
    if !of.metrics.is_empty() {
        out += "\nmetrics\n";
        for (name, number) in &of.metrics {
            let _ = match number {
                Number::Count(count) => writeln!(out, "  {} {count}", line(name)),
                Number::Histogram { count, sum } => {
                    writeln!(out, "  {} {count} values, sum {sum}", line(name))
                }
            };
        }
    }
    if !of.shared_data.is_empty() {
        out += "\nshared data\n";
        for (key, value) in &of.shared_data {
            let _ = writeln!(out, "  {} = {}", line(key), line(value));
        }
    }
    for failed in &of.failed {
        let _ = writeln!(out, "\nfailed: {}", line(failed));
    }
    out
}

/// A step, with what it changed and said.
pub fn step(step: &Step) -> String {
    let mut out = String::new();
    if !step.callbacks.is_empty() || step.error.is_some() {
        let milliseconds = step.microseconds as f64 / 1000.0;
        let action = step.action.map(|action| format!(" → {action}")).unwrap_or_default();
        let _ = writeln!(
            out,
            "{}: {}{action}  ({milliseconds:.3} ms, {})",
            line(&step.filter),
            step.callbacks.join(", "),
            bytes(step.memory_bytes)
        );
    }
    for change in &step.changes {
        let _ = writeln!(out, "    {}", line(change));
    }
    for said in &step.log {
        let _ = writeln!(out, "    [{}] {}", said.level, line(&said.text));
    }
    if let Some(error) = &step.error {
        let _ = writeln!(out, "    failed: {}", line(error));
    }
    out
}

fn show_call(call: &Call) -> String {
    let mut out = format!(
        "  {} → {}: {} {} → {}\n",
        line(&call.filter),
        line(&call.upstream),
        line(&call.method),
        line(&call.path),
        line(&call.answer)
    );
    for (name, value) in &call.headers {
        let _ = writeln!(out, "      {}: {}", line(name), line(value));
    }
    if !call.body.is_empty() {
        out += &indented("      ", &call.body);
    }
    out
}

/// What one message has that the other has not: `-` before, `+` after.
fn diff(before: &Message, after: &Message) -> String {
    let mut out = String::new();
    let mut row = |sign: &str, text: &str| {
        let _ = writeln!(out, "{}", format!("  {sign} {}", line(text)).trim_end());
    };
    if before.first_line == after.first_line {
        row(" ", &after.first_line);
    } else {
        if !before.first_line.is_empty() {
            row("-", &before.first_line);
        }
        row("+", &after.first_line);
    }
    let mut left = after.headers.clone();
    for header in &before.headers {
        let text = format!("{}: {}", header.0, header.1);
        let same = |other: &(String, String)| {
            other.0.eq_ignore_ascii_case(&header.0) && other.1 == header.1
        };
        match left.iter().position(same) {
            Some(at) => {
                left.remove(at);
                row(" ", &text);
            }
            None => row("-", &text),
        }
    }
    for (name, value) in left {
        row("+", &format!("{name}: {value}"));
    }
    if before.body == after.body {
        if !after.body.is_empty() {
            out += &indented("    ", &after.body);
        }
    } else {
        if !before.body.is_empty() {
            out += &indented("  - ", &before.body);
        }
        if !after.body.is_empty() {
            out += &indented("  + ", &after.body);
        }
    }
    out
}

/// The beginning of a body, line by line.
fn indented(first: &str, body: &str) -> String {
    let shown = &body[..body.floor_char_boundary(MOST_BODY)];
    let mut out = String::new();
    for text in shown.lines() {
        let _ = writeln!(out, "{}", format!("{first}{}", line(text)).trim_end());
    }
    if shown.len() < body.len() {
        let _ = writeln!(out, "{first}… {} in all", bytes(body.len() as u64));
    }
    out
}
