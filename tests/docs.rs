//! The documentation against the code: its tables and its synopsis are made from the code, each call and option has its
//! place, and each link leads somewhere.
//!
//! `RPW_BLESS=1 cargo test --release --test core docs` writes what is stale.

use resty_proxy_wasm::abi::{
    Attribute, COMMANDS, Callback, FOREIGN_FUNCTIONS, HOST_FUNCTIONS, PROPERTIES, Source, Support,
    ValueType, WASI_FUNCTIONS,
};
use resty_proxy_wasm::limits;
use resty_proxy_wasm::shm::{CallKind, Shared};
use resty_proxy_wasm::store::Counters as _;
use resty_proxy_wasm::vm::proposals::PROPOSALS;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

/// The pages with generated parts, and how many each has.
const GENERATED: [(&str, usize); 3] =
    [("README.md", 1), ("docs/limits.md", 1), ("docs/support.md", 8)];

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn source(path: &str) -> String {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands between `<!-- generated: NAME -->` and `<!-- end -->`.
fn generated(name: &str) -> String {
    match name {
        "synopsis" => synopsis(),
        "limits" => limits_table(),
        "host functions" => host_functions(false),
        "vendor functions" => host_functions(true),
        "foreign functions" => pairs(&["foreign function", "what it does"], FOREIGN_FUNCTIONS),
        "commands" => pairs(&["property", "what setting it does"], COMMANDS),
        "callbacks" => callbacks(),
        "properties" => properties(),
        "WASI" => wasi(),
        "proposals" => proposals(),
        other => panic!("a page has a generated part {other:?}, and nobody generates it"),
    }
}

#[test]
fn generated_parts_are_fresh() {
    for (page, parts) in GENERATED {
        let old = source(page);
        let (mut new, mut rest, mut count) = (String::new(), old.as_str(), 0);
        while let Some((before, after)) = rest.split_once("<!-- generated: ") {
            let (name, after) = after.split_once(" -->\n").expect("the end of a marker");
            let (_, after) = after.split_once("<!-- end -->").expect("the end of a generated part");
            write!(new, "{before}<!-- generated: {name} -->\n\n{}\n<!-- end -->", generated(name))
                .expect("room");
            rest = after;
            count += 1;
        }
        new += rest;
        assert_eq!(count, parts, "{page}: generated parts");
        if std::env::var_os("RPW_BLESS").is_some() {
            fs::write(format!("{ROOT}/{page}"), new).expect("a page that can be written");
        } else {
            assert!(
                new == old,
                "{page} is stale: RPW_BLESS=1 cargo test --release --test core docs"
            );
        }
    }
}

/// Every Markdown page of the repository, by its path from the root.
fn pages() -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(format!("{ROOT}/{folder}")).expect("a folder") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("a name in UTF-8");
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            if entry.file_type().expect("a type").is_dir() {
                if !name.starts_with('.') && !["target", "node_modules"].contains(&name.as_str()) {
                    folders.push(path);
                }
            } else if name.ends_with(".md") {
                found.push(path);
            }
        }
    }
    found
}

/// The page without its blocks of code.
fn prose(page: &str) -> String {
    let text = source(page);
    text.split("```").step_by(2).collect()
}

/// The anchors of a page, made from its headings as GitHub makes them.
fn anchors(page: &str) -> Vec<String> {
    let text = prose(page);
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let kept = |c: &char| c.is_alphanumeric() || "_- ".contains(*c);
            let text = line.trim_start_matches('#').trim().to_lowercase();
            text.chars().filter(kept).collect::<String>().replace(' ', "-")
        })
        .collect()
}

