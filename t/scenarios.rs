//! Scenarios of `proxy-wasm test`, played by that command and by nginx: what both observe is the same.
//!
//! The command says as JSON what it played and what came of it (`cli/src/scenario/record.rs`). nginx gets the same filters,
//! requests and answers to calls, and is compared: status, headers, body, what the upstream got, calls, lines of the log.

use super::support::{Incoming, Nginx, Running, Upstream, patience, poll, root};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Error, Write};
use std::net::TcpListener;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// Headers with the seconds that are left of a time. The command's clock stands while nginx's goes on.
const SECONDS_LEFT: [&str; 3] = ["ratelimit-reset", "retry-after", "x-ratelimit-reset"];

/// Only the command can move its clock: a scenario is played until it lets more time pass than this.
const MOST_MS: u64 = 5000;

macro_rules! scenarios {
    ($($name:ident $file:literal)*) => {
        $(#[test]
        fn $name() {
            play_file($file);
        })*

        /// The files that are played.
        const FILES: &[&str] = &[$($file),*];
    };
}

scenarios! {
    add_header "examples/add-header/add-header.test.yaml"
    auth "examples/auth/auth.test.yaml"
    rate_limit "examples/rate-limit/rate-limit.test.toml"
    remote_config "examples/remote-config/remote-config.test.yaml"
    word_guard "examples/word-guard/word-guard.test.yaml"
    assemblyscript "t/guests/scenarios/assemblyscript.test.yaml"
    go "t/guests/scenarios/go.test.yaml"
    probe "t/guests/scenarios/probe.test.yaml"
    probe_0_1_0 "t/guests/scenarios/probe_0_1_0.test.yaml"
    probe_0_2_0 "t/guests/scenarios/probe_0_2_0.test.yaml"
    rust_filter "t/guests/scenarios/rust_filter.test.yaml"
    rust_filter_0_1 "t/guests/scenarios/rust_filter_0_1.test.yaml"
    rust_filter_no_wasi "t/guests/scenarios/rust_filter_no_wasi.test.yaml"
    zig "t/guests/scenarios/zig.test.yaml"
}

/// Their services speak gRPC and Redis; `grpc_examples.rs` and `redis_rate_limit.rs` run these filters with real ones.
const OF_OTHERS: [&str; 3] = [
    "examples/ext-auth/ext-auth.test.yaml",
    "examples/grpc-rate-limit/grpc-rate-limit.test.yaml",
    "examples/redis-rate-limit/redis-rate-limit.test.yaml",
];

#[test]
fn every_scenario_is_played() {
    let mut found = Vec::new();
    let mut folders = vec![root().join("examples"), root().join("t/guests/scenarios")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && !path.ends_with("node_modules") && !path.ends_with("target") {
                folders.push(path);
            } else if path.to_string_lossy().contains(".test.") {
                let path = path.strip_prefix(root()).expect("below the root");
                found.push(path.to_string_lossy().into_owned());
            }
        }
    }
    let mut files = [FILES, &OF_OTHERS].concat();
    files.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, files);
}

/// The command `proxy-wasm`, which is built when it is not.
fn command() -> &'static Path {
    static COMMAND: OnceLock<PathBuf> = OnceLock::new();
    COMMAND.get_or_init(|| {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let built = Command::new(cargo)
            .args(["build", "--quiet", "--release", "--locked", "-p", "proxy-wasm"])
            .current_dir(root())
            .status();
        assert!(built.expect("cargo").success(), "proxy-wasm is not built");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("a parent");
        target.join("release/proxy-wasm")
    })
}

fn play_file(file: &str) {
    let said = Command::new(command())
        .args(["test", "--json", "--no-cache", file])
        .current_dir(root())
        .output()
        .expect("the command");
    let text = String::from_utf8(said.stdout).expect("UTF-8");
    assert!(said.status.success(), "{text}\n{}", String::from_utf8_lossy(&said.stderr));
    let all: Value = serde_json::from_str(&text).expect("JSON");
    let tests = list(&all["files"][0]["tests"]);
    assert!(!tests.is_empty());
    // All are played, so that one run shows all that differs.
    let differs = tests.iter().filter(|test| {
        eprintln!("{file}: {}", test["name"]);
        catch_unwind(|| play(&test["played"], list(&test["log"]))).is_err()
    });
    let differs: Vec<&str> = differs.map(|test| string(&test["name"])).collect();
    assert!(differs.is_empty(), "nginx observes something else: {differs:?}");
}

