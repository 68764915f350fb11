//! The host functions of module `env`, a file per family. Each takes the caller and the guest's numbers
//! and returns an [`Answer`](memory::Answer); the table in `abi/hostcalls.rs` says which there are.

mod attribute;
mod buffer;
mod builtin;
mod context;
mod dispatch;
mod foreign;
mod grpc;
mod headers;
mod hosts;
mod inject;
mod left_out;
pub mod link;
mod log;
pub mod memory;
mod metric;
mod property;
mod queue;
mod redis;
mod response;
mod shared_data;
mod time;
mod timer;
pub mod trailers;
mod vendor;

use wasmtime::Linker;

use crate::abi::{HOST_FUNCTIONS, for_each_hostcall};
use crate::guest::State;
use crate::limits;
pub use headers::show_headers;
use link::link_function;

/// What a guest calls something, for a warning about it.
fn shown(name: &[u8]) -> String {
    match name.get(..limits::SHOWN_BYTES) {
        Some(beginning) if beginning.len() < name.len() => format!("{}…", beginning.escape_ascii()),
        _ => name.escape_ascii().to_string(),
    }
}

/// Whether the guest may see other headers after a function than before. Then those that it looks up by itself are hidden.
/// The compiler knows it for each function.
const fn changes_headers(family: &str, name: &str) -> bool {
    let name = name.as_bytes();
    match family.as_bytes() {
        b"buffer" | b"dispatch" | b"grpc" | b"log" | b"metric" | b"queue" | b"redis"
        | b"shared_data" | b"time" | b"timer" => false,
        b"headers" => !matches!(
            name,
            b"proxy_get_header_map_value"
                | b"proxy_get_header_map_pairs"
                | b"proxy_get_header_map_size"
        ),
        b"property" => !matches!(name, b"proxy_get_property"),
        _ => !matches!(name, b"proxy_clear_route_cache"),
    }
}

macro_rules! answer {
    ($caller:ident, $family:ident::$name:ident($($param:ident),*)) => {{
        // A foreign function says so itself: one is asked before each line of some logs.
        if !matches!(stringify!($family), "log" | "foreign") {
            $caller.data().call.asked.set(true);
        }
        if const { changes_headers(stringify!($family), stringify!($name)) } {
            $caller.data_mut().shown.hide();
        }
        $family::$name(&mut $caller, $($param),*)
    }};
}

/// Module that a guest imports the beginnings of host functions from, once the host has added to it (`vm/shim`). Each takes
/// a [`Step`], and its parameters two by two, the first of them in the lower half. Passed one by one, some would spill to
/// the stack and stall on partial stores.
pub const BEGIN: &str = "begin";

/// Parameters of a beginning: pairs of those of its host function.
pub const PAIRS: usize = 3;

/// What a beginning is called for.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// The host function begins.
    Begin = 0,
    /// The guest's allocator has made room. The first parameter is where.
    Finish = 1,
    /// It cannot be called. The first parameter is what the beginning answered.
    Refuse = 2,
}

macro_rules! link {
    ($($family:ident::$name:ident($($param:ident: $ty:ident),*) $versions:literal $support:ident $(($answer:literal))?;)*) => {
        /// Links every function of the table.
        pub fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
            $(link_function!(linker, "env", stringify!($name), |caller $(, $param: $ty)*| {
                let answer = answer!(caller, $family::$name($($param),*));
                memory::status(&mut caller, answer)
            })?;)*
            // Emscripten declares these two; neither has anything to do here.
            link_function!(linker, "env", "pthread_equal", |caller, a: u32, b: u32| Ok(u32::from(a == b)))?;
            link_function!(linker, "env", "emscripten_notify_memory_growth", |caller, _memory: u32| Ok(()))?;
            Ok(())
        }

        /// Links the beginnings of the functions that hand over a value.
        pub fn add_beginnings_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
            for function in HOST_FUNCTIONS.iter().filter(|function| function.hands_over()) {
                match function.name {
                    $(stringify!($name) => link_function!(linker, BEGIN, stringify!($name), |caller, step: i64, a: u64, b: u64, c: u64| {
                        if step != Step::Begin as i64 {
                            return memory::go_on(&mut caller, step, a);
                        }
                        #[allow(unused, reason = "some host functions have no parameters")]
                        let mut params = [a, a >> 32, b, b >> 32, c, c >> 32].into_iter();
                        $(let $param = params.next().unwrap_or_default() as $ty;)*
                        let answer = answer!(caller, $family::$name($($param),*));
                        memory::status_or_value(&mut caller, answer)
                    })?,)*
                    _ => continue,
                };
            }
            Ok(())
        }
    };
}
for_each_hostcall!(link);
