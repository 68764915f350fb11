//! The servers of a location's upstream, and the choice among them, as a vendor's ABI 0.2.100 has them.
//!
//! The host's server may show neither. Then variables stand between: the configuration says in one which servers there are, and
//! its balancer reads from another which one the filter chose.

use serde_json::{Map, Value};
use wasmtime::Caller;

use super::attribute::{charge, property};
use super::memory::{Answer, give_bytes, slice, split};
use crate::abi::Status;
use crate::codec::header_map;
use crate::guest::{Return, State};
use crate::snapshot::HeaderMap;

/// Where the configuration lists the servers: with blanks or commas between, or as a JSON object of what is known of each.
const HOSTS: &[u8] = b"wasm_upstream_hosts";
/// Where the filter's choice goes.
const CHOSEN: &[u8] = b"wasm_upstream_host";

/// What is known of a server that is only listed.
const INFO: &[u8] = br#"{"health_status":"Healthy","metrics":""}"#;

pub(super) fn proxy_get_upstream_hosts(
    caller: &mut Caller<'_, State>,
    return_data: u32,
    return_size: u32,
) -> Answer {
    let to = Return { data: return_data, size: return_size };
    let (memory, state) = split(caller)?;
    to.check(memory)?;
    let mut list = Vec::new();
    let Some(()) = property(state, HOSTS, &mut list) else {
        state.warn_once(
            "a filter asks for the servers of the upstream: the variable $wasm_upstream_hosts would name them",
        );
        return give_bytes(caller, to, Vec::new());
    };
    let Some(hosts) = read(&list) else {
        state.warn_once("$wasm_upstream_hosts begins as a JSON object and is none");
        return give_bytes(caller, to, Vec::new());
    };
    let mut out = Vec::new();
    if !hosts.is_empty() {
        header_map::encode(&hosts, &mut out);
    }
    give_bytes(caller, to, out)
}

/// The servers of a list, with what the guest is told of each. `None` when it begins as JSON and is something else.
fn read(list: &[u8]) -> Option<HeaderMap> {
    let mut hosts = HeaderMap::new();
    if list.trim_ascii_start().starts_with(b"{") {
        let described: Map<String, Value> = serde_json::from_slice(list).ok()?;
        for (host, info) in described {
            hosts.push(host.as_bytes(), info.to_string().as_bytes());
        }
        return Some(hosts);
    }
    let is_between = |byte: &u8| byte.is_ascii_whitespace() || *byte == b',';
    for host in list.split(is_between).filter(|host| !host.is_empty()) {
        hosts.push(host, INFO);
    }
    Some(hosts)
}

pub(super) fn proxy_set_upstream_override_host(
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
                 that reads it would do that (docs/hub.md)",
            );
            Err(Status::NotFound.into())
        }
    }
}

/// The longest address: of a name, and a port.
const ADDRESS: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(list: &str) -> Option<Vec<(String, String)>> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Some(read(list.as_bytes())?.iter().map(|(name, value)| (text(name), text(value))).collect())
    }

    #[test]
    fn lists() {
        let info = String::from_utf8_lossy(INFO).into_owned();
        let named = |name: &str| (name.to_string(), info.clone());
        assert_eq!(read_all("a:1, b:2"), Some(vec![named("a:1"), named("b:2")]));
        assert_eq!(read_all(""), Some(vec![]));
        let described = r#" {"a:1": {"health_status":"Healthy","metrics":"x 1\n"}, "b:2":{}}"#;
        let metrics = r#"{"health_status":"Healthy","metrics":"x 1\n"}"#;
        assert_eq!(
            read_all(described),
            Some(vec![("a:1".into(), metrics.into()), ("b:2".into(), "{}".into())])
        );
        assert_eq!(read_all("{}"), Some(vec![]));
        assert_eq!(read_all(r#"{"a:1""#), None);
    }
}
