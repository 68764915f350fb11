//! Scenarios of `proxy-wasm test`, played by that command and by nginx: what both observe is the same.
//!
//! The command says as JSON what it played and what came of it (`cli/src/scenario/record.rs`). nginx gets the same filters,
//! requests and answers to calls, and a clock that stands still as the command's does. It is compared: status, headers, body,
//! what the upstream got, calls, lines of the log.

mod answers;
mod place;
mod redis;
mod rpc;
mod service;
mod values;

use super::support::clock::Clock;
use super::support::{Connection, Request, Running, Upstream, poll, root, texts};
use serde_json::Value;
use service::Service;
use std::fmt::Write as _;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use values::{Message, bytes, call, guest_line, list, message, number, pairs, parse_line, request};
use values::{sorted, string};

/// Where the clocks of the command begin: `cli/src/play/server.rs`.
const WALL_CLOCK: i64 = 1_700_000_000;
const MONOTONIC_CLOCK: i64 = 3600;

/// What the command says where a host has words of its own for why a call failed.
const OWN_WORDS: &str = "as the scenario says";

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
    ext_auth "examples/ext-auth/ext-auth.test.yaml"
    grpc_rate_limit "examples/grpc-rate-limit/grpc-rate-limit.test.yaml"
    rate_limit "examples/rate-limit/rate-limit.test.toml"
    redis_rate_limit "examples/redis-rate-limit/redis-rate-limit.test.yaml"
    remote_config "examples/remote-config/remote-config.test.yaml"
    word_guard "examples/word-guard/word-guard.test.yaml"
    assemblyscript "t/guests/scenarios/assemblyscript.test.yaml"
    calls "t/guests/scenarios/calls.test.yaml"
    escape "t/guests/scenarios/escape.test.yaml"
    go "t/guests/scenarios/go.test.yaml"
    grpc_calls "t/guests/scenarios/grpc_calls.test.yaml"
    probe "t/guests/scenarios/probe.test.yaml"
    probe_0_1_0 "t/guests/scenarios/probe_0_1_0.test.yaml"
    probe_0_2_0 "t/guests/scenarios/probe_0_2_0.test.yaml"
    probe_0_2_100 "t/guests/scenarios/probe_0_2_100.test.yaml"
    rust_filter "t/guests/scenarios/rust_filter.test.yaml"
    rust_filter_0_1 "t/guests/scenarios/rust_filter_0_1.test.yaml"
    rust_filter_no_wasi "t/guests/scenarios/rust_filter_no_wasi.test.yaml"
    wat "t/guests/scenarios/wat.test.yaml"
    zig "t/guests/scenarios/zig.test.yaml"
}

/// The scenarios of filters that are compiled by the test: it puts them where the file looks for them.
const OF_TEXT: &str = "t/guests/scenarios/wat.test.yaml";

#[test]
fn every_scenario_is_played() {
    let mut found = Vec::new();
    let mut folders = vec![root().join("examples"), root().join("t/guests/scenarios")];
    while let Some(folder) = folders.pop() {
        for path in entries(&folder) {
            if path.is_dir() && !path.ends_with("node_modules") && !path.ends_with("target") {
                folders.push(path);
            } else if path.to_string_lossy().contains(".test.") {
                let path = path.strip_prefix(root()).expect("below the root");
                found.push(path.to_string_lossy().into_owned());
            }
        }
    }
    let mut files = FILES.to_vec();
    files.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, files);
}

#[test]
fn every_guest_has_a_scenario() {
    let texts = FILES.iter().map(|file| fs::read_to_string(root().join(file)).expect("a scenario"));
    let texts: String = texts.collect();
    let missing = ["t/guests/build", "t/guests/wat"].into_iter().flat_map(|folder| {
        let paths = entries(&root().join(folder)).into_iter();
        let names =
            paths.map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned());
        names.collect::<Vec<_>>()
    });
    let missing: Vec<String> =
        missing.filter(|name| !texts.contains(&format!("/{name}.wasm"))).collect();
    assert_eq!(missing, [""; 0]);
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

/// The command `proxy-wasm`, which is built when it is not.
fn command() -> &'static Path {
    static COMMAND: OnceLock<PathBuf> = OnceLock::new();
    COMMAND.get_or_init(|| {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--release", "--locked", "-p", "proxy-wasm"]);
        // What cargo tells this test of its package: a build script looks at it, and a crate would be built once more.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                build.env_remove(&name);
            }
        }
        let built = build.current_dir(root()).status();
        assert!(built.expect("cargo").success(), "proxy-wasm is not built");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("a parent");
        target.join("release/proxy-wasm")
    })
}

