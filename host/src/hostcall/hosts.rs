//! The servers of a location's upstream, and the choice among them, as a vendor's ABI 0.2.100 has them.
//!
//! nginx shows neither without Lua that runs in its balancer, so variables of nginx stand between: the configuration says in
//! one which servers there are, and its balancer_by_lua reads from another which one the filter chose.

use wasmtime::Caller;

use super::attribute::{charge, property};
use super::memory::{Answer, give_bytes, slice, split};
use crate::abi::Status;
use crate::codec::header_map;
use crate::guest::{Return, State};
use crate::snapshot::HeaderMap;

/// Where the configuration lists the servers, with blanks or commas between.
const HOSTS: &[u8] = b"wasm_upstream_hosts";
/// Where the filter's choice goes.
const CHOSEN: &[u8] = b"wasm_upstream_host";

/// What is known of a server: nginx tells nothing else of it.
const INFO: &[u8] = br#"{"health_status":"Healthy","metrics":""}"#;

pub fn proxy_get_upstream_hosts(
    caller: &mut Caller<'_, State>,
    return_data: u32,
    return_size: u32,
) -> Answer {
    let to = Return { data: return_data, size: return_size };
    let (memory, state) = split(caller)?;
    to.check(memory)?;
    let Some(list) = property(state, HOSTS) else {
        state.warn_once(
            "a filter asks for the servers of the upstream: the variable $wasm_upstream_hosts would name them",
        );
        return give_bytes(caller, to, Vec::new());
    };
    let mut hosts = HeaderMap::new();
    let is_between = |byte: &u8| byte.is_ascii_whitespace() || *byte == b',';
    for host in list.split(is_between).filter(|host| !host.is_empty()) {
        hosts.push(host, INFO);
    }
    let mut out = Vec::new();
    if !hosts.is_empty() {
        header_map::encode(&hosts, &mut out);
    }
    give_bytes(caller, to, out)
}

pub fn proxy_set_upstream_override_host(
    caller: &mut Caller<'_, State>,
    address: u32,
    address_size: u32,
) -> Answer {
    let (memory, state) = split(caller)?;
    let address = slice(memory, address, address_size)?;
    let Some(request) = state.request() else { return Err(Status::BadArgument.into()) };
    let is_address = |byte: &u8| byte.is_ascii_alphanumeric() || b".:[]-_/".contains(byte);
    if address.len() > ADDRESS || !address.iter().all(is_address) {
        state.warn("a filter chooses a server that is no address");
        return Err(Status::BadArgument.into());
    }
    match state.host.set_property(request, CHOSEN, address) {
        Ok(()) => {
            charge(state, address);
            Ok(())
        }
        Err(_) => {
            state.warn_once(
                "a filter chooses the server of the upstream: `set $wasm_upstream_host \"\";` and a balancer_by_lua \
                 that reads it would do that (docs/semantics.md)",
            );
            Err(Status::NotFound.into())
        }
    }
}

/// The longest address: of a name, and a port.
const ADDRESS: usize = 300;
