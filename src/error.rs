//! The one error of the core. The C ABI turns it into a code and a text; nothing else does.

use std::fmt;

use crate::abi::Callback;

/// Why a module could not be loaded or a guest could not go on.
///
/// The `Display` text is the CAUSE that users see behind `failed to …: `, so each names what was wrong and,
/// where there is something to do, what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes are not a WebAssembly module that can be compiled.
    #[error("{0}")]
    Module(String),
    /// The module asks for something that no Proxy-Wasm host gives.
    #[error("{0}")]
    Import(String),
    /// The module lacks an export that every filter needs, or has one of the wrong type.
    #[error("{0}")]
    Export(String),
    /// The module's own start code failed.
    #[error("{step} failed: {cause}")]
    Start { step: &'static str, cause: String },
    /// A callback ended in a trap, an exit or a host fault; the instance is gone.
    #[error("{callback} failed: {cause}")]
    Trap { callback: Callback, cause: String },
    /// `proxy_on_vm_start` or `proxy_on_configure` answered false.
    #[error("{0} returned false: the filter refused its configuration")]
    Refused(Callback),
    /// The VM that this stream lived in is gone; the text is the first cause.
    #[error("the filter's VM was lost: {0}")]
    Lost(String),
    /// The same plugin was entered while one of its callbacks runs.
    #[error("{0} is running: a filter cannot be entered from inside one of its own callbacks")]
    Busy(String),
}

impl Error {
    /// What streams are told whose VM ended with this error.
    pub fn lost(&self) -> Self {
        match self {
            Self::Lost(_) => self.clone(),
            other => Self::Lost(other.to_string()),
        }
    }
}

/// A wasmtime error as one line: the causes joined by `: `, the guest's backtrace behind them.
pub fn one_line(error: &wasmtime::Error) -> String {
    let mut text = String::new();
    let mut backtrace = None;
    for cause in error.chain() {
        let part = cause.to_string();
        if part.starts_with("error while executing at wasm backtrace") {
            backtrace = Some(part);
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(part.trim_end());
    }
    if let Some(trace) = backtrace {
        append_frames(&mut text, &trace);
    }
    text.replace('\n', " ")
}

/// wasmtime prints one frame a line, `    N:   0xADDR - module!function`; a log line has room for the names.
fn append_frames(text: &mut String, trace: &str) {
    let frames: Vec<&str> = trace
        .lines()
        .filter_map(|line| line.split_once(" - "))
        .map(|(_, frame)| frame.trim())
        .collect();
    if !frames.is_empty() {
        use fmt::Write as _;
        let _ = write!(text, " (in {})", frames.join(" < "));
    }
}