/// The path of `to`, a path relative to the folder of `page`, from the root.
fn resolve(page: &str, to: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in to.split('/') {
        match part {
            ".." => assert!(parts.pop().is_some(), "{page}: {to} leaves the repository"),
            "." | "" => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[test]
fn every_link_leads_somewhere() {
    let (mut checked, mut broken) = (0, Vec::new());
    for page in pages() {
        let text = prose(&page);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')) {
            let link = link.0;
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { page.clone() } else { resolve(&page, path) };
            let there = fs::metadata(format!("{ROOT}/{target}")).is_ok()
                && (anchor.is_empty() || anchors(&target).iter().any(|found| found == anchor));
            checked += 1;
            if !there {
                broken.push(format!("{page}: {link}"));
            }
        }
    }
    assert!(checked > 60, "only {checked} links were found");
    assert!(broken.is_empty(), "links that lead nowhere: {broken:#?}");
}

#[test]
fn the_readme_is_short() {
    assert!(source("README.md").lines().count() <= 300);
}

fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut text = format!("| {} |\n|{}\n", head.join(" | "), " --- |".repeat(head.len()));
    for row in rows {
        writeln!(text, "| {} |", row.join(" | ")).expect("room");
    }
    text
}

fn pairs(head: &[&str], pairs: &[(&str, &str)]) -> String {
    table(head, pairs.iter().map(|(name, what)| vec![format!("`{name}`"), (*what).into()]))
}

fn host_functions(vendor: bool) -> String {
    let of_kind = HOST_FUNCTIONS.iter().filter(|f| (f.versions == "0.2.100") == vendor);
    let rows = of_kind.map(|f| {
        let params: Vec<&str> = f.params.iter().map(|(name, _)| *name).collect();
        let support = match f.support {
            Support::Full => "yes".to_string(),
            Support::Answers(text) => format!("answers {text}"),
        };
        vec![format!("`{}({})`", f.name, params.join(", ")), f.versions.into(), support]
    });
    table(&["function", "ABI", "supported"], rows)
}

fn callbacks() -> String {
    let rows = Callback::ALL.iter().map(|c| vec![format!("`{c}`"), c.support().into()]);
    table(&["export", "called"], rows)
}

fn wasi() -> String {
    pairs(&["function", "what a filter gets"], WASI_FUNCTIONS)
}

fn proposals() -> String {
    let rows = PROPOSALS.iter().map(|proposal| {
        let (state, why) = proposal.off.as_ref().map_or(("on", ""), |off| ("off", off.why));
        vec![proposal.name.into(), state.into(), why.into()]
    });
    table(&["proposal", "here", "why it is off"], rows)
}

fn properties() -> String {
    let rows = PROPERTIES.iter().map(|p| {
        let value = match p.value {
            ValueType::String => "string",
            ValueType::Int => "int",
            ValueType::Uint => "uint",
            ValueType::Bool => "bool",
            ValueType::Timestamp => "timestamp",
            ValueType::Duration => "duration",
            ValueType::Map => "map",
        };
        vec![format!("`{}`", p.path), value.into(), from(p.source)]
    });
    table(&["property", "type", "from"], rows)
}

fn variables(attribute: Attribute<'_>) -> String {
    let names = nginx_variables::names(attribute).iter();
    names.map(|name| format!("`${name}`")).collect::<Vec<_>>().join(", else ")
}

fn from(source: Source) -> String {
    match source {
        Source::Path => "[the path of the request](semantics.md#paths)".into(),
        Source::UrlPath => "the same, without the query".into(),
        Source::RequestHeader(name) => format!("request header `{name}`"),
        Source::ResponseHeader(name) => format!("response header `{name}`"),
        Source::RequestHeaders => "request headers; `request.headers.NAME` is one value".into(),
        Source::ResponseHeaders => "response headers; `response.headers.NAME` is one value".into(),
        Source::ResponseTrailers => {
            "[trailers](semantics.md#trailers) of the response, at its end".into()
        }
        Source::GrpcStatus => "response header or trailer `grpc-status`".into(),
        Source::Attribute(Attribute::RequestProtocol) => {
            "`$server_protocol`; `HTTP/2`, not `HTTP/2.0`".into()
        }
        Source::Attribute(Attribute::RequestStart) => "`$msec` less `$request_time`".into(),
        Source::Attribute(Attribute::UpstreamAddress) => {
            "the last server in `$upstream_addr`".into()
        }
        Source::Attribute(Attribute::UpstreamPort) => "its port".into(),
        Source::Attribute(attribute) => variables(attribute),
        Source::Size(attribute) => format!("{}, 0 without one", variables(attribute)),
        Source::ResponseCode => "the status of the response, once there is one".into(),
        Source::CodeDetails => {
            "the details of a local response, else `via_upstream` or `direct_response`".into()
        }
        Source::Address(address, port) => {
            format!("{} and {}, as `address:port`", variables(address), variables(port))
        }
        Source::Mtls => "whether `$ssl_client_verify` is `SUCCESS`".into(),
        Source::PeerDigest => "SHA-256 of `$ssl_client_raw_cert`, in hexadecimal".into(),
        Source::PluginName => "the name given to `load`".into(),
        Source::RootId => "option `root_id`".into(),
        Source::VmId => "option `vm_id`".into(),
        Source::Memory => "bytes of memory that the VM has".into(),
        Source::Constant(number) => format!("always {number}"),
        Source::Missing => "not there: nginx does not tell".into(),
    }
}

/// Each constant of `limits.rs`: its name, its value, and the text above it.
fn constants() -> Vec<(String, u64, String)> {
    let text = source("host/src/limits.rs");
    let (mut found, mut about) = (Vec::new(), String::new());
    for line in text.lines() {
        if let Some(part) = line.strip_prefix("///") {
            about += part;
        } else if let Some(constant) = line.strip_prefix("pub const ") {
            let (name, rest) = constant.split_once(':').expect("a type");
            let (_, value) = rest.trim_end_matches(';').split_once(" = ").expect("a value");
            let number =
                |part: &str| part.trim().replace('_', "").parse::<u64>().expect("a number");
            let value = value.split('*').map(number).product();
            found.push((name.to_string(), value, about.trim().to_string()));
            about.clear();
        } else if !line.starts_with("//!") {
            assert_eq!(about, "", "limits.rs: a text above nothing");
        }
    }
    found
}

fn amount(name: &str, value: u64) -> String {
    let counts = [
        "PAIRS",
        "IOVECS",
        "PROPERTIES",
        "EFFECTS",
        "SUBSCRIPTIONS",
        "ELEMENTS",
        "TABLES",
        "WARNINGS",
        "HANDOVERS",
        "EVICTIONS",
        "ENTRIES",
        "NAMES",
        "PROCESSES",
        "MESSAGES",
        "CALLS",
        "CONNECTIONS",
        "TRAILERS",
        "THREADS",
        "TARGETS",
        "UPSTREAMS",
    ];
    let sizes = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    if name.ends_with("_MS") {
        return format!("{value} ms");
    }
    match sizes.iter().find(|(size, _)| value.is_multiple_of(*size)) {
        _ if counts.iter().any(|ending| name.ends_with(ending)) => value.to_string(),
        Some((size, unit)) => format!("{} {unit}", value / size),
        None => format!("{value} bytes"),
    }
}

fn limits_table() -> String {
    let rows = constants()
        .into_iter()
        .map(|(name, value, about)| vec![format!("`{name}`"), amount(&name, value), about]);
    table(&["limit", "value", "what it caps, and why"], rows)
}

#[test]
fn the_limits_are_read_right() {
    let constants = constants();
    let value = |wanted: &str| {
        constants.iter().find(|(name, ..)| name == wanted).map(|(_, value, _)| *value)
    };
    assert_eq!(value("HEADER_MAP_BYTES"), Some(limits::HEADER_MAP_BYTES as u64));
    assert_eq!(value("DEFAULT_PAUSE_MS"), Some(limits::DEFAULT_PAUSE_MS.into()));
    assert_eq!(value("MAX_MEMORY"), Some(limits::MAX_MEMORY));
    assert!(constants.iter().all(|(_, _, about)| !about.is_empty()));
}

/// `docs/SECURITY.md` names a test for each limit, and each test that it names is there.
#[test]
fn every_limit_is_tested_and_every_named_test_exists() {
    let text = source("docs/SECURITY.md");
    for (name, ..) in constants() {
        assert!(
            text.contains(&format!("`{name}`")),
            "docs/SECURITY.md does not say what tests {name}"
        );
    }
    let named: Vec<(&str, &str)> =
        text.split('`').filter_map(|part| part.split_once(".rs::")).collect();
    assert!(named.len() > 40, "{named:?}");
    for (file, test) in named {
        let code = source(&format!("{file}.rs"));
        assert!(code.contains(&format!("#[test]\nfn {test}() {{")), "{file}.rs has no test {test}");
    }
}

/// The names of the host's metrics in a text, without what Prometheus adds for histograms.
fn metric_names(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let words = text.split(|c| !is_name(c)).filter(|word| word.starts_with("proxy_wasm_"));
    words
        .map(|word| {
            let histogram =
                ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end));
            histogram.unwrap_or(word).to_owned()
        })
        .collect()
}

