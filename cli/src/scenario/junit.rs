//! Results as JUnit XML, which systems of CI read.

use std::fmt::Write as _;

use super::Outcome;

/// The results of files, each with its name.
pub fn report(files: &[(String, Vec<Outcome>)]) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let all = files.iter().flat_map(|(_, outcomes)| outcomes);
    let (tests, failures) = counts(all);
    let _ = writeln!(out, "<testsuites tests=\"{tests}\" failures=\"{failures}\">");
    for (file, outcomes) in files {
        let (tests, failures) = counts(outcomes.iter());
        let seconds: f64 = outcomes.iter().map(|outcome| outcome.seconds).sum();
        let file = escaped(file);
        let _ = writeln!(
            out,
            "  <testsuite name=\"{file}\" tests=\"{tests}\" failures=\"{failures}\" time=\"{seconds:.3}\">"
        );
        for outcome in outcomes {
            let _ = writeln!(
                out,
                "    <testcase name=\"{}\" classname=\"{file}\" file=\"{file}\" line=\"{}\" time=\"{:.3}\">",
                escaped(&outcome.name),
                outcome.line,
                outcome.seconds
            );
            if let Some((_, first)) = outcome.failures.first() {
                let all: Vec<String> = outcome
                    .failures
                    .iter()
                    .map(|(line, cause)| format!("line {line}: {cause}"))
                    .collect();
                let _ = writeln!(
                    out,
                    "      <failure message=\"{}\">{}</failure>",
                    escaped(first),
                    escaped(&all.join("\n"))
                );
            }
            if !outcome.log.is_empty() {
                let log = escaped(&outcome.log.join("\n"));
                let _ = writeln!(out, "      <system-err>{log}</system-err>");
            }
            out += "    </testcase>\n";
        }
        out += "  </testsuite>\n";
    }
    out + "</testsuites>\n"
}

fn counts<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> (usize, usize) {
    outcomes.fold((0, 0), |(tests, failures), outcome| {
        (tests + 1, failures + usize::from(!outcome.failures.is_empty()))
    })
}

/// Text for XML, which has no way to write most control characters.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\n' | '\t' => {
                let _ = write!(out, "&#{};", c as u32);
            }
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped() {
        assert_eq!(escaped("a<b>&\"\n\x00\x1b"), "a&lt;b&gt;&amp;&quot;&#10;\u{fffd}\u{fffd}");
    }
}
