//! What a module's code shows of itself before it runs, so that the host need not fetch what the guest cannot see.

use super::call_graph::CallGraph;
use crate::abi::Callback;

/// See the module. The fields say what a guest *may* see; when in doubt they are true.
///
/// Entries of the module cache keep it: where the meaning of a field changes, so does the number of their format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Profile {
    /// It can look at request or response headers, in any callback.
    pub reads_headers: bool,
    /// It can look at the response's headers, in a callback in which they are there.
    pub reads_response: bool,
    /// `proxy_on_request_headers` looks at its second or third parameter.
    pub request_arguments: bool,
    /// `proxy_on_response_headers` looks at its second or third parameter.
    pub response_arguments: bool,
    /// `proxy_on_response_body` can write to a buffer.
    pub writes_response_body: bool,
    /// What was compiled is not the module as it came, but [`extended`](crate::vm::shim::extended).
    pub extended: bool,
    /// Its callbacks of [`IDLE`] that do nothing, by their places there; false when in doubt.
    pub idle: [bool; IDLE.len()],
}

/// Callbacks that need not be called when they do nothing and answer nothing or true: many filters export them since their
/// SDK, or some host, wants it.
const IDLE: [Callback; 6] = [
    Callback::ContextCreate,
    Callback::VmStart,
    Callback::Configure,
    Callback::Done,
    Callback::Log,
    Callback::Delete,
];

/// The bit of the first of them among the flags.
const IDLE_BIT: u32 = 6;

/// Imports through which headers can be seen.
const READERS: [&str; 5] = [
    "proxy_get_header_map_size",
    "proxy_get_header_map_pairs",
    "proxy_get_header_map_value",
    "proxy_set_header_map_pairs",
    "proxy_get_property",
];

/// Callbacks that never run while a stream has response headers: they come before any, or a host has not
/// called them by then.
const BEFORE_RESPONSE: [&str; 9] = [
    "_initialize",
    "_start",
    "main",
    "__main_void",
    "proxy_on_context_create",
    "proxy_on_vm_start",
    "proxy_on_configure",
    "proxy_on_request_headers",
    "proxy_on_request_body",
];

impl Profile {
    /// Reads a module that is known to be valid.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let Ok(graph) = CallGraph::of(bytes) else {
            return Self {
                reads_headers: true,
                reads_response: true,
                request_arguments: true,
                response_arguments: true,
                writes_response_body: true,
                extended: false,
                idle: [false; IDLE.len()],
            };
        };
        let reads = |imports: &[&str]| imports.iter().any(|import| READERS.contains(import));
        let later: Vec<&str> =
            graph.exports().filter(|name| !BEFORE_RESPONSE.contains(name)).collect();
        Self {
            reads_headers: reads(graph.imports()),
            reads_response: reads(&graph.imports_of(&later)),
            request_arguments: graph.reads_arguments("proxy_on_request_headers"),
            response_arguments: graph.reads_arguments("proxy_on_response_headers"),
            writes_response_body: graph
                .imports_of(&["proxy_on_response_body"])
                .contains(&"proxy_set_buffer_bytes"),
            extended: false,
            idle: IDLE.map(|callback| graph.does_nothing(callback.name())),
        }
    }

    /// Whether a callback need not be called.
    pub(crate) fn is_idle(&self, callback: Callback) -> bool {
        IDLE.iter().zip(self.idle).any(|(known, idle)| idle && *known == callback)
    }

    /// The fields as bits, from the lowest on.
    pub(crate) fn to_flags(self) -> u64 {
        [
            self.reads_headers,
            self.reads_response,
            self.request_arguments,
            self.response_arguments,
            self.writes_response_body,
            self.extended,
        ]
        .into_iter()
        .chain(self.idle)
        .rev()
        .fold(0, |flags, field| flags << 1 | u64::from(field))
    }

    /// See [`Profile::to_flags`].
    pub(crate) fn from_flags(flags: u64) -> Self {
        let field = |bit: u32| flags >> bit & 1 == 1;
        Self {
            reads_headers: field(0),
            reads_response: field(1),
            request_arguments: field(2),
            response_arguments: field(3),
            writes_response_body: field(4),
            extended: field(5),
            idle: std::array::from_fn(|at| field(IDLE_BIT + at as u32)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(text: &str) -> Profile {
        let bytes = wat::parse_str(text).unwrap();
        Profile::of(&bytes)
    }

    #[test]
    fn a_filter_that_only_writes_needs_nothing() {
        let bare = profile(
            r#"(module
                (import "env" "proxy_add_header_map_value" (func (param i32 i32 i32 i32 i32) (result i32)))
                (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (local i32)
                    local.get 0 drop local.get 3)
                (func (param i32 i32) local.get 1 drop))"#,
        );
        let nothing = Profile {
            reads_headers: false,
            reads_response: false,
            request_arguments: false,
            response_arguments: false,
            writes_response_body: false,
            extended: false,
            idle: [false; IDLE.len()],
        };
        assert_eq!(bare, nothing);
    }

    #[test]
    fn callbacks_that_do_nothing_are_told_from_others() {
        let found = profile(
            r#"(module
                (global $made (mut i32) (i32.const 0))
                (func (export "proxy_on_context_create") (param i32 i32))
                (func (export "proxy_on_vm_start") (param i32 i32) (result i32) i32.const 0)
                (func (export "proxy_on_done") (param i32) (result i32) i32.const 1)
                (func (export "proxy_on_log") (param i32) local.get 0 global.set $made)
                (func (export "proxy_on_tick") (param i32)))"#,
        );
        let idle: Vec<_> = Callback::ALL.iter().copied().filter(|c| found.is_idle(*c)).collect();
        assert_eq!(idle, [Callback::ContextCreate, Callback::Done]);
        assert_eq!(Profile::from_flags(found.to_flags()), found);
    }

    #[test]
    fn a_property_read_at_the_start_of_a_context_is_none_of_the_response() {
        let text = |callback: &str| {
            format!(
                r#"(module
                    (import "env" "proxy_get_property" (func $get (param i32 i32 i32 i32) (result i32)))
                    (func $read (drop (call $get (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))))
                    (func (export "{callback}") (param i32 i32) call $read)
                    (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) i32.const 0))"#
            )
        };
        let early = profile(&text("proxy_on_context_create"));
        assert!(early.reads_headers && !early.reads_response);
        let late = profile(&text("proxy_on_log"));
        assert!(late.reads_headers && late.reads_response);
    }
}
