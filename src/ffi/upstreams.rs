//! The upstreams that `setup` gave names to.

use std::sync::{LazyLock, PoisonError, RwLock};

use rustc_hash::FxHashMap;

use super::{Failure, RPW_CONTINUE, boundary, rpw_error_t, rpw_pair_t, types};
use crate::callout::Upstream;

static UPSTREAMS: LazyLock<RwLock<FxHashMap<Vec<u8>, Upstream>>> = LazyLock::new(RwLock::default);

/// Gives upstreams names that filters may call them by, in place of those of before, until `rpw_setup` is called for
/// another Lua VM.
///
/// # Arguments
/// `list`: names, and as values what `proxy_http_call` takes: `host`, `host:port`, an IP address or `unix:/path`, with
/// `http://` or `https://` in front or not. Every string is copied.
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
            let upstream = Upstream::parse(address, false).ok_or_else(|| {
                let (name, address) = (name.escape_ascii(), address.escape_ascii());
                Failure::new(format!(
                    "upstream \"{name}\": \"{address}\" is not host, host:port or unix:/path, \
                     with http:// or https:// in front or not"
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

/// Forgets the names.
pub(super) fn clear() {
    set(FxHashMap::default());
}

/// The upstream of that name.
pub(super) fn find(name: &[u8]) -> Option<Upstream> {
    UPSTREAMS.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
}