fn play(played: &Value, log: &[Value]) {
    let service = Service::start(&played["upstreams"]);
    let answer = Arc::new(Mutex::new(Vec::new()));
    let current = answer.clone();
    let upstream = Arc::new(Mutex::new(Vec::new()));
    let got = upstream.clone();
    let server = Upstream::start(move |incoming, out| {
        got.lock().expect("a lock").push(incoming.clone());
        let answer = current.lock().expect("a lock").clone();
        out.write_all(&answer)
    });
    let nginx = nginx(played, &service, &server);
    if let Some(cause) = played["refused"].as_str() {
        let cause = cause.split_once("failed to ").expect("a cause").1;
        let said = nginx.start_fails();
        assert!(said.contains(cause), "{cause}: {said}");
        return;
    }
    let began = Instant::now();
    let nginx = nginx.start();
    let master = nginx.master_pid();
    expect_warnings(&nginx, log);
    let steps = list(&played["steps"]);
    let is_short = |step: &&Value| step["advance_ms"].as_u64().is_none_or(|ms| ms <= MOST_MS);
    let steps: Vec<&Value> = steps.iter().take_while(is_short).collect();
    let (mut lines, mut calls) = (Vec::new(), Vec::new());
    for step in &steps {
        *answer.lock().expect("a lock") = response(&step["sent"]);
        if !step["sent"].is_null() {
            ask(&nginx, step, began);
        }
        let got = std::mem::take(&mut *upstream.lock().expect("a lock"));
        assert_eq!(
            got.first().map(request),
            step["upstream"].as_object().map(|_| message(&step["upstream"])),
            "what the upstream got, line {}",
            step["line"]
        );
        lines.extend(list(&step["log"]).iter().filter_map(guest_line));
        let reached = |call: &&Value| !service.gone.contains(string(&call["upstream"]));
        calls.extend(list(&step["calls"]).iter().filter(reached).map(call));
        // Time passes for both: what comes of it is waited for.
        let made = || {
            service.calls().len() >= calls.len() && guest_log(&nginx, master).len() >= lines.len()
        };
        poll(|| made().then_some(()));
        assert_eq!(service.calls(), calls, "calls, line {}", step["line"]);
    }
    nginx.stop();
    let said = guest_log(&nginx, master);
    let is_all = steps.len() == list(&played["steps"]).len();
    if is_all && !has_ticks(played) {
        // What was said at the very end, too.
        let all: Vec<(String, String)> =
            log.iter().filter_map(|line| parse_line(string(line))).collect();
        assert_eq!(said, all, "lines of the log");
    } else {
        assert_eq!(said[..lines.len().min(said.len())], lines, "lines of the log");
    }
}

/// Whether time passes, after which more may come.
fn has_ticks(played: &Value) -> bool {
    list(&played["steps"]).iter().any(|step| !step["advance_ms"].is_null())
}

