//! Whose certificates are believed where TLS is spoken by the library.

use std::ffi::c_char;

use super::boundary::boundary;
use super::failure::Failure;
use super::types::{self, RPW_CONTINUE, rpw_error_t};
use super::{lua_vm, tls, upstreams};
use crate::callout::{ClientCertificate, Trust, Trusted};

/// Trusts these certificates from now on, until `rpw_setup` is called for another Lua VM.
///
/// # Arguments
/// `pem`: certificates as text; what they are signed by is not looked at. `http`: 1 when they count for HTTP calls, too, over
/// which the library speaks TLS from then on; 0 for gRPC alone.
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
    http: i32,
    error: *mut rpw_error_t,
) -> i32 {
    boundary(error, || {
        // SAFETY: as promised by the caller.
        let pem = unsafe { types::bytes(pem, pem_length) };
        let trust = Trust::new(Trusted::Pem(pem), None).map_err(Failure::new)?;
        lua_vm::change(|settings| {
            settings.trust = Some(trust);
            settings.trust_of_http = http != 0;
        });
        Ok(RPW_CONTINUE)
    })
}

/// Says how TLS is spoken with an upstream that `rpw_upstreams` gave a name to.
///
/// # Arguments
/// `trusted`: certificates as text that its own must be signed by; empty for those of `rpw_trust`. `certificate` and `key`:
/// what is shown to it, as text; empty for nothing. `verify`: 0 to take any certificate.
/// # Returns
/// `RPW_CONTINUE`.
/// # Errors
/// `RPW_ERROR` when there is no such upstream, when its address has no TLS, and when the texts are not what they should be.
/// # Safety
/// The strings have the given lengths; `error` is NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_upstream_tls(
    name: *const c_char,
    name_length: usize,
    trusted: *const c_char,
    trusted_length: usize,
    certificate: *const c_char,
    certificate_length: usize,
    key: *const c_char,
    key_length: usize,
    verify: i32,
    error: *mut rpw_error_t,
) -> i32 {
    boundary(error, || {
        // SAFETY: as promised by the caller.
        let (name, trusted, certificate, key) = unsafe {
            (
                types::bytes(name, name_length),
                types::bytes(trusted, trusted_length),
                types::bytes(certificate, certificate_length),
                types::bytes(key, key_length),
            )
        };
        let default = tls::default();
        let trusted = match &default {
            _ if verify == 0 => Trusted::Anyone,
            _ if !trusted.is_empty() => Trusted::Pem(trusted),
            Some(trust) => Trusted::Same(trust),
            None => return Err(Failure::new(tls::NONE)),
        };
        let own = (!certificate.is_empty()).then_some(ClientCertificate { certificate, key });
        let trust = Trust::new(trusted, own).map_err(Failure::new)?;
        upstreams::set_trust(name, trust)?;
        Ok(RPW_CONTINUE)
    })
}
