//! An nginx with the filters of a scenario, in front of an upstream.

use super::service::Service;
use super::values::{bytes, list, lua, string, word};
use crate::support::clock::Clock;
use crate::support::{Nginx, Upstream, root};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

/// The name of filters that do what other workers do in a scenario.
pub(super) const OTHERS: &str = "scenario_others";

/// The properties that come from the address that a header has.
const OF_SOURCE: [&str; 3] = ["source.address", "source.port", "remote_addr"];

/// The header with a property of a request.
pub(super) fn property_header(name: &str) -> String {
    match OF_SOURCE.contains(&name) {
        true => "X-Scenario-Source".into(),
        false => format!("X-Scenario-{}", variable(name).replace('_', "-")),
    }
}

/// The variable of nginx that a property is.
fn variable(name: &str) -> &str {
    let name = name.strip_prefix("ngx.").unwrap_or(name);
    assert!(!name.contains('.'), "nginx has its own value for {name}");
    name
}

pub(super) fn nginx(
    played: &Value,
    service: &Service,
    upstream: &Upstream,
    clock: &Clock,
) -> Nginx {
    let mut nginx = Nginx::new().guest("probe");
    for (name, value) in clock.env() {
        nginx = nginx.env(name, &value);
    }
    let mut init = setup(service);
    for (index, filter) in list(&played["filters"]).iter().enumerate() {
        let file = root().join(string(&filter["file"]));
        nginx = nginx.file(&format!("{index}.wasm"), fs::read(file).expect("a filter"));
        init += &load(index, filter, service);
    }
    let steps = list(&played["steps"]);
    for (index, step) in steps.iter().enumerate() {
        for (number, other) in list(&step["others"]).iter().enumerate() {
            init += &other_worker(&format!("{index}.{number}"), other);
        }
    }
    let names = steps.iter().flat_map(|step| step["sent"]["properties"].as_object());
    let names: BTreeSet<&String> = names.flat_map(|properties| properties.keys()).collect();
    let (mut declared, mut taken) = (String::new(), String::new());
    for name in names {
        let header = property_header(name);
        writeln!(taken, "ngx.req.clear_header(\"{header}\")").expect("text");
        if !OF_SOURCE.contains(&&**name) {
            let name = variable(name);
            writeln!(declared, "set ${name} \"\";").expect("text");
            let read = header.to_lowercase().replace('-', "_");
            taken = format!("ngx.var.{name} = ngx.var.http_{read}\n{taken}");
        }
    }
    let resolver = service.resolver.as_ref().map(|at| format!("resolver {at} ipv6=off;\n"));
    nginx
        .log_level(string(&played["log_level"]))
        .http(&format!(
            "lua_socket_log_errors off;\n\
             {}\
             set_real_ip_from 127.0.0.1;\n\
             real_ip_header X-Scenario-Source;\n\
             init_by_lua_block {{\n{init}chain = wasm.new_chain(contexts)\n}}\n\
             init_worker_by_lua_block {{ assert(wasm.init_worker()) }}\n",
            resolver.unwrap_or_default()
        ))
        .server(&format!(
            r#"
            {declared}
            location / {{
                rewrite_by_lua_block {{
                    {taken}
                }}
                access_by_lua_block {{ chain:access() }}
                header_filter_by_lua_block {{ chain:header_filter() }}
                body_filter_by_lua_block {{ chain:body_filter() }}
                proxy_set_header Host $http_host;
                proxy_set_header Connection close;
                proxy_pass {};
            }}
            location /.others/ {{
                access_by_lua_block {{ others[ngx.var.uri:sub(10)]:access() }}
                content_by_lua_block {{ ngx.exit(204) }}
            }}
            "#,
            upstream.url()
        ))
}

fn setup(service: &Service) -> String {
    let pairs = service.addresses.iter();
    let pairs: Vec<String> =
        pairs.map(|(name, url)| format!("[{}] = {}", lua(name), lua(url))).collect();
    format!(
        "wasm = require(\"resty.proxy-wasm\")\n\
         assert(wasm.setup({{ upstreams = {{ {} }} }}))\n\
         local contexts = {{}}\n\
         others = {{}}\n",
        pairs.join(", ")
    )
}

/// The lines of Lua that load and configure a filter.
fn load(index: usize, filter: &Value, service: &Service) -> String {
    let mut options = vec![
        format!("root_id = {}", lua(string(&filter["root_id"]))),
        format!("vm_id = {}", lua(string(&filter["vm_id"]))),
        format!("vm_config = {}", lua(bytes(&filter["vm_configuration"]))),
        format!("memory_limit = {}", filter["memory_limit"]),
        format!("time_limit = {}", filter["time_limit_ms"]),
        format!("start_time_limit = {}", filter["start_time_limit_ms"]),
        format!("pause_timeout = {}", filter["pause_timeout_ms"]),
        format!("body_limit = {}", filter["body_limit"]),
        format!("body = {}", filter["body"]),
        format!("fail = \"{}\"", if filter["fail_open"] == true { "open" } else { "closed" }),
    ];
    if let Some(hold) = filter["calls_hold"].as_bool() {
        options.push(format!("calls_hold = {hold}"));
    }
    let env = filter["env"].as_object().expect("a map").iter();
    let env: Vec<String> =
        env.map(|(name, value)| format!("[{}] = {}", lua(name), lua(string(value)))).collect();
    options.push(format!("env = {{ {} }}", env.join(", ")));
    if service.resolver.is_some() {
        // What the resolver answers is an address that filters may not call.
        options.push("calls = { deny = { \"127.0.0.0/8\" } }".into());
    }
    let configuration = &filter["configuration"];
    let configuration =
        if configuration.is_null() { "nil".into() } else { lua(bytes(configuration)) };
    format!(
        "local plugin = assert(wasm.load({}, \"{index}.wasm\", {{ {} }}))\n\
         contexts[{}] = assert(wasm.on_configure(plugin, {configuration}))\n",
        lua(string(&filter["name"])),
        options.join(", "),
        index + 1
    )
}

/// A filter that does what another worker does.
fn other_worker(name: &str, does: &Value) -> String {
    let data = word(bytes(&does["data"]));
    let script = match does["queue"].as_str() {
        Some(queue) => format!(
            "request_headers: resolve_shared_queue {} {} >Q\n\
             request_headers: enqueue_shared_queue $Q {data}",
            word(string(&does["vm_id"])),
            word(queue)
        ),
        None => {
            format!("request_headers: set_shared_data {} {data} 0", word(string(&does["key"])))
        }
    };
    format!(
        "local plugin = assert(wasm.load(\"{OTHERS}\", \"probe.wasm\", {{ vm_id = {} }}))\n\
         others[\"{name}\"] = wasm.new_chain({{ assert(wasm.on_configure(plugin, {})) }})\n",
        lua(string(&does["vm_id"])),
        lua(script)
    )
}
