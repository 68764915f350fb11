//! The upstreams that `setup` gave names to.

use std::sync::{LazyLock, PoisonError, RwLock};

use rustc_hash::FxHashMap;

use super::{Failure, RPW_CONTINUE, boundary, rpw_error_t, rpw_pair_t, types};
use crate::callout::{Rules, Trust, Upstream};
use crate::grpc;

static RULES: LazyLock<RwLock<Rules>> = LazyLock::new(RwLock::default);

static UPSTREAMS: LazyLock<RwLock<FxHashMap<Vec<u8>, Upstream>>> = LazyLock::new(RwLock::default);

/// Gives upstreams names that filters may call them by, in place of those of before, until `rpw_setup` is called for
/// another Lua VM.
///
/// # Arguments
/// `list`: names, and as values what `proxy_http_call` takes: `host`, `host:port`, an IP address or `unix:/path`, with
/// `http://`, `https://`, `grpc://` or `grpcs://` in front or not. Every string is copied.
/// # Returns
/// `RPW_CONTINUE`.
/// # Errors
/// `RPW_ERROR` names the first that is no address. Then those of before stay.
/// # Safety
/// `list` has that many pairs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_upstreams(
    list: *const rpw_pair_t,
    length: usize,
    error: *mut rpw_error_t,
) -> i32 {
    boundary(error, || {
        let mut upstreams = FxHashMap::default();
        // SAFETY: as promised by the caller.
        for (name, address) in unsafe { types::pairs(list, length) } {
            let upstream = grpc::upstream(address).ok_or_else(|| {
                let (name, address) = (name.escape_ascii(), address.escape_ascii());
                Failure::new(format!(
                    "upstream \"{name}\": \"{address}\" is not host, host:port or unix:/path, \
                     with http://, https://, grpc:// or grpcs:// in front or not"
                ))
            })?;
            upstreams.insert(name.to_vec(), upstream);
        }
        set(upstreams);
        Ok(RPW_CONTINUE)
    })
}

fn set(upstreams: FxHashMap<Vec<u8>, Upstream>) {
    *UPSTREAMS.write().unwrap_or_else(PoisonError::into_inner) = upstreams;
}

/// Says how TLS is spoken with an upstream.
pub(super) fn set_trust(name: &[u8], trust: Trust) -> Result<(), Failure> {
    let mut upstreams = UPSTREAMS.write().unwrap_or_else(PoisonError::into_inner);
    let upstream =
        upstreams.get_mut(name).ok_or_else(|| Failure::new("there is no upstream of that name"))?;
    if !upstream.tls {
        return Err(Failure::new(
            "its address has no TLS: it must begin with https:// or grpcs://",
        ));
    }
    upstream.trust = Some(trust);
    Ok(())
}

/// Says what filters may call that are loaded from now on and have no rules of their own.
///
/// # Arguments
/// `list`: entries, each with the name `allow` or `deny`. An empty `allow` is no entry, and says that nothing is allowed but
/// what other entries say.
/// # Returns
/// `RPW_CONTINUE`.
/// # Errors
/// `RPW_ERROR` names the first that is no entry. Then those of before stay.
/// # Safety
/// `list` has that many pairs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_call_rules(
    list: *const rpw_pair_t,
    length: usize,
    error: *mut rpw_error_t,
) -> i32 {
    boundary(error, || {
        // SAFETY: as promised by the caller.
        let rules = unsafe { rules(list, length) }?.unwrap_or_default();
        set_rules(rules.with_registered());
        Ok(RPW_CONTINUE)
    })
}

fn set_rules(rules: Rules) {
    *RULES.write().unwrap_or_else(PoisonError::into_inner) = rules;
}

/// See [`rpw_call_rules`].
pub(super) fn default_rules() -> Rules {
    RULES.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Reads rules, see [`rpw_call_rules`]. `None` when there are none.
///
/// # Safety
/// `list` has that many pairs.
pub(super) unsafe fn rules(
    list: *const rpw_pair_t,
    length: usize,
) -> Result<Option<Rules>, Failure> {
    if length == 0 {
        return Ok(None);
    }
    let (mut allow, mut deny) = (None, Vec::new());
    // SAFETY: as promised by the caller.
    for (kind, entry) in unsafe { types::pairs(list, length) } {
        match kind {
            b"allow" if entry.is_empty() => drop(allow.get_or_insert_with(Vec::new)),
            b"allow" => allow.get_or_insert_with(Vec::new).push(entry),
            _ if entry.is_empty() => {}
            _ => deny.push(entry),
        }
    }
    let rules = Rules::parse(allow.as_deref(), &deny, |name| find(name).is_some());
    rules.map(Some).map_err(|entry| {
        Failure::new(format!(
            "calls: \"{}\" is not a host, *.host, an address, a block of addresses or *, with :port or not, and not \
             unix:/path",
            entry.escape_ascii()
        ))
    })
}

/// Forgets the names.
pub(super) fn clear() {
    set_rules(Rules::default());
    set(FxHashMap::default());
}

/// The upstream of that name.
pub(super) fn find(name: &[u8]) -> Option<Upstream> {
    UPSTREAMS.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
}
