//! The report as text.

use std::fmt::Write as _;

use super::facts::Limits;
use super::report::{Answer, Report};
use crate::out::{bytes, table};
use crate::printable::line;

/// See the module.
pub fn report(of: &Report) -> String {
    let mut out = String::new();
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(out, "{name:<16}{}", line(value));
    };
    row("file", &of.file);
    row("size", &bytes(of.bytes));
    row("digest", &of.digest);
    row("ABI", &abi(of));
    row("language", of.origin.language.as_deref().unwrap_or("not shown by the file"));
    row("SDK", of.origin.sdk.as_deref().unwrap_or("not shown by the file"));
    if !of.origin.tools.is_empty() {
        row("made by", &of.origin.tools.join(", "));
    }
    let uses = of.uses.words();
    row("can", &if uses.is_empty() { "nothing of note".into() } else { uses.join(", ") });
    row("code", &format!("{} in {} functions", bytes(of.code_bytes), of.functions));
    row("data", &bytes(of.data_bytes));
    row("memory", &limits(&of.memories, bytes));
    row("tables", &limits(&of.tables, |number| format!("{number} elements")));
    if of.has_start_section {
        row("start section", "yes: code runs while an instance is made");
    }
    let customs: Vec<String> = of
        .custom_sections
        .iter()
        .map(|custom| format!("{} ({})", custom.name, bytes(custom.bytes)))
        .collect();
    if !customs.is_empty() {
        row("custom sections", &customs.join(", "));
    }
    row("callbacks", &of.callbacks.join(", "));
    if !of.other_exports.is_empty() {
        row("other exports", &of.other_exports.join(", "));
    }
    for warning in &of.warnings {
        row("warning", warning);
    }
    let verdict = match (&of.refused, of.started) {
        (Some(cause), _) => format!("refused: {cause}"),
        (None, true) => "loads and starts".into(),
        (None, false) => "loads (its start code was not run)".into(),
    };
    row("verdict", &verdict);
    if !of.imports.is_empty() {
        out.push('\n');
        out.push_str(&imports(of));
    }
    out
}

fn abi(of: &Report) -> String {
    match (&of.abi.version, &of.abi.marker) {
        (Some(version), Some(marker)) => format!("{version} (export {marker})"),
        (Some(version), None) => format!("{version} (no marker export, so this is assumed)"),
        (None, Some(marker)) => format!("not spoken by this host (export {marker})"),
        (None, None) => "unknown".into(),
    }
}

fn limits(all: &[Limits], unit: impl Fn(u64) -> String) -> String {
    let one = |limits: &Limits| match limits.maximum {
        Some(most) => format!("{} to begin with, at most {}", unit(limits.initial), unit(most)),
        None => format!("{} to begin with, no limit of its own", unit(limits.initial)),
    };
    if all.is_empty() { "none".into() } else { all.iter().map(one).collect::<Vec<_>>().join("; ") }
}

/// What is not simply supported comes first.
fn imports(of: &Report) -> String {
    let mut sorted: Vec<_> = of.imports.iter().collect();
    sorted.sort_by_key(|import| import.answer == Answer::Supported);
    let rows = sorted.into_iter().map(|import| {
        vec![
            line(&format!("{}.{}", import.module, import.name)),
            import.answer.word().into(),
            line(import.note.as_deref().unwrap_or_default()),
        ]
    });
    table(&["import", "answer", "note"], rows)
}
