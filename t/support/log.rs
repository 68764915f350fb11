//! nginx's error log: read while nginx runs, and judged when it has ended.

use super::poll;
use std::fs;
use std::path::{Path, PathBuf};

pub(super) struct ErrorLog {
    path: PathBuf,
}

impl ErrorLog {
    pub(super) fn new(path: PathBuf) -> ErrorLog {
        ErrorLog { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn text(&self) -> String {
        fs::read(&self.path)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Waits for a line with this text, and returns it.
    pub(super) fn wait_for(&self, needle: &str) -> Option<String> {
        poll(|| self.text().lines().find(|line| line.contains(needle)).map(Into::into))
    }

    /// What a test must answer for: entries at `warn` or above and signs of a crash that hold none of the `expected`
    /// and `tolerated` texts, and `expected` texts that never came.
    pub(super) fn complaints(&self, expected: &[String], tolerated: &[String]) -> Vec<String> {
        let text = self.text();
        let unexpected = entries(&text)
            .into_iter()
            .filter(|entry| is_bad(entry))
            .filter(|entry| !expected.iter().chain(tolerated).any(|text| entry.contains(&**text)))
            .map(|entry| format!("unexpected: {entry}"));
        let missing = expected
            .iter()
            .filter(|needle| !text.contains(needle.as_str()))
            .map(|needle| format!("expected, but never logged: {needle}"));
        unexpected.chain(missing).collect()
    }
}

/// What follows the marker in each line that has it, without what nginx writes behind.
pub(crate) fn texts(log: &str, marker: &str) -> Vec<String> {
    log.lines()
        .filter_map(|line| line.split_once(marker))
        .map(|(_, text)| without_context(text).into())
        .collect()
}

/// A line's text without the ` while ACTION, client: …` that nginx appends in a request, and the `, context: …` outside.
fn without_context(line: &str) -> &str {
    let actions = ["closing", "connecting", "logging", "reading", "sending", "waiting"];
    let text = line.split(", context: ").next().unwrap_or(line);
    let text = text.rfind(", client: ").map_or(text, |end| &text[..end]);
    match text.rsplit_once(" while ") {
        Some((text, action)) if actions.iter().any(|word| action.starts_with(word)) => text,
        _ => text,
    }
}

fn is_bad(entry: &str) -> bool {
    let level = level(entry).unwrap_or("");
    matches!(level, "warn" | "error" | "crit" | "alert" | "emerg")
        || entry.contains("exited on signal")
        || entry.contains("panicked")
}

/// An entry is a line that begins with a time, and the lines up to the next such: tracebacks, and what was written to
/// standard error, which nginx leads into the log.
fn entries(text: &str) -> Vec<String> {
    let mut entries: Vec<String> = Vec::new();
    for line in text.lines() {
        match entries.last_mut() {
            Some(entry) if level(line).is_none() => {
                entry.push('\n');
                entry.push_str(line);
            }
            _ => entries.push(line.into()),
        }
    }
    entries
}

/// The level in `2026/01/31 23:59:59 [level] …`.
fn level(line: &str) -> Option<&str> {
    const TIME: usize = "2026/01/31 23:59:59 ".len();
    let rest = line.get(TIME..)?.strip_prefix('[')?;
    let (level, _) = rest.split_once(']')?;
    (line.as_bytes()[4] == b'/').then_some(level)
}
