//! The upstreams that `setup` gave names to.

use std::sync::atomic::Ordering;

use rustc_hash::FxHashMap;

use super::boundary::boundary;
use super::failure::Failure;
use super::types::{self, RPW_CONTINUE, rpw_error_t, rpw_pair_t};
use super::{foreign, lua_vm, nginx};
use crate::abi::LogLevel;
use crate::callout::{Rules, Trust, Upstream};
use crate::grpc;
use crate::limits;
use crate::ports::ForeignError;
use crate::vm::Module;

/// Gives upstreams names that filters may call them by, in place of those of before, until `rpw_setup` is called for
/// another Lua VM.
///
/// # Arguments
/// `asks_lua`: 1 when the function of Lua whose name is empty knows others, see `rpw_foreign_caller`. `list`: names, and as
/// values what `proxy_http_call` takes: `host`, `host:port`, an IP address or `unix:/path`, with `http://`, `https://`,
/// `grpc://` or `grpcs://` in front or not; for a Redis server `redis://` or `rediss://`. Every string is copied.
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
    asks_lua: i32,
    error: *mut rpw_error_t,
) -> i32 {
    boundary(error, || {
        let mut upstreams = FxHashMap::default();
        // SAFETY: as promised by the caller.
        for (name, address) in unsafe { types::pairs(list, length) } {
            let upstream = parse(address).ok_or_else(|| Failure::new(no_address(name, address)))?;
            upstreams.insert(name.to_vec(), upstream);
        }
        lua_vm::change(|settings| {
            settings.upstreams = upstreams;
            settings.answered = FxHashMap::default();
        });
        if let Some(vm) = lua_vm::current() {
            vm.asks_lua.store(asks_lua != 0, Ordering::Relaxed);
        }
        Ok(RPW_CONTINUE)
    })
}

/// What a name may stand for.
fn parse(address: &[u8]) -> Option<Upstream> {
    Upstream::parse_registered(address).or_else(|| grpc::upstream(address))
}

/// Says that what a name stands for is no address.
fn no_address(name: &[u8], address: &[u8]) -> String {
    let address = &address[..address.len().min(limits::SHOWN_BYTES)];
    format!(
        "upstream \"{}\": \"{}\" is not host, host:port or unix:/path, \
         with http://, https://, grpc://, grpcs://, redis:// or rediss:// in front or not",
        name.escape_ascii(),
        address.escape_ascii()
    )
}

fn asks_lua() -> bool {
    lua_vm::current().is_some_and(|vm| vm.asks_lua.load(Ordering::Relaxed))
}

/// Whether the guest may call a function of Lua: one by its name, or the one that knows upstreams.
pub(super) fn may_call_lua(module: &Module) -> bool {
    (module.calls_foreign() && foreign::any_now()) || (module.names_upstreams() && asks_lua())
}

/// Says how TLS is spoken with an upstream.
pub(super) fn set_trust(name: &[u8], trust: Trust) -> Result<(), Failure> {
    lua_vm::change(|settings| {
        let upstream = settings
            .upstreams
            .get_mut(name)
            .ok_or_else(|| Failure::new("there is no upstream of that name"))?;
        if !upstream.tls {
            return Err(Failure::new(
                "its address has no TLS: it must begin with https://, grpcs:// or rediss://",
            ));
        }
        upstream.trust = Some(trust);
        Ok(())
    })
    .unwrap_or(Ok(()))
}

/// Says what filters may call that are loaded from now on and have no rules of their own.
///
/// # Arguments
/// `list`: entries, each with the name `allow` or `deny`, and commands of Redis, each with the name `redis_commands`. An empty
/// `allow`, or an empty command, is no entry, and says that nothing is allowed but what other entries say.
/// # Returns
/// `RPW_CONTINUE`.
/// # Errors
/// `RPW_ERROR` names the first that is no entry. Then those of before stay.
/// # Safety
/// `list` has that many pairs.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn rpw_call_rules(
    list: *const rpw_pair_t,
    length: usize,
    error: *mut rpw_error_t,
) -> i32 {
    boundary(error, || {
        // SAFETY: as promised by the caller.
        let rules = unsafe { rules(list, length) }?.unwrap_or_default();
        lua_vm::change(|settings| settings.rules = rules.with_registered());
        Ok(RPW_CONTINUE)
    })
}

/// See [`rpw_call_rules`].
pub(super) fn default_rules() -> Rules {
    lua_vm::read(|settings| settings.rules.clone()).unwrap_or_default()
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
    let (mut allow, mut deny, mut commands) = (None, Vec::new(), None);
    // SAFETY: as promised by the caller.
    for (kind, entry) in unsafe { types::pairs(list, length) } {
        match kind {
            b"allow" if entry.is_empty() => drop(allow.get_or_insert_with(Vec::new)),
            b"allow" => allow.get_or_insert_with(Vec::new).push(entry),
            b"redis_commands" => {
                let list: &mut Vec<String> = commands.get_or_insert_with(Vec::new);
                if !entry.is_empty() {
                    list.push(String::from_utf8_lossy(entry).into_owned());
                }
            }
            _ if entry.is_empty() => {}
            _ => deny.push(entry),
        }
    }
    // The function of Lua is not asked what may be called: what is no entry otherwise is a name that it may know.
    let is_name = |text: &[u8]| is_listed(text) || (asks_lua() && !Rules::is_entry(text));
    let rules = Rules::parse(allow.as_deref(), &deny, is_name);
    rules.map(|rules| Some(rules.with_commands(commands))).map_err(|entry| {
        Failure::new(format!(
            "calls: \"{}\" is not a host, *.host, an address, a block of addresses or *, with :port or not, and not \
             unix:/path",
            entry.escape_ascii()
        ))
    })
}

fn is_listed(name: &[u8]) -> bool {
    lua_vm::read(|settings| settings.upstreams.contains_key(name)).unwrap_or(false)
}

/// The upstream of that name.
pub(super) fn find(name: &[u8]) -> Option<Upstream> {
    let listed = lua_vm::read(|settings| settings.upstreams.get(name).cloned()).flatten();
    if listed.is_some() || !asks_lua() || name.len() > limits::UPSTREAM_NAME {
        return listed;
    }
    let answer = match foreign::call(b"", name) {
        Ok(answer) if answer.is_empty() => None,
        Ok(answer) => {
            let upstream = parse(&answer);
            if upstream.is_none() {
                let line =
                    format!("wasm: the function of upstreams: {}", no_address(name, &answer));
                nginx::log(None, LogLevel::Error, line.as_bytes());
            }
            upstream
        }
        Err(ForeignError::Failed) => None,
        Err(ForeignError::NotHere) => {
            return lua_vm::read(|settings| settings.answered.get(name).cloned()).flatten();
        }
    };
    lua_vm::change(|settings| {
        let answered = &mut settings.answered;
        let has_room = answered.len() < limits::ANSWERED_UPSTREAMS;
        match &answer {
            Some(upstream) if has_room || answered.contains_key(name) => {
                answered.insert(name.to_vec(), upstream.clone());
            }
            Some(_) => {}
            None => drop(answered.remove(name)),
        }
    });
    answer
}