/// An nginx with the filters in front of the upstream.
fn nginx(played: &Value, service: &Service, upstream: &Upstream) -> Nginx {
    let mut nginx = Nginx::new();
    let mut init = "wasm = require(\"resty.proxy-wasm\")\nlocal contexts = {}\n".to_owned();
    if !service.addresses.is_empty() {
        let pairs =
            service.addresses.iter().map(|(name, url)| format!("[{}] = {}", lua(name), lua(url)));
        let pairs: Vec<String> = pairs.collect();
        writeln!(init, "assert(wasm.setup({{ upstreams = {{ {} }} }}))", pairs.join(", "))
            .expect("text");
    }
    for (index, filter) in list(&played["filters"]).iter().enumerate() {
        let file = format!("{index}.wasm");
        nginx =
            nginx.file(&file, fs::read(root().join(string(&filter["file"]))).expect("a filter"));
        let mut options = vec![
            format!("root_id = {}", lua(string(&filter["root_id"]))),
            format!("vm_id = {}", lua(string(&filter["vm_id"]))),
            format!("vm_config = {}", lua(string(&filter["vm_configuration"]))),
            format!("memory_limit = {}", filter["memory_limit"]),
            format!("time_limit = {}", filter["time_limit_ms"]),
            format!("pause_timeout = {}", filter["pause_timeout_ms"]),
            format!("body_limit = {}", filter["body_limit"]),
            format!("body = {}", filter["body"]),
            format!("fail = \"{}\"", if filter["fail_open"] == true { "open" } else { "closed" }),
        ];
        if let Some(hold) = filter["calls_hold"].as_bool() {
            options.push(format!("calls_hold = {hold}"));
        }
        assert!(filter["env"].as_object().expect("a map").is_empty(), "env is not played yet");
        let configuration = filter["configuration"].as_str().map_or("nil".into(), lua);
        writeln!(
            init,
            "local plugin = assert(wasm.load({}, \"{file}\", {{ {} }}))\n\
             contexts[{}] = assert(wasm.on_configure(plugin, {configuration}))",
            lua(string(&filter["name"])),
            options.join(", "),
            index + 1
        )
        .expect("text");
    }
    nginx
        .http(&format!(
            "lua_socket_log_errors off;\n\
             set_real_ip_from 127.0.0.1;\n\
             real_ip_header X-Scenario-Source;\n\
             init_by_lua_block {{\n{init}chain = wasm.new_chain(contexts)\n}}\n\
             init_worker_by_lua_block {{ assert(wasm.init_worker()) }}\n"
        ))
        .server(&format!(
            r#"
            location / {{
                rewrite_by_lua_block {{ ngx.req.clear_header("x-scenario-source") }}
                access_by_lua_block {{ chain:access() }}
                header_filter_by_lua_block {{ chain:header_filter() }}
                body_filter_by_lua_block {{ chain:body_filter() }}
                proxy_set_header Host $http_host;
                proxy_set_header Connection close;
                proxy_pass {};
            }}
            "#,
            upstream.url()
        ))
}

/// A text as Lua reads it, whatever is in it.
fn lua(text: &str) -> String {
    let bytes = text.bytes().map(|byte| {
        if byte.is_ascii_alphanumeric() {
            char::from(byte).to_string()
        } else {
            format!("\\{byte:03}")
        }
    });
    format!("\"{}\"", bytes.collect::<String>())
}

/// Lines at warn and above are part of what is compared.
fn expect_warnings(nginx: &Running, log: &[Value]) {
    for line in log {
        let (level, text) = string(line).split_once("] ").expect("a level");
        if !["[warn", "[error", "[crit"].contains(&level) {
            continue;
        }
        // The causes of failed calls are told in each host's own words.
        let text = text
            .split_once(" failed: ")
            .filter(|_| text.contains("HTTP call"))
            .map_or(text, |(t, _)| t);
        nginx.expect_log(text);
    }
}

