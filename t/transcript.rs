//! Scripts for the probe together with what they must log, line by line.

use super::support::{Outcome, Probe, Running};

/// Lines `CALLBACK: OP ARGS -> STATUS VALUES`, in the order in which they happen. What stands before the arrow is the
/// guest's script; with the arrow it is what the guest must log when it runs.
pub struct Transcript {
    script: String,
    lines: Vec<String>,
}

impl Transcript {
    pub fn new(text: &str) -> Transcript {
        let (mut script, mut lines) = (String::new(), Vec::new());
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (head, answer) = line.rsplit_once(" -> ").expect("an arrow");
            let (when, op) = head.split_once(": ").expect("a callback");
            let callback = when.split('@').next().unwrap_or(when);
            script += &format!("{head}\n");
            lines.push(format!("{callback} {op} -> {answer}"));
        }
        Transcript { script, lines }
    }

    /// The lines as they are given for `callback`.
    pub fn of_callback(callback: &str, lines: &str) -> Transcript {
        let lines = lines.lines().map(str::trim).filter(|l| !l.is_empty());
        Transcript::new(
            &lines
                .map(|l| format!("{callback}: {l}\n"))
                .collect::<String>(),
        )
    }

    pub fn probe(&self) -> Probe {
        Probe::new(&self.script)
    }

    /// Fails unless the guest logged these lines and no other, and no call of the Lua API failed.
    pub fn check(&self, nginx: &Running) {
        assert_eq!(nginx.guest_log("probe"), self.lines);
        assert_eq!(nginx.log_texts("lua call failed: "), [""; 0]);
    }
}

/// Runs a transcript with a request that the closure makes, and checks it.
pub fn transcript(text: &str, run: impl FnOnce(Probe) -> Outcome) -> Outcome {
    let transcript = Transcript::new(text);
    let outcome = run(transcript.probe());
    transcript.check(&outcome.nginx);
    outcome
}
