//! The figures as text and pictures.

use std::fmt::Write as _;

use super::compare::Comparison;
use super::{Measured, Report};
use crate::out::{self, bytes};
use crate::play::meter::Callback;
use crate::printable::line;

/// How wide the longest bar is.
const WIDTH: u64 = 40;

/// See the module.
pub fn report(of: &Report) -> String {
    let mut out = String::new();
    for filter in &of.filters {
        out += &measured(filter);
    }
    if let Some(comparison) = &of.comparison {
        out += &compared(comparison, &of.filters);
    }
    if let Some(cause) = &of.instructions_not_counted {
        let _ = writeln!(out, "instructions: not counted here ({})", line(cause));
    }
    out
}

fn measured(of: &Measured) -> String {
    let mut out = format!("{}\n", line(&of.file));
    if let Some(cause) = &of.failed {
        let _ = writeln!(out, "  failed: {}", line(cause));
    }
    if of.figures.callbacks.is_empty() {
        return out + "\n";
    }
    let _ = writeln!(
        out,
        "  {} requests, {:.0} callbacks per second",
        of.requests, of.figures.callbacks_per_second
    );
    for callback in &of.figures.callbacks {
        out += &histogram(callback);
    }
    out += &memory(&of.figures.memory_bytes);
    out + "\n"
}

fn histogram(of: &Callback) -> String {
    let instructions =
        of.instructions.map(|count| format!(", {count} instructions")).unwrap_or_default();
    let mut out = format!(
        "\n  {}\n    {} times, median {}, mean {}, 99 % below {}, most {}{instructions}\n",
        line(&of.name),
        of.count,
        time(of.median),
        time(of.mean as u64),
        time(of.p99),
        time(of.most)
    );
    let tallest = of.histogram.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
    for (end, count) in &of.histogram {
        let bar = bar(*count, tallest);
        let _ = writeln!(out, "    < {:>8} {bar} {count}", time(*end));
    }
    out
}

/// A bar in eighths of a character.
fn bar(count: u64, tallest: u64) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = count.saturating_mul(WIDTH * 8).div_ceil(tallest);
    let mut bar = "█".repeat((eighths / 8) as usize);
    bar += PARTS[(eighths % 8) as usize];
    bar
}

/// Memory over time, from nothing to the most.
fn memory(values: &[u64]) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let (Some(first), Some(last)) = (values.first(), values.last()) else { return String::new() };
    let most = values.iter().copied().max().unwrap_or(1).max(1);
    let level = |value: &u64| LEVELS[(value.saturating_mul(7) / most) as usize];
    let picture: String = values.iter().map(level).collect();
    format!("\n  memory {picture} {} → {}\n", bytes(*first), bytes(*last))
}

fn compared(of: &Comparison, filters: &[Measured]) -> String {
    let names: Vec<&str> = filters.iter().map(|filter| filter.file.as_str()).collect();
    let rows = of.callbacks.iter().map(|row| {
        let mut cells = vec![line(&row.name), time(row.nanoseconds.0), time(row.nanoseconds.1)];
        let counted = |count: Option<u64>| count.map_or("-".into(), |count| count.to_string());
        cells.push(counted(row.instructions.map(|both| both.0)));
        cells.push(counted(row.instructions.map(|both| both.1)));
        cells.push(format!("{:+.1} %", row.percent));
        cells
    });
    let header = ["callback", "median", "other", "instructions", "other", "change"];
    let names = names.iter().map(|name| line(name)).collect::<Vec<_>>().join(" beside ");
    format!("{names}\n{}\n", out::table(&header, rows))
}

/// A time for people: `812 ns`, `1.2 µs`.
fn time(nanoseconds: u64) -> String {
    let value = nanoseconds as f64;
    match nanoseconds {
        0..1_000 => format!("{nanoseconds} ns"),
        1_000..1_000_000 => format!("{:.1} µs", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", value / 1e6),
        _ => format!("{:.1} s", value / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_and_times() {
        assert_eq!((bar(0, 7), bar(1, 1_000_000)), (String::new(), "▏".into()));
        assert_eq!(bar(7, 7).chars().count() as u64, WIDTH);
        assert_eq!([0, 999, 1_500, 2_000_000].map(time), ["0 ns", "999 ns", "1.5 µs", "2.0 ms"]);
        assert!(memory(&[0, 4, 8]).contains("▁▄█"));
    }
}
