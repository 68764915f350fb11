//! The host functions of module `env`, a file per family. Each takes the caller and the guest's numbers
//! and returns an [`Answer`](memory::Answer); the table in `abi/hostcalls.rs` says which there are.

mod buffer;
mod context;
mod dispatch;
mod foreign;
mod headers;
mod log;
pub mod memory;
mod metric;
mod property;
mod queue;
mod response;
mod shared_data;
mod time;
mod timer;
pub mod trailers;

use wasmtime::{Caller, Linker};

use crate::abi::for_each_hostcall;
use crate::guest::State;
use crate::limits;

/// What a guest calls something, for a warning about it.
fn shown(name: &[u8]) -> String {
    match name.get(..limits::SHOWN_BYTES) {
        Some(beginning) if beginning.len() < name.len() => format!("{}…", beginning.escape_ascii()),
        _ => name.escape_ascii().to_string(),
    }
}

macro_rules! link {
    ($($family:ident::$name:ident($($param:ident: $ty:ident),*) $versions:literal $support:ident $(($answer:literal))?;)*) => {
        /// Links every function of the table.
        pub fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
            $(linker.func_wrap("env", stringify!($name), |mut caller: Caller<'_, State>, $($param: $ty),*| {
                if stringify!($family) != "log" {
                    caller.data().call.asked.set(true);
                }
                memory::status($family::$name(&mut caller, $($param),*))
            })?;)*
            // Emscripten declares these two; neither has anything to do here.
            linker.func_wrap("env", "pthread_equal", |a: u32, b: u32| u32::from(a == b))?;
            linker.func_wrap("env", "emscripten_notify_memory_growth", |_memory: u32| {})?;
            Ok(())
        }
    };
}
for_each_hostcall!(link);
