//! Redis calls, as a vendor's ABI 0.2.100 has them.

use std::sync::Arc;

use wasmtime::Caller;

use super::dispatch::{begin, judge, too_many_calls, warn_refused};
use super::memory::{Answer, slice, split, write_u32};
use super::shown;
use crate::abi::Status;
use crate::guest::State;
use crate::limits;
use crate::redis::{self, Call, Command, Options, Query, Refusal, Target};
use crate::store::Count;

/// Milliseconds that a call to a server may take that the filter did not begin with.
const DEFAULT_TIMEOUT_MS: u32 = 1000;

/// Says as whom, and for how long, calls of this plugin context ask a server. No connection is made before the first call.
pub(super) fn proxy_redis_init(
    caller: &mut Caller<'_, State>,
    upstream: u32,
    upstream_size: u32,
    username: u32,
    username_size: u32,
    password: u32,
    password_size: u32,
    timeout_ms: u32,
) -> Answer {
    const FUNCTION: &str = "proxy_redis_init";
    let (memory, state) = split(caller)?;
    let name = slice(memory, upstream, upstream_size)?;
    let username = slice(memory, username, username_size)?;
    let password = slice(memory, password, password_size)?;
    if username.len().max(password.len()) > limits::REDIS_CREDENTIAL {
        state.warn("proxy_redis_init: the name or the password of the user is too long");
        return Err(Status::BadArgument.into());
    }
    if timeout_ms > i32::MAX as u32 {
        return Err(Status::BadArgument.into());
    }
    let timeout_ms =
        if timeout_ms == 0 { limits::CALL_MS } else { timeout_ms.min(limits::CALL_MS) };
    let (name, options) = redis::split(name);
    let Some(options) = Options::parse(options, username, password) else {
        state.warn("proxy_redis_init: the option db is no number of a database");
        return Err(Status::BadArgument.into());
    };
    let target = Arc::new(target(state, FUNCTION, name, options, timeout_ms)?);
    let effective = state.call.effective;
    let root = state.contexts.root_of(effective).map(|root| root.id).ok_or(Status::BadArgument)?;
    let root = state.contexts.roots.get_mut(&root).ok_or(Status::BadArgument)?;
    let at = root.redis.iter().position(|(this, _)| **this == *name);
    match at {
        Some(at) => {
            root.redis[at].1 = target.clone();
            state.calls.ask_redis(Command::Renew(target));
            state.host.work_waits();
        }
        None if root.redis.len() >= limits::REDIS_UPSTREAMS => {
            state.warn_once("a filter begins with more Redis servers than the host keeps for it");
            return Err(Status::InternalFailure.into());
        }
        None => root.redis.push((name.into(), target)),
    }
    Ok(())
}

pub(super) fn proxy_redis_call(
    caller: &mut Caller<'_, State>,
    upstream: u32,
    upstream_size: u32,
    query: u32,
    query_size: u32,
    return_token: u32,
) -> Answer {
    const FUNCTION: &str = "proxy_redis_call";
    let (memory, state) = split(caller)?;
    let (name, options) = redis::split(slice(memory, upstream, upstream_size)?);
    let query = slice(memory, query, query_size)?;
    slice(memory, return_token, 4)?;
    // Before it is copied.
    if query.len() > limits::CALL_REQUEST_BODIES {
        return Err(too_many_calls(state).into());
    }
    let root = state.contexts.root_of(state.call.effective).ok_or(Status::BadArgument)?;
    let target = match root.redis(name) {
        Some(target) => target.clone(),
        None => {
            let options = Options::parse(options, b"", b"").ok_or(Status::BadArgument)?;
            Arc::new(target(state, FUNCTION, name, options, DEFAULT_TIMEOUT_MS)?)
        }
    };
    let query = match Query::parse(query, |command| state.plugin.calls.permits_command(command)) {
        Ok(query) => query,
        Err(refusal) => {
            refuse(state, refusal);
            return Err(Status::BadArgument.into());
        }
    };
    let token = begin(state, String::new(), query.bytes.len())?;
    if state.outlives_its_requests() {
        state.end_call(token);
        return Ok(write_u32(memory, return_token, token)?);
    }
    let timeout_ms = target.timeout_ms;
    state.calls.ask_redis(Command::Call(Call { token, target, query, timeout_ms }));
    state.own.count(Count::RedisCalls);
    state.host.work_waits();
    Ok(write_u32(memory, return_token, token)?)
}

/// The server of a name without options, when the filter may call it.
fn target(
    state: &mut State,
    function: &str,
    name: &[u8],
    options: Options,
    timeout_ms: u32,
) -> Result<Target, Status> {
    let mut is_registered = false;
    let found = Target::find_upstream(name, |name| {
        let registered = state.host.upstream(name);
        is_registered = registered.is_some();
        registered
    });
    let Some(upstream) = found else {
        state.warn(&format!(
            "{function}: \"{}\" is neither a registered upstream for Redis nor the name of a host",
            shown(name)
        ));
        return Err(Status::BadArgument);
    };
    // The address of a name is not judged here, so where rules ask for that the call is refused.
    if judge(state, function, is_registered.then_some(name), &upstream)?.is_some() {
        warn_refused(state, function, upstream.target.to_string());
        return Err(Status::BadArgument);
    }
    let name = name.escape_ascii().to_string();
    Ok(Target { name, upstream, options, timeout_ms })
}

fn refuse(state: &mut State, refusal: Refusal) {
    match refusal {
        Refusal::Malformed => {
            state.warn(
                "proxy_redis_call: the query is no list of commands, each an array of strings",
            );
        }
        Refusal::Unsafe(command) => state.warn(&format!(
            "proxy_redis_call: {} is refused: other calls share the connection",
            command.escape_default()
        )),
        Refusal::NotAllowed(command) => {
            let command = format!("redis command {}", command.escape_default());
            warn_refused(state, "proxy_redis_call", command);
        }
    }
}