/// Dashboard and alerts use what there is, and the docs describe all of it.
#[test]
fn metrics_of_dashboards_exist_and_all_are_described() {
    let shared = Shared::new(limits::DEFAULT_SHARED_MEMORY, |_| {}).expect("a mapping");
    shared.own("a").callback(Callback::RequestHeaders);
    shared.count_call("a", "b", CallKind::Http, true).expect("room");
    shared.stand_in(b"a", b"f", 1).expect("room");
    shared.queue(b"a", b"q").expect("room");
    let all = shared.metrics().expect("metrics");
    let there: BTreeSet<String> = all.into_iter().map(|series| series.name).collect();
    let described = metric_names(&source("docs/semantics.md"));
    let missing: Vec<_> = there.difference(&described).collect();
    assert!(missing.is_empty(), "docs/semantics.md does not describe {missing:?}");
    for page in [
        "docs/dashboards/grafana.json",
        "docs/dashboards/alerts.yaml",
        "docs/semantics.md",
        "docs/operations.md",
    ] {
        let used = metric_names(&source(page));
        assert!(!used.is_empty(), "{page} uses no metric");
        let unknown: Vec<_> = used.difference(&there).collect();
        assert!(unknown.is_empty(), "{page} uses {unknown:?}, which are not there");
    }
}

