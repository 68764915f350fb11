//! What a Lua VM begins with.

use super::boundary::boundary;
use super::failure::Failure;
use super::functions::{Functions, rpw_nginx_t};
use super::types::{RPW_CONTINUE, rpw_error_t};
use super::{forks, lua_vm};

/// Takes the functions of nginx over. To be called once for each Lua VM: a reload brings a new one, which begins
/// without a folder for compiled modules and without names of upstreams and of foreign functions.
///
/// # Returns
/// `RPW_CONTINUE`, or `RPW_ERROR` when a function is missing.
/// # Safety
/// `functions` is valid for the call and its members are what their names say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_setup(functions: *const rpw_nginx_t, error: *mut rpw_error_t) -> i32 {
    boundary(error, || {
        // SAFETY: as promised by the caller.
        let functions = unsafe { functions.as_ref() }
            .ok_or_else(|| Failure::new("rpw_setup: NULL argument"))?;
        let found = Functions::new(functions)
            .ok_or_else(|| Failure::new("rpw_setup: a function is NULL"))?;
        forks::watch();
        lua_vm::begin(found);
        Ok(RPW_CONTINUE)
    })
}
