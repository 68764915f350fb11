//! The one error of the core. The C ABI turns it into a code and a text; nothing else does.

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
    /// The VM or the plugin context did not start the last times, and it is too early to try again.
    #[error("{cause}; next try in {wait_ms} ms")]
    Waiting { cause: String, wait_ms: u64 },
    /// A guest wants to hold more of a body than it may.
    #[error(
        "the filter holds the {direction} body, and it is larger than body_limit ({limit} bytes)"
    )]
    BodyTooLarge { direction: &'static str, limit: usize },
    /// A guest wants to hold a body, and the VM holds as much as it may for others.
    #[error(
        "the filter holds the {direction} body, and with those of other requests it is more than {limit} bytes"
    )]
    BodiesTooLarge { direction: &'static str, limit: usize },
    /// A guest pauses the end of a response to wait for a call.
    #[error(
        "the filter pauses the end of the response body to wait for a call, which nginx cannot"
    )]
    WaitsAtEnd,
    /// Nothing more of a response may go out, and the client is to see that it is incomplete.
    #[error("{0}")]
    Cut(String),
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
    let parts: Vec<String> = error
        .chain()
        .map(ToString::to_string)
        .filter(|part| !part.starts_with(BACKTRACE))
        .map(|part| part.trim_end().to_owned())
        .collect();
    printable(&parts.join(": ")) + &frames(error)
}

/// Text without line ends and other control characters: names in a module, which texts repeat, forge no lines of a log.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push(' '),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

/// The guest's functions that an error came through, innermost first: ` (in a < b)`, or nothing.
///
/// wasmtime prints one frame a line, `    N:   0xADDR - module!function`; a log line has room for the names.
pub fn frames(error: &wasmtime::Error) -> String {
    let parts = error.chain().map(ToString::to_string);
    let trace = parts.into_iter().find(|part| part.starts_with(BACKTRACE)).unwrap_or_default();
    let names: Vec<&str> = trace
        .lines()
        .filter_map(|line| line.split_once(" - "))
        .map(|(_, frame)| frame.trim())
        .collect();
    if names.is_empty() {
        String::new()
    } else {
        printable(&format!(" (in {})", names.join(" < ")))
    }
}

const BACKTRACE: &str = "error while executing at wasm backtrace";
