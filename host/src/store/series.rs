//! Metrics as they are shown, and Prometheus' text format.

use std::collections::HashSet;
use std::fmt::Write as _;

/// What a series is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Type {
    /// Grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts values by size.
    Histogram,
}

impl Type {
    /// Its name, as in Prometheus' format.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What it shows.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of a counter or a gauge.
    Number(i128),
    /// Of a histogram.
    Histogram {
        /// Upper ends of buckets, each with the number of values up to it. The last end is infinite.
        buckets: Vec<(f64, u64)>,
        /// The sum of all values.
        sum: f64,
    },
}

impl Value {
    /// A histogram of the ends of buckets and of the values in each; one more is for what is larger.
    pub fn histogram(
        ends: impl Iterator<Item = f64>,
        counts: impl Iterator<Item = u64>,
        sum: f64,
    ) -> Self {
        let mut total = 0u64;
        let up_to = |(end, count)| {
            total = total.wrapping_add(count);
            (end, total)
        };
        let buckets = ends.chain([f64::INFINITY]).zip(counts).map(up_to).collect();
        Self::Histogram { buckets, sum }
    }
}

/// A metric with its labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// As its filter named it.
    pub name: String,
    /// What it is, for people.
    pub help: String,
    /// Its type.
    pub kind: Type,
    /// Names and values.
    pub labels: Vec<(&'static str, String)>,
    /// What it shows.
    pub value: Value,
}

/// The text format of Prometheus, version 0.0.4.
///
/// Characters that it does not allow in a name become `_`. Where two names become one, or one name has two types, the
/// later family has a number behind its name.
pub fn exposition(all: &[Series]) -> String {
    let mut text = String::new();
    let mut taken: HashSet<String> = HashSet::new();
    let mut rest: Vec<&Series> = all.iter().collect();
    while let Some(first) = rest.first().copied() {
        let same = |series: &&Series| series.name == first.name && series.kind == first.kind;
        let (family, others): (Vec<&Series>, Vec<&Series>) = rest.into_iter().partition(same);
        rest = others;
        let name = free_name(&first.name, first.kind, &mut taken);
        let _ = writeln!(text, "# HELP {name} {}", escaped(&first.help, false));
        let _ = writeln!(text, "# TYPE {name} {}", first.kind.name());
        for series in family {
            write_series(&mut text, &name, series);
        }
    }
    text
}

/// A name that no family before has, nor any of its lines.
fn free_name(name: &str, kind: Type, taken: &mut HashSet<String>) -> String {
    let mut plain: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' || c == ':' { c } else { '_' })
        .collect();
    if plain.is_empty() || plain.starts_with(|c: char| c.is_ascii_digit()) {
        plain.insert(0, '_');
    }
    let lines = |name: &str| -> Vec<String> {
        let ends: &[&str] = match kind {
            Type::Histogram => &["", "_bucket", "_sum", "_count"],
            Type::Counter | Type::Gauge => &[""],
        };
        ends.iter().map(|end| format!("{name}{end}")).collect()
    };
    let mut candidate = plain.clone();
    let mut number = 2;
    while lines(&candidate).iter().any(|line| taken.contains(line)) {
        candidate = format!("{plain}_{number}");
        number += 1;
    }
    taken.extend(lines(&candidate));
    candidate
}

fn write_series(text: &mut String, name: &str, series: &Series) {
    let labels: Vec<String> = series
        .labels
        .iter()
        .map(|(label, value)| format!("{label}=\"{}\"", escaped(value, true)))
        .collect();
    let labels = labels.join(",");
    match &series.value {
        Value::Number(number) if labels.is_empty() => {
            let _ = writeln!(text, "{name} {number}");
        }
        Value::Number(number) => {
            let _ = writeln!(text, "{name}{{{labels}}} {number}");
        }
        Value::Histogram { buckets, sum } => {
            let mut total = 0;
            for (end, count) in buckets {
                let end = if end.is_finite() { end.to_string() } else { "+Inf".into() };
                let comma = if labels.is_empty() { "" } else { "," };
                let _ = writeln!(text, "{name}_bucket{{{labels}{comma}le=\"{end}\"}} {count}");
                total = *count;
            }
            let _ = writeln!(text, "{name}_sum{{{labels}}} {sum}");
            let _ = writeln!(text, "{name}_count{{{labels}}} {total}");
        }
    }
}

/// Text as a label's value, where quotes end it, or as help.
fn escaped(text: &str, quotes: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            // Some readers end a line here.
            '\r' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(name: &str, kind: Type, plugin: &str, value: i128) -> Series {
        let labels = vec![("plugin", plugin.to_string())];
        Series { name: name.into(), help: name.into(), kind, labels, value: Value::Number(value) }
    }

    #[test]
    fn families_names_and_escapes() {
        let buckets = [1.0, 2.5];
        let value = Value::histogram(buckets.into_iter(), [1, 0, 2].into_iter(), 9.5);
        let histogram = Series { value, ..number("my.time", Type::Histogram, "a", 0) };
        let all = [
            number("hits", Type::Counter, "a\"\\\n", 3),
            number("my time", Type::Gauge, "a", -1),
            number("hits", Type::Counter, "b", 4),
            number("hits", Type::Gauge, "b", 5),
            histogram,
            number("my_time_2_sum", Type::Counter, "a", 6),
            number("2é\n", Type::Counter, "a", 7),
            Series { labels: vec![], ..number("", Type::Gauge, "", 8) },
        ];
        let text = "# HELP hits hits\n# TYPE hits counter\n\
            hits{plugin=\"a\\\"\\\\\\n\"} 3\nhits{plugin=\"b\"} 4\n\
            # HELP my_time my time\n# TYPE my_time gauge\nmy_time{plugin=\"a\"} -1\n\
            # HELP hits_2 hits\n# TYPE hits_2 gauge\nhits_2{plugin=\"b\"} 5\n\
            # HELP my_time_2 my.time\n# TYPE my_time_2 histogram\n\
            my_time_2_bucket{plugin=\"a\",le=\"1\"} 1\nmy_time_2_bucket{plugin=\"a\",le=\"2.5\"} 1\n\
            my_time_2_bucket{plugin=\"a\",le=\"+Inf\"} 3\n\
            my_time_2_sum{plugin=\"a\"} 9.5\nmy_time_2_count{plugin=\"a\"} 3\n\
            # HELP my_time_2_sum_2 my_time_2_sum\n# TYPE my_time_2_sum_2 counter\n\
            my_time_2_sum_2{plugin=\"a\"} 6\n\
            # HELP _2__ 2é\\n\n# TYPE _2__ counter\n_2__{plugin=\"a\"} 7\n\
            # HELP _ \n# TYPE _ gauge\n_ 8\n";
        assert_eq!(exposition(&all), text);
    }
}
