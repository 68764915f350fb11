//! Whose certificates are believed where TLS is spoken by the library.

use std::ffi::c_char;
use std::sync::{PoisonError, RwLock};

use super::{Failure, RPW_CONTINUE, boundary, rpw_error_t, types};
use crate::callout::{self, FailureKind};
use crate::grpc::{Tls, Trust};

static TRUST: RwLock<Option<Trust>> = RwLock::new(None);

/// Trusts these certificates from now on, until `rpw_setup` is called for another Lua VM.
///
/// # Arguments
/// `pem`: certificates as text; what they are signed by is not looked at.
/// # Returns
/// `RPW_CONTINUE`.
/// # Errors
/// `RPW_ERROR` when there is none among them. Then those of before stay.
/// # Safety
/// `pem` has the given length; `error` is NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_trust(
    pem: *const c_char,
    pem_length: usize,
    error: *mut rpw_error_t,
) -> i32 {
    boundary(error, || {
        // SAFETY: as promised by the caller.
        let pem = unsafe { types::bytes(pem, pem_length) };
        set(Some(Trust::new(pem).map_err(Failure::new)?));
        Ok(RPW_CONTINUE)
    })
}

fn set(trust: Option<Trust>) {
    *TRUST.write().unwrap_or_else(PoisonError::into_inner) = trust;
}

/// Trusts nobody.
pub(super) fn clear() {
    set(None);
}

/// TLS with a server whose certificate has that name.
pub(super) fn begin(name: &str) -> Result<Tls, callout::Failure> {
    let trust = TRUST.read().unwrap_or_else(PoisonError::into_inner);
    let none = || callout::Failure::new(FailureKind::Tls, "no certificates to trust were found");
    Tls::new(trust.as_ref().ok_or_else(none)?, name)
}