/// The lines of `NAME {` up to the brace that closes it, as indented as they are.
fn block<'a>(text: &'a str, name: &str) -> &'a str {
    let start = text.find(&format!("{name} {{\n")).unwrap_or_else(|| panic!("no {name}"));
    let start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let indent: String = text[start..].chars().take_while(|c| *c == ' ').collect();
    let end = text[start..].find(&format!("\n{indent}}}\n")).expect("its end");
    &text[start..start + end + indent.len() + 3]
}

/// The demo's http block, without what only the demo needs.
fn synopsis() -> String {
    let conf = source("conf/nginx.conf");
    let paths: String = conf
        .lines()
        .filter(|line| line.contains("lua_package_"))
        .map(|line| format!("{line}\n"))
        .collect();
    let listen = conf.lines().find(|line| line.contains("listen ")).expect("a port");
    format!(
        "```nginx\nhttp {{\n{paths}\n{}\n    server {{\n{listen}\n\n{}    }}\n}}\n```\n",
        block(&conf, "init_by_lua_block"),
        block(&conf, "location /t"),
    )
}

#[test]
fn every_call_has_its_section() {
    let (module, api) = (source("lib/resty/proxy-wasm.lua"), source("docs/api.md"));
    let calls: Vec<&str> = module
        .lines()
        .filter_map(|line| {
            let method = line.strip_prefix("function _M.").and_then(|rest| rest.split_once('('));
            // Names that begin with an underscore are constants.
            method
                .or_else(|| line.strip_prefix("_M.")?.split_once(" = "))
                .filter(|(name, _)| !name.starts_with('_'))
        })
        .map(|(name, _)| name)
        .collect();
    assert!(calls.len() >= 6, "{calls:?}");
    for name in &calls {
        assert!(api.contains(&format!("wasm.{name}(")), "docs/api.md shows no call of {name}");
    }
    let api = api.lines().filter_map(|line| line.strip_prefix("## "));
    assert_eq!(api.collect::<Vec<_>>(), calls, "the order of the sections is that of the module");
    let elsewhere = source("lib/resty/proxy-wasm/no_http.lua");
    for name in &calls {
        assert!(elsewhere.contains(&format!("\"{name}\"")), "no_http.lua does not have {name}");
    }
}

#[test]
fn every_option_is_documented_and_has_the_default_of_the_library() {
    let (options, api) = (source("lib/resty/proxy-wasm/options.lua"), source("docs/api.md"));
    for (file, count) in [(&options, 12), (&source("lib/resty/proxy-wasm/settings.lua"), 6)] {
        let (_, checks) = file.split_once("local CHECKS = {\n").expect("the table of options");
        let (checks, _) = checks.split_once("\n}").expect("its end");
        let names: Vec<&str> = checks
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, _)| name.trim())
            .collect();
        assert!(names.len() >= count, "{names:?}");
        for name in names {
            let row = format!("\n| `{name}` | ");
            assert!(api.contains(&row), "docs/api.md does not know option {name}");
        }
    }
    let memory = format!("local DEFAULT_MEMORY = {} * MIB", limits::DEFAULT_MEMORY >> 20);
    let most = format!("local MAX_MEMORY = {} * MIB", limits::MAX_MEMORY >> 20);
    let pause = format!("local DEFAULT_PAUSE_MS = {}\n", limits::DEFAULT_PAUSE_MS);
    let time = format!("local DEFAULT_TIME_MS = {}\n", limits::DEFAULT_TIME_MS);
    let start = format!("local DEFAULT_START_TIME_MS = {}\n", limits::DEFAULT_START_TIME_MS);
    let settings = source("lib/resty/proxy-wasm/settings.lua");
    let least = format!("local MIN_SHARED = {} * 1024\n", limits::MIN_SHARED_MEMORY >> 10);
    let largest = format!("local MAX_SHARED = {} * 1024 ^ 3\n", limits::MAX_SHARED_MEMORY >> 30);
    let body = format!("local DEFAULT_BODY = {} * 1024 ^ 2\n", limits::HELD_BODY >> 20);
    let largest_body = format!("local MAX_BODY = {} * 1024 ^ 2\n", limits::MAX_HELD_BODY >> 20);
    for line in [least, largest, body, largest_body] {
        assert!(settings.contains(&line), "settings.lua and limits.rs differ: {line}");
    }
    let held = format!("local MAX_BODY = {} * MIB\n", limits::MAX_HELD_BODY >> 20);
    for line in [memory, most, pause, time, start, held] {
        assert!(options.contains(&line), "options.lua and limits.rs differ: {line}");
    }
}
