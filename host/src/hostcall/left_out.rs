//! What is left out of a message, and said.

use super::shown;

/// What a local response or a call goes out without. A local response is most often a denial: one bad header must not let the
/// request pass. Headers of calls are often those of a client, who must not decide whether a filter can ask.
#[derive(Default)]
pub(super) struct LeftOut {
    /// Parts, in words.
    pub whole: Vec<&'static str>,
    /// How many headers.
    pub headers: usize,
    names: Vec<String>,
}

impl LeftOut {
    const NAMES: usize = 8;

    /// A header.
    pub(super) fn add(&mut self, name: &[u8]) {
        self.headers += 1;
        if self.names.len() < Self::NAMES {
            self.names.push(format!("\"{}\"", shown(name)));
        }
    }

    /// What it is, when it is something.
    pub(super) fn text(mut self) -> Option<String> {
        let mut parts: Vec<String> = self.whole.iter().map(|part| part.to_string()).collect();
        if self.headers > 0 {
            let unnamed = self.headers - self.names.len();
            if unnamed > 0 {
                self.names.push(format!("{unnamed} more"));
            }
            let names = self.names.join(", ");
            parts.push(format!("headers that are not allowed or too many: {names}"));
        }
        (!parts.is_empty()).then(|| parts.join(", and without "))
    }
}
