//! The one error of the core. The C ABI turns it into a code and a text; nothing else does.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use cpp_demangle::DemangleOptions;
use wasmtime::{FrameInfo, WasmBacktrace};

use crate::abi::Callback;
use crate::limits;

/// Why a module could not be loaded or a guest could not continue.
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
    Start {
        /// The function that failed.
        step: &'static str,
        /// Why.
        cause: String,
    },
    /// A callback ended in a trap, an exit or a host fault; the instance is gone.
    #[error("{callback} failed: {cause}")]
    Trap {
        /// The callback.
        callback: Callback,
        /// Why.
        cause: String,
    },
    /// `proxy_on_vm_start` or `proxy_on_configure` answered false.
    #[error("{0} returned false: the filter refused its configuration")]
    Refused(Callback),
    /// The VM that this stream lived in is gone; the text is the first cause.
    #[error("the filter's VM was lost: {0}")]
    Lost(String),
    /// The VM or the plugin context did not start the last times, and it is too early to try again.
    #[error("{cause}; next try in {wait_ms} ms")]
    Waiting {
        /// Why it failed the last time.
        cause: String,
        /// Milliseconds until the next try.
        wait_ms: u64,
    },
    /// A guest wants to hold more of a body than it may.
    #[error(
        "the filter holds the {direction} body, and it is larger than body_limit ({limit} bytes)"
    )]
    BodyTooLarge {
        /// `request` or `response`.
        direction: &'static str,
        /// Bytes.
        limit: usize,
    },
    /// A guest wants to hold a body, and the VM holds as much as it may for others.
    #[error(
        "the filter holds the {direction} body, and with those of other requests it is more than {limit} bytes"
    )]
    BodiesTooLarge {
        /// `request` or `response`.
        direction: &'static str,
        /// Bytes.
        limit: usize,
    },
    /// A guest changed a request body in pieces, and it is larger than what is kept of it.
    #[error("the filter changed the request body, and it is larger than {limit} bytes")]
    ChangedTooLarge {
        /// Bytes.
        limit: usize,
    },
    /// A guest pauses the end of a response to wait for a call, or another job.
    #[error(
        "the filter pauses the end of the response body to wait for {0}, which is not possible"
    )]
    WaitsAtEnd(&'static str),
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
    let backtrace = error.downcast_ref::<WasmBacktrace>();
    // The backtrace is a part, too. It is not asked for its text, which is made of names as long as the module likes.
    let is_backtrace = |part: &(dyn std::error::Error + 'static)| {
        backtrace.is_some_and(|backtrace| std::ptr::addr_eq(part, backtrace))
    };
    let parts: Vec<String> = error
        .chain()
        .filter(|part| !is_backtrace(*part))
        .map(ToString::to_string)
        .map(|part| part.trim_end().to_owned())
        .collect();
    let hint = if is_out_of_memory(error) { OUT_OF_MEMORY } else { "" };
    printable(&parts.join(": ")) + hint + &frames(error)
}

/// What to do about [`is_out_of_memory`].
const OUT_OF_MEMORY: &str = " (raise the limit of the process on addresses, ulimit -v, load fewer plugins, or lower memory_limit)";

/// Whether the system gave no memory, or no addresses for it.
pub fn is_out_of_memory(error: &wasmtime::Error) -> bool {
    // The number is kept as an error of several crates. All of them show the text of the C library, which is another one in
    // musl than in glibc, with the number.
    if error.downcast_ref::<WasmBacktrace>().is_some() {
        return false;
    }
    let text = std::io::Error::from(rustix::io::Errno::NOMEM).to_string();
    error.chain().any(|part| part.to_string().contains(&text))
}

/// Text without line ends and other control characters: names in a module, which texts repeat, forge no lines of a log.
/// What is longer than [`limits::TEXT_BYTES`] is cut.
pub fn printable(text: &str) -> String {
    printable_beginning(text, limits::TEXT_BYTES)
}

/// A name in a module, as [`printable`] and no longer than [`limits::SHOWN_BYTES`].
pub fn shown(name: &str) -> String {
    printable_beginning(name, limits::SHOWN_BYTES)
}

