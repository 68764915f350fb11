//! Text of unknown origin, made safe for a terminal.

/// For one line: control characters as escapes.
pub fn line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// The same for a text that may have several lines.
pub fn lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(line).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(line("a\x1b[31m\nb"), "a\\u{1b}[31m\\nb");
        assert_eq!(lines("a\x1b\r\nb\rc"), "a\\u{1b}\nb\\rc");
    }
}
