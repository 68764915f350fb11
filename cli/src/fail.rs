//! How the command ends.

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

use serde_json::json;

use crate::printable;

/// How a command ended that did what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Exit code 0.
    Good,
    /// Exit code 1: what was looked at is not as it should be. The output says what.
    Bad,
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Good => Self::SUCCESS,
            Verdict::Bad => Self::FAILURE,
        }
    }
}

impl From<bool> for Verdict {
    fn from(good: bool) -> Self {
        if good { Self::Good } else { Self::Bad }
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug, PartialEq, Eq)]
pub enum Fail {
    /// Exit code 2: an argument, a file or a scenario is not what it must be.
    Input(String),
    /// Exit code 3: the input may be good, but something outside did not work: a disk, a network, a registry.
    Outside(String),
}

impl Fail {
    /// For bad input.
    pub fn input(text: impl Into<String>) -> Self {
        Self::Input(text.into())
    }

    /// For what does not work outside.
    pub fn outside(text: impl Into<String>) -> Self {
        Self::Outside(text.into())
    }

    /// Says so on stderr, and with `json` on stdout too: `{"error": TEXT}`.
    pub fn tell(&self, json: bool) -> ExitCode {
        // Causes may have names and texts of others. Nothing is left to be done when these cannot be written.
        let _ = writeln!(io::stderr(), "proxy-wasm: {}", printable::lines(&self.to_string()));
        if json {
            let _ = writeln!(io::stdout(), "{}", json!({ "error": self.to_string() }));
        }
        ExitCode::from(match self {
            Self::Input(_) => 2,
            Self::Outside(_) => 3,
        })
    }
}

impl fmt::Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(text) | Self::Outside(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Fail {}
