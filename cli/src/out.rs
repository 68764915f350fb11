//! Output, for people and for programs.

use std::io::{self, Write as _};

use comfy_table::{Cell, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::fail::Fail;

/// Writes a text to stdout. A reader that is gone (`| head`) ends the command without a complaint.
pub fn text(text: &str) -> Result<(), Fail> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Fail::outside(format!("stdout: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// Writes a value as JSON.
pub fn json(value: &impl Serialize) -> Result<(), Fail> {
    let written = serde_json::to_string_pretty(value)
        .map_err(|error| Fail::outside(format!("the result cannot be written as JSON: {error}")))?;
    text(&(written + "\n"))
}

/// A table without lines, as wide as the terminal at most.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|name| Cell::new(name.to_uppercase())));
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned() + "\n");
    lines.collect()
}

/// A number of bytes for people: `812 B`, `86.4 KiB`, `1.8 MiB`.
pub fn bytes(number: u64) -> String {
    const STEP: f64 = 1024.0;
    let mut size = number as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB"] {
        if size < STEP {
            break;
        }
        size /= STEP;
        unit = next;
    }
    if unit == "B" { format!("{number} B") } else { format!("{size:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(1024 * 1024 * 3 / 2), "1.5 MiB");
        assert_eq!(bytes(u64::MAX), "17179869184.0 GiB");
    }
}