fn play_file(file: &str) {
    let compiled = (file == OF_TEXT).then(compiled);
    let path = match &compiled {
        Some(folder) => folder.path().join("scenarios/wat.test.yaml"),
        None => file.into(),
    };
    let said = Command::new(command())
        .args(["test", "--json", "--no-cache"])
        .arg(path)
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

/// A folder with the filters of `t/guests/wat`, compiled, and their scenarios.
fn compiled() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a directory");
    for name in ["wat", "scenarios"] {
        fs::create_dir(folder.path().join(name)).expect("a directory");
    }
    for path in entries(&root().join("t/guests/wat")) {
        let binary = wat::parse_file(&path).unwrap_or_else(|error| panic!("{error}"));
        let name = path.with_extension("wasm");
        let name = name.file_name().expect("a name");
        fs::write(folder.path().join("wat").join(name), binary).expect("a file");
    }
    fs::copy(root().join(OF_TEXT), folder.path().join("scenarios/wat.test.yaml")).expect("a file");
    folder
}

/// The server behind nginx: what it answers next, and what it got.
#[derive(Clone, Default)]
struct Backend {
    answer: Arc<Mutex<Vec<u8>>>,
    got: Arc<Mutex<Vec<Message>>>,
}

impl Backend {
    fn start(&self) -> Upstream {
        let Self { answer, got } = self.clone();
        Upstream::start(move |incoming, out| {
            got.lock().expect("a lock").push(request(incoming));
            let answer = answer.lock().expect("a lock").clone();
            out.write_all(&answer)
        })
    }
}

fn play(played: &Value, log: &[Value]) {
    let clock = Arc::new(Clock::new(WALL_CLOCK, MONOTONIC_CLOCK));
    let steps = list(&played["steps"]);
    let all_calls: Vec<&Value> = steps.iter().flat_map(|step| list(&step["calls"])).collect();
    let service = Service::start(&played["upstreams"], &all_calls, &clock);
    let backend = Backend::default();
    let upstream = backend.start();
    let nginx = place::nginx(played, &service, &upstream, &clock);
    if let Some(cause) = played["refused"].as_str() {
        let cause = cause.split_once("failed to ").expect("a cause").1;
        let said = nginx.start_fails();
        assert!(said.contains(cause), "{cause}: {said}");
        return;
    }
    let nginx = nginx.start();
    let master = nginx.master_pid();
    expect_warnings(&nginx, log);
    // nginx tells of the handshake itself, beside the warning.
    nginx.may_log("SSL_do_handshake() failed");
    let (mut lines, mut calls) = (Vec::new(), Vec::new());
    for (index, step) in steps.iter().enumerate() {
        let line = &step["line"];
        for number in 0..list(&step["others"]).len() {
            assert_eq!(nginx.get(&format!("/.others/{index}.{number}")).status, 204);
        }
        *backend.answer.lock().expect("a lock") = response(&step["sent"]);
        let seen = list(&step["calls"]).iter();
        let seen: Vec<&Value> =
            seen.filter(|call| !service.unseen.contains(string(&call["upstream"]))).collect();
        let asked = step["sent"].is_object().then(|| ask(&nginx, step));
        pass(&clock, &service, calls.len(), &seen, step);
        if let Some((connection, request)) = asked {
            compare(connection, &request, step);
        }
        let got = std::mem::take(&mut *backend.got.lock().expect("a lock"));
        let expected = step["upstream"].as_object().map(|_| message(&step["upstream"]));
        assert_eq!(got, Vec::from_iter(expected), "what the upstream got, line {line}");
        lines.extend(list(&step["log"]).iter().filter_map(guest_line));
        calls.extend(seen.into_iter().map(call));
        poll(|| (guest_log(&nginx, master).len() >= lines.len()).then_some(()));
        // Calls that are made at one time come in any order.
        let in_order = |calls: &[Message]| {
            let mut calls = calls.to_vec();
            calls.sort_unstable();
            calls
        };
        assert_eq!(in_order(&service.desk.calls()), in_order(&calls), "calls, line {line}");
    }
    quit(&nginx, &clock);
    // What was said at the very end, too.
    let expected: Vec<_> = log.iter().filter_map(|line| parse_line(string(line))).collect();
    let said = guest_log(&nginx, master);
    let is = |said: &(String, String), expected: &(String, String)| {
        said.0 == expected.0
            && match expected.1.split_once(OWN_WORDS) {
                Some((start, _)) => said.1.starts_with(start.trim_end_matches(" (")),
                None => said.1 == expected.1,
            }
    };
    let same = said.len() == expected.len() && said.iter().zip(&expected).all(|(s, e)| is(s, e));
    assert!(same, "lines of the log: {said:#?}\nand not {expected:#?}");
}