/// Sends the request of a step, and compares what comes. nginx has run since `began`.
fn ask(nginx: &Running, step: &Value, began: Instant) {
    let sent = &step["sent"];
    let first = string(&sent["request"]["first_line"]);
    let (method, path) = first.split_once(' ').expect("a request");
    let mut request = nginx.request(method, path);
    for (name, value) in pairs(&sent["request"]["headers"]) {
        request = request.header(&name, &value);
    }
    for (name, value) in sent["properties"].as_object().expect("a map") {
        assert_eq!(name, "source.address", "this property is not played yet");
        request = request.header("X-Scenario-Source", string(value));
    }
    let body = string(&sent["request"]["body"]);
    if !body.is_empty() {
        request = request.body(body);
    }
    let line = &step["line"];
    if !step["cut"].is_null() {
        assert!(request.try_send().is_err(), "the response is whole, line {line}");
        return;
    }
    // Without Connection: close, which filters would see.
    let answer = nginx.connect().request(&request);
    let expected = &step["response"];
    assert_eq!(answer.status.to_string(), string(&expected["first_line"]), "status, line {line}");
    // nginx's own headers, and how it frames a message. Its pages for errors have its version.
    let mut own = vec!["server", "date", "connection", "transfer-encoding", "keep-alive"];
    let mut body = answer.text();
    if let Some(at) = body.find("<hr><center>nginx") {
        let end = body[at..].find('\n').expect("a line");
        body.replace_range(at..=at + end, "");
        own.push("content-length");
    }
    let kept = |headers: Vec<(String, String)>| {
        sorted(headers.into_iter().filter(|(name, _)| !own.contains(&&*name.to_lowercase())))
    };
    let expected_headers = kept(pairs(&expected["headers"]));
    let mut headers = kept(answer.headers.clone());
    for ((name, value), (_, at_start)) in headers.iter_mut().zip(&expected_headers) {
        if SECONDS_LEFT.contains(&&**name) && is_less_by(value, at_start, began.elapsed()) {
            value.clone_from(at_start);
        }
    }
    assert_eq!(headers, expected_headers, "headers, line {line}");
    assert_eq!(body, string(&expected["body"]), "body, line {line}");
}

/// Whether so many seconds can be left of `at_start` after at most `passed`.
fn is_less_by(seconds: &str, at_start: &str, passed: Duration) -> bool {
    let (Ok(seconds), Ok(at_start)) = (seconds.parse::<u64>(), at_start.parse::<u64>()) else {
        return false;
    };
    // What is left is told in whole seconds.
    seconds <= at_start && at_start - seconds <= passed.as_secs() + 1
}

/// The response that the upstream gives.
fn response(sent: &Value) -> Vec<u8> {
    if sent.is_null() {
        return Vec::new();
    }
    let mut head = format!("HTTP/1.1 {} Reason\r\n", sent["status"]);
    for (name, value) in pairs(&sent["headers"]) {
        write!(head, "{name}: {value}\r\n").expect("text");
    }
    head += "\r\n";
    head.extend(list(&sent["pieces"]).iter().map(string));
    head.into_bytes()
}

/// What answers the calls of filters.
struct Service {
    /// By name.
    addresses: BTreeMap<String, String>,
    /// Names behind which nobody listens.
    gone: BTreeSet<String>,
    calls: Arc<Mutex<Vec<Message>>>,
    _servers: Vec<Upstream>,
}

/// A request: method and path, header lines by name, body.
type Message = (String, Vec<(String, String)>, String);

impl Service {
    fn start(upstreams: &Value) -> Self {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let (mut addresses, mut gone, mut servers) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
        for (name, answers) in upstreams.as_object().expect("a map") {
            let answers = list(answers).to_vec();
            if answers.iter().all(|answer| answer["fails"] == "connect") {
                // Nobody listens there any more.
                let closed = TcpListener::bind("127.0.0.1:0").expect("a port");
                let address = closed.local_addr().expect("an address");
                addresses.insert(name.clone(), format!("http://{address}"));
                gone.insert(name.clone());
                continue;
            }
            let given = Mutex::new(vec![false; answers.len()]);
            let made = calls.clone();
            let server = Upstream::start(move |incoming, out| {
                let (line, mut headers, body) = request(incoming);
                // It is added when the call is sent, and the command sends none.
                headers.retain(|(name, _)| name != "content-length");
                made.lock().expect("a lock").push((line, headers, body));
                let index = choose(&answers, &given.lock().expect("a lock"), incoming);
                given.lock().expect("a lock")[index] = true;
                answer_call(&answers[index], out)
            });
            addresses.insert(name.clone(), server.url());
            servers.push(server);
        }
        Self { addresses, gone, calls, _servers: servers }
    }

    fn calls(&self) -> Vec<Message> {
        self.calls.lock().expect("a lock").clone()
    }
}

