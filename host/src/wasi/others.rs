//! The WASI functions that wasmtime-wasi has, over a context that reaches nothing.
//!
//! They are linked one by one, for what `hostcall::link` does for each. Some of them are asynchronous, for files; here there
//! are none, so that all are done at once, and none needs a runtime.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use wasmtime::Linker;
use wasmtime_wasi::p0::wasi_unstable as p0;
use wasmtime_wasi::p1::wasi_snapshot_preview1 as p1;
use wiggle::GuestMemory;

use crate::guest::State;
use crate::hostcall::link::link_function;
use crate::hostcall::memory::split;
use crate::limits;

macro_rules! functions {
    ($run:ident!($($more:tt)*)) => {
        $run! { ($($more)*)
            args_get(a: i32, b: i32);
            args_sizes_get(a: i32, b: i32);
            clock_res_get(a: i32, b: i32);
            fd_advise(a: i32, b: i64, c: i64, d: i32) await;
            fd_allocate(a: i32, b: i64, c: i64);
            fd_close(a: i32) await;
            fd_datasync(a: i32) await;
            fd_fdstat_get(a: i32, b: i32) await;
            fd_fdstat_set_flags(a: i32, b: i32);
            fd_fdstat_set_rights(a: i32, b: i64, c: i64);
            fd_filestat_get(a: i32, b: i32) await;
            fd_filestat_set_size(a: i32, b: i64) await;
            fd_filestat_set_times(a: i32, b: i64, c: i64, d: i32) await;
            fd_pread(a: i32, b: i32, c: i32, d: i64, e: i32) await;
            fd_prestat_dir_name(a: i32, b: i32, c: i32);
            fd_prestat_get(a: i32, b: i32);
            fd_pwrite(a: i32, b: i32, c: i32, d: i64, e: i32) await;
            fd_read(a: i32, b: i32, c: i32, d: i32) await;
            fd_readdir(a: i32, b: i32, c: i32, d: i64, e: i32) await;
            fd_renumber(a: i32, b: i32) await;
            fd_seek(a: i32, b: i64, c: i32, d: i32) await;
            fd_sync(a: i32) await;
            fd_tell(a: i32, b: i32);
            path_create_directory(a: i32, b: i32, c: i32) await;
            path_filestat_get(a: i32, b: i32, c: i32, d: i32, e: i32) await;
            path_filestat_set_times(a: i32, b: i32, c: i32, d: i32, e: i64, f: i64, g: i32) await;
            path_link(a: i32, b: i32, c: i32, d: i32, e: i32, f: i32, g: i32) await;
            path_open(a: i32, b: i32, c: i32, d: i32, e: i32, f: i64, g: i64, h: i32, i: i32) await;
            path_readlink(a: i32, b: i32, c: i32, d: i32, e: i32, f: i32) await;
            path_remove_directory(a: i32, b: i32, c: i32) await;
            path_rename(a: i32, b: i32, c: i32, d: i32, e: i32, f: i32) await;
            path_symlink(a: i32, b: i32, c: i32, d: i32, e: i32) await;
            path_unlink_file(a: i32, b: i32, c: i32) await;
            proc_raise(a: i32);
            sock_recv(a: i32, b: i32, c: i32, d: i32, e: i32, f: i32);
            sock_send(a: i32, b: i32, c: i32, d: i32, e: i32);
            sock_shutdown(a: i32, b: i32);
        }
    };
}

macro_rules! link {
    (($linker:ident, $module:expr, $of:ident) $($name:ident($($param:ident: $ty:ty),*) $($await:ident)?;)*) => {
        $(link_function!($linker, $module, stringify!($name), |caller $(, $param: $ty)*| {
            let (memory, state) = split(&mut caller).map_err(|_| no_memory())?;
            p1::WasiSnapshotPreview1::set_hostcall_fuel(&mut state.wasi, limits::WASI_BYTES);
            let memory = &mut GuestMemory::Unshared(memory);
            at_once(async { $of::$name(&mut state.wasi, memory $(, $param)*)$(.$await)? })
        })?;)*
    };
}

/// Links them under both names of WASI.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    functions!(link!(linker, "wasi_snapshot_preview1", p1));
    functions!(link!(linker, "wasi_unstable", p0));
    // The old one has not got this.
    link!((linker, "wasi_snapshot_preview1", p1) sock_accept(a: i32, b: i32, c: i32););
    Ok(())
}

/// The answer of a function that has nothing to wait for.
fn at_once<R>(answer: impl Future<Output = wasmtime::Result<R>>) -> wasmtime::Result<R> {
    match pin!(answer).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => Err(wasmtime::Error::msg("a function of WASI would wait")),
    }
}

fn no_memory() -> wasmtime::Error {
    wasmtime::Error::msg("the module exports no memory")
}