/// Lets the clock continue to the end of a step, with the calls that are made meanwhile.
fn pass(clock: &Clock, service: &Service, before: usize, calls: &[&Value], step: &Value) {
    let go_to =
        |time: &Value| clock.go_to(number(time), || service.desk.due(), || service.desk.settle());
    for (index, call) in calls.iter().enumerate() {
        go_to(&call["at_ms"]);
        poll(|| (service.desk.calls().len() > before + index).then_some(()));
    }
    go_to(&step["at_ms"]);
}

/// Has nginx end. What waits for a time gets to it once nothing new begins.
fn quit(nginx: &Running, clock: &Clock) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let ends = || nginx.worker_pids().is_empty() || over.load(Ordering::SeqCst);
            poll(|| ends().then_some(()));
            let _running = clock.run();
            poll(|| over.load(Ordering::SeqCst).then_some(()));
        });
        nginx.stop();
        over.store(true, Ordering::SeqCst);
    });
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
            .filter(|_| text.contains(" call to "))
            .map_or(text, |(t, _)| t);
        let text = text.split_once(OWN_WORDS).map_or(text, |(t, _)| t.trim_end_matches(" ("));
        nginx.expect_log(text);
    }
}

/// Sends the request of a step.
fn ask(nginx: &Running, step: &Value) -> (Connection, Request) {
    let sent = &step["sent"];
    let first = string(&sent["request"]["first_line"]);
    let (method, path) = first.split_once(' ').expect("a request");
    let mut request = nginx.request(method, path);
    for (name, value) in pairs(&sent["request"]["headers"]) {
        request = request.header(&name, &value);
    }
    for (name, value) in sent["properties"].as_object().expect("a map") {
        request = request.header(&place::property_header(name), string(value));
    }
    let body = string(&sent["request"]["body"]);
    if !body.is_empty() {
        request = request.body(body);
    }
    // Without Connection: close, which filters would see.
    let mut connection = nginx.connect();
    connection.begin(&request);
    (connection, request)
}

/// Compares what is answered to the request of a step.
fn compare(mut connection: Connection, request: &Request, step: &Value) {
    let line = &step["line"];
    let answer = connection.finish(request);
    if !step["cut"].is_null() {
        assert!(answer.is_err(), "the response is whole, line {line}");
        return;
    }
    let answer = answer.unwrap_or_else(|error| panic!("line {line}: {error}"));
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
        let mut headers = sorted(headers.into_iter());
        headers.retain(|(name, _)| !own.contains(&name.as_str()));
        // No body is an empty one, or has no chunk.
        headers.retain(|(name, value)| (name.as_str(), value.as_str()) != ("content-length", "0"));
        headers
    };
    let headers = kept(pairs(&expected["headers"]));
    assert_eq!(kept(answer.headers.clone()), headers, "headers, line {line}");
    assert_eq!(body, string(&expected["body"]), "body, line {line}");
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
    let mut all = head.into_bytes();
    list(&sent["pieces"]).iter().for_each(|piece| all.extend(bytes(piece)));
    all
}

/// What filters said in the worker, with its level.
fn guest_log(nginx: &Running, master: i32) -> Vec<(String, String)> {
    // The master says the same when it tries the configuration.
    let master = format!(" {master}#");
    let log = nginx.error_log();
    let others = format!("wasm log {}: ", place::OTHERS);
    let lines = log.lines().filter(|line| !line.contains(&others) && !line.contains(&master));
    let parsed = lines.filter_map(|line| {
        let level = line.split_once('[')?.1.split_once(']')?.0;
        let text = texts(line, "wasm log ").pop()?;
        Some((level.to_owned(), text.split_once(": ")?.1.to_owned()))
    });
    parsed.collect()
}