/// The next answer that is for such a call; the last one stays.
fn choose(answers: &[Value], given: &[bool], call: &Incoming) -> usize {
    let is_for = |answer: &Value, key: &str, is: &str| answer[key].as_str().is_none_or(|v| v == is);
    let fits = |index: &usize| {
        let answer = &answers[*index];
        is_for(answer, "method", &call.method) && is_for(answer, "path", &call.target)
    };
    let fitting = || (0..answers.len()).filter(fits);
    fitting().find(|index| !given[*index]).or_else(|| fitting().next_back()).expect("an answer")
}

fn answer_call(answer: &Value, out: &mut dyn Write) -> io::Result<()> {
    std::thread::sleep(Duration::from_millis(answer["after_ms"].as_u64().expect("a number")));
    match answer["fails"].as_str() {
        None => {}
        Some("timeout") => {
            std::thread::sleep(patience() * 2);
            return Err(Error::other("no answer"));
        }
        Some("closed") => return Err(Error::other("no answer")),
        Some("protocol") => return out.write_all(b"nonsense\r\n\r\n"),
        Some(other) => panic!("a call that fails by {other} is not played yet"),
    }
    let body = string(&answer["body"]);
    let mut head = format!("HTTP/1.1 {} Reason\r\n", answer["status"]);
    let headers = pairs(&answer["headers"]);
    for (name, value) in &headers {
        write!(head, "{name}: {value}\r\n").expect("text");
    }
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
        write!(head, "content-length: {}\r\n", body.len()).expect("text");
    }
    assert!(list(&answer["trailers"]).is_empty(), "trailers are not played yet");
    write!(out, "{head}\r\n{body}")
}

fn request(incoming: &Incoming) -> Message {
    let headers = incoming.headers.iter().cloned();
    let headers = headers.filter(|(name, _)| !name.eq_ignore_ascii_case("connection"));
    let body = String::from_utf8_lossy(&incoming.body).into_owned();
    (format!("{} {}", incoming.method, incoming.target), sorted(headers), body)
}

/// A message of the command.
fn message(of: &Value) -> Message {
    let first = string(&of["first_line"]).to_owned();
    (first, sorted(pairs(&of["headers"]).into_iter()), string(&of["body"]).to_owned())
}

/// A call of the command.
fn call(of: &Value) -> Message {
    let first = format!("{} {}", string(&of["method"]), string(&of["path"]));
    let headers = pairs(&of["headers"]).into_iter();
    let headers = headers.filter(|(name, _)| !name.eq_ignore_ascii_case("connection"));
    (first, sorted(headers), string(&of["body"]).to_owned())
}

/// Header lines by name; those of one name stay in order.
fn sorted(headers: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
    let mut headers: Vec<_> = headers.map(|(name, value)| (name.to_lowercase(), value)).collect();
    headers.sort_by(|a, b| a.0.cmp(&b.0));
    headers
}

/// What filters said in the worker, with its level.
fn guest_log(nginx: &Running, master: i32) -> Vec<(String, String)> {
    // The master says the same when it tries the configuration.
    let master = format!(" {master}#");
    let log = nginx.error_log();
    let lines = log.lines().filter(|line| line.contains("wasm log ") && !line.contains(&master));
    let parsed = lines.filter_map(|line| {
        let level = line.split_once('[')?.1.split_once(']')?.0;
        let text = super::support::texts(line, "wasm log ").pop()?;
        Some((level.to_owned(), text.split_once(": ")?.1.to_owned()))
    });
    parsed.collect()
}

/// A line that a filter said, as the command has it in a step.
fn guest_line(line: &Value) -> Option<(String, String)> {
    parse_line(&format!("[{}] {}", string(&line["level"]), string(&line["text"])))
}

/// `[LEVEL] wasm log NAME: TEXT`
fn parse_line(line: &str) -> Option<(String, String)> {
    let (level, text) = line.strip_prefix('[')?.split_once("] wasm log ")?;
    Some((level.into(), text.split_once(": ")?.1.into()))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

fn pairs(value: &Value) -> Vec<(String, String)> {
    let pair = |pair: &Value| (string(&pair[0]).to_owned(), string(&pair[1]).to_owned());
    list(value).iter().map(pair).collect()
}
