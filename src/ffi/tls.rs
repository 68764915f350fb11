//! TLS that the library speaks, by what the Lua VM has set up.

use super::lua_vm;
use crate::callout::{Failure, FailureKind, Protocol, Tls, Trust, Upstream};

/// Why TLS cannot be spoken.
pub(super) const NONE: &str = "no certificates to trust were found";

/// Whose certificates are believed, of upstreams that have nothing of their own.
pub(super) fn default() -> Option<Trust> {
    lua_vm::read(|settings| settings.trust.clone()).flatten()
}

/// TLS of a gRPC connection.
pub(super) fn begin_grpc(upstream: &Upstream, name: &str) -> Result<Tls, Failure> {
    let none = || Failure::new(FailureKind::Tls, NONE);
    let trust = upstream.trust.clone().or_else(default).ok_or_else(none)?;
    Tls::new(&trust, name, Protocol::Http2)
}

/// TLS of a connection to a Redis server; `None` when nginx speaks it, or there is none.
pub(super) fn begin_redis(upstream: &Upstream, name: &str) -> Result<Option<Tls>, Failure> {
    of_http(upstream).map(|trust| Tls::new(&trust, name, Protocol::Redis)).transpose()
}

/// Whom to trust for an HTTP call, or a Redis call, with TLS that the library speaks; `None` when nginx does.
pub(super) fn of_http(upstream: &Upstream) -> Option<Trust> {
    if !upstream.tls {
        return None;
    }
    let of_http = || lua_vm::read(|settings| settings.trust_of_http).unwrap_or(false);
    upstream.trust.clone().or_else(|| default().filter(|_| of_http()))
}
