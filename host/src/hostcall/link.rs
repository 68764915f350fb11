//! How functions are linked for guests. All of them go through here, so that none does anything for a guest whose time is
//! over: code without loops looks at no clock by itself.

use wasmtime::{Caller, FuncType, Linker, Trap, Val};

use crate::guest::State;

/// Links a function with the types of the closure's parameters.
macro_rules! link_function {
    ($linker:expr, $module:expr, $name:expr, |$caller:ident $(, $param:ident: $ty:ty)*| $body:expr) => {{
        #[allow(clippy::disallowed_methods, reason = "the one place")]
        #[allow(unused_mut, reason = "some functions need nothing of the caller")]
        let linked = $linker.func_wrap(
            $module,
            $name,
            |mut $caller: ::wasmtime::Caller<'_, $crate::guest::State> $(, $param: $ty)*| {
                $crate::hostcall::link::check_time(&$caller)?;
                $body
            },
        );
        linked
    }};
}
pub(crate) use link_function;

/// Links a function of a type that a module has made up.
#[allow(clippy::disallowed_methods, reason = "the one place")]
pub fn link_any(
    linker: &mut Linker<State>,
    (module, name): (&str, &str),
    ty: FuncType,
    function: impl Fn(&State, &mut [Val]) -> wasmtime::Result<()> + Send + Sync + 'static,
) -> wasmtime::Result<()> {
    linker.func_new(module, name, ty, move |caller, _, results| {
        check_time(&caller)?;
        function(caller.data(), results)
    })?;
    Ok(())
}

/// Links a function that runs between two callbacks, when no guest's time runs.
#[allow(clippy::disallowed_methods, reason = "the one place")]
pub fn link_between(
    linker: &mut Linker<State>,
    (module, name): (&str, &str),
    function: impl Fn(&mut Caller<'_, State>, u32) -> u32 + Send + Sync + 'static,
) -> wasmtime::Result<()> {
    linker.func_wrap(module, name, move |mut caller: Caller<'_, State>, number: u32| {
        function(&mut caller, number)
    })?;
    Ok(())
}

/// Ends the guest as its own code does when it finds its time over.
#[inline]
pub fn check_time(caller: &Caller<'_, State>) -> wasmtime::Result<()> {
    if caller.data().deadline.is_over() { Err(time_is_over()) } else { Ok(()) }
}

#[cold]
fn time_is_over() -> wasmtime::Error {
    Trap::Interrupt.into()
}