fn printable_beginning(text: &str, most: usize) -> String {
    let beginning = &text[..text.floor_char_boundary(most)];
    let mut out = String::with_capacity(beginning.len());
    for c in beginning.chars() {
        match c {
            '\n' => out.push(' '),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    if beginning.len() < text.len() {
        out.push('…');
    }
    out
}

/// The guest's functions that an error came through, innermost first: ` (in a < b)`, or nothing.
pub fn frames(error: &wasmtime::Error) -> String {
    let backtrace = error.downcast_ref::<WasmBacktrace>();
    let frames = backtrace.map(WasmBacktrace::frames).unwrap_or_default();
    let is_shown = |frame: &&FrameInfo| {
        frame.module().name() != Some(HIDDEN_MODULE) && frame.func_name() != Some(HIDDEN_FUNCTION)
    };
    let names: Vec<String> = frames.iter().filter(is_shown).map(frame).collect();
    if names.is_empty() { String::new() } else { format!(" (in {})", names.join(" < ")) }
}

/// The name of the host's own module that calls callbacks, of which a guest's author knows nothing.
pub const HIDDEN_MODULE: &str = "callbacks of the host";

/// The name of a function that the host adds to a guest's module, of which its author knows nothing either.
pub const HIDDEN_FUNCTION: &str = "host!give";

/// What the names of the others begin with. They stand in front of the host's functions.
pub const OF_HOST: &str = "host!";

fn frame(frame: &FrameInfo) -> String {
    let module = shown(frame.module().name().unwrap_or("<unknown>"));
    match frame.func_name() {
        Some(name) if name.starts_with(OF_HOST) => shown(name),
        Some(name) => format!("{module}!{}", shown(&demangled(name))),
        None => format!("{module}!<wasm function {}>", frame.func_index()),
    }
}

/// The name of a function as its source has it, when a compiler of Rust or C++ mangled it. Others stay: `f` is a mangled type
/// of C++.
fn demangled(name: &str) -> Cow<'_, str> {
    if !name.starts_with("_Z") && !name.starts_with("_R") {
        return name.into();
    }
    let mut text = Beginning::default();
    let written = if let Ok(symbol) = rustc_demangle::try_demangle(name) {
        write!(text, "{symbol}")
    } else if let Ok(symbol) = cpp_demangle::Symbol::new(name) {
        symbol.structured_demangle(&mut text, &DemangleOptions::new())
    } else {
        return name.into();
    };
    if written.is_err() && !text.full { name.into() } else { text.text.into() }
}

/// Takes no more than is shown: a short mangled name may stand for a text without end.
#[derive(Default)]
struct Beginning {
    text: String,
    full: bool,
}

impl fmt::Write for Beginning {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.text.push_str(part);
        self.full = self.text.len() > limits::SHOWN_BYTES;
        if self.full { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mangled_names_are_demangled() {
        for (name, text) in [
            ("f", "f"),
            ("i", "i"),
            ("main", "main"),
            ("St", "St"),
            ("_Z", "_Z"),
            ("_Znot mangled", "_Znot mangled"),
            ("_ZN3foo3barEi", "foo::bar(int)"),
            ("_ZN4core3fmt5write17h0123456789abcdefE", "core::fmt::write::h0123456789abcdef"),
            ("_RNvC6filter5start", "filter::start"),
        ] {
            assert_eq!(demangled(name), text);
        }
    }

    #[test]
    fn a_short_name_that_stands_for_a_long_text_is_cut() {
        // Each pair is made of two of the one before.
        let mut name = String::from("_Z1fSt4pairIiiE");
        for number in 0..100 {
            let last = if number == 0 { "S0_".into() } else { format!("S{number}_") };
            name += &format!("St4pairI{last}{last}E");
        }
        assert!(shown(&demangled(&name)).len() <= limits::SHOWN_BYTES + '…'.len_utf8());
    }

    #[test]
    fn long_texts_are_cut() {
        let text = "é".repeat(limits::TEXT_BYTES);
        let cut = printable(&text);
        assert!(cut.len() <= limits::TEXT_BYTES + 3 && cut.ends_with("é…"), "{}", cut.len());
        assert_eq!(shown("a\nb\r"), "a b\\r");
    }
}
