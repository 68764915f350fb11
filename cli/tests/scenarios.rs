//! `proxy-wasm test`.

use super::command::{command, file, guest, proxy_wasm, proxy_wasm_in, root, temporary};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

/// A file of scenarios of the example `auth`, with these tests.
fn scenario(tests: &str) -> (tempfile::TempDir, String) {
    let filter = file("examples/auth/build/release.wasm");
    temporary(
        "auth.test.yaml",
        format!(
            "filter:\n  file: {filter}\n  name: auth\n  configuration: auth /check\ntests:\n{tests}"
        ),
    )
}

const PASSES: &str = "
- name: a request that the service lets through
  upstreams: {auth: {headers: {x-user: me}}}
  request: {path: /a, headers: {x-user: root}}
  expect:
    status: 200
    upstream: {path: /a, headers: {x-user: me}}
    calls: [{upstream: auth, path: /check, headers: {x-original-uri: /a}}]
";

#[test]
fn all_scenarios_of_the_examples_pass() {
    let answer = proxy_wasm(&["test", "examples", "--json"]).ended(0).json();
    let files = answer["files"].as_array().expect("a list");
    let folders = fs::read_dir(root().join("examples")).expect("a folder");
    // A page about a filter of others has none.
    let folders =
        folders.filter(|entry| entry.as_ref().expect("an entry").path().join("build").is_dir());
    let folders = folders.count();
    assert_eq!(files.len(), folders, "each example has scenarios");
    assert!(files.iter().all(|file| !file["tests"].as_array().expect("a list").is_empty()));
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let (_folder, name) = scenario(&format!(
        "{PASSES}
- name: one that expects too much
  upstreams: {{auth: {{status: 403}}}}
  request: {{}}
  expect:
    status: 200
    headers: {{www-authenticate: yes}}
    body: {{matches: '^yes'}}
    upstream: true
    log: [\"a line\"]
    metrics: {{none: 1}}
"
    ));
    let answer = proxy_wasm(&["test", &name]).ended(1);
    for part in [
        "ok    a request that the service lets through",
        "FAIL  one that expects too much",
        "line 19: status: is 403, not 200",
        "headers: www-authenticate is not there",
        "body: is \"no entry\\n\", which does not match \"^yes\"",
        "upstream: it got nothing",
        "log: no line is \"a line\"",
        "metrics: there is no none",
        "1 passed, 1 failed",
    ] {
        assert!(answer.out.contains(part), "{part}: {}", answer.out);
    }
    let json = proxy_wasm(&["test", "--json", &name]).ended(1).json();
    assert_eq!((&json["tests"], &json["failed"]), (&2.into(), &1.into()));
}

#[test]
fn a_test_may_have_filters_of_its_own() {
    let (probe, zig) = (guest("probe"), guest("zig"));
    let (_folder, name) = temporary(
        "a.test.yaml",
        format!(
            "filter: {zig}
tests:
- {{name: the file's, request: {{}}, expect: {{headers: {{hello: world!}}}}}}
- {{name: its own, filter: {probe}, request: {{}}, expect: {{headers: {{hello: null}}}}}}
- {{name: a chain, filters: [{zig}, {zig}], request: {{}}, expect: {{headers: {{hello: [world!, world!]}}}}}}
"
        ),
    );
    let json = proxy_wasm(&["test", &name, "--json"]).ended(0).json();
    let files = |test: usize| json["files"][0]["tests"][test]["played"]["filters"].clone();
    assert_eq!(files(1)[0]["file"], probe);
    assert_eq!((&files(2)[0]["file"], &files(2)[1]["name"]), (&zig.into(), &"zig-2".into()));
}

#[test]
fn junit() {
    let (folder, name) = scenario(PASSES);
    let path = folder.path().join("out.xml").to_string_lossy().into_owned();
    proxy_wasm(&["test", &name, "--junit", &path]).ended(0);
    let xml = fs::read_to_string(path).expect("a report");
    assert!(xml.contains("<testsuites tests=\"1\" failures=\"0\">"), "{xml}");
    assert!(xml.contains("<testcase name=\"a request that the service lets through\""), "{xml}");
}

#[test]
fn traps_calls_that_fail_and_time() {
    let (_folder, name) = scenario(
        "
- name: the service does not answer
  upstreams: {auth: {fails: timeout}}
  request: {}
  expect: {status: 503, log: [{level: warn, contains: failed}]}
- name: the service takes its time
  upstreams: {auth: {status: 200, after: 4s}}
  request: {}
  expect: {status: 200}
- name: the service takes too long
  upstreams: {auth: {status: 200, after: 6s}}
  request: {}
  expect: {status: 503}
- name: a configuration that is refused
  configuration: nonsense
  refused: refused its configuration
  expect: {log: [{level: error, equals: 'the configuration must be: UPSTREAM /PATH'}]}
",
    );
    proxy_wasm(&["test", &name]).ended(0);

    let trap = "(module (memory (export \"memory\") 1)
        (func (export \"proxy_on_request_headers\") (param i32 i32 i32) (result i32) unreachable))";
    let (folder, _) = temporary("trap.wasm", wat::parse_str(trap).expect("a module"));
    let write = |text: &str| fs::write(folder.path().join("a.test.yaml"), text).expect("a file");
    write("filter: trap.wasm\ntests: [{name: a, request: {}}]\n");
    let answer = proxy_wasm_in(folder.path(), &["test"]).ended(1);
    assert!(
        answer.out.contains("a filter failed: filter \"trap\": proxy_on_request_headers failed")
    );
    write(
        "filter: trap.wasm\ntests: [{name: a, request: {}, expect: {error: unreachable, status: 503}}]\n",
    );
    proxy_wasm_in(folder.path(), &["test"]).ended(0);
}

#[test]
fn bad_files() {
    for (text, cause) in [
        (
            "filter: a\ntests:\n- name: a\n  expext: {}\n",
            ":4:3: there is no key \"expext\" here; did you mean \"expect\"?",
        ),
        ("filter: [\n", "not YAML"),
        ("", "a map is wanted here"),
        ("filter: a.wasm\ntests: [{name: x, request: {path: x}}]", "begin with /"),
    ] {
        let (_folder, name) = temporary("a.test.yaml", text);
        let answer = proxy_wasm(&["test", &name]).ended(2);
        assert!(
            answer.err.contains(&name) && answer.err.contains(cause),
            "{text:?}: {}",
            answer.err
        );
    }
    let (folder, _) = temporary("a.test.yaml", "filter: none.wasm\ntests: [{name: x}]\n");
    let answer = proxy_wasm_in(folder.path(), &["test"]).ended(2);
    assert!(answer.err.contains("a.test.yaml:2: none.wasm: No such file"), "{}", answer.err);
    let probe = guest("probe");
    for (of_request, cause) in [
        ("body: {file: none.txt}", "none.txt: No such file"),
        ("properties: {request.method: GET}", "request.method follows from the request"),
    ] {
        let text = format!("filter: {probe}\ntests: [{{name: x, request: {{{of_request}}}}}]\n");
        fs::write(folder.path().join("a.test.yaml"), text).expect("a file");
        let answer = proxy_wasm_in(folder.path(), &["test", "--json"]).ended(2);
        let error = answer.json()["error"].to_string();
        assert!(error.contains("a.test.yaml:2: ") && error.contains(cause), "{error}");
    }
    let empty = tempfile::tempdir().expect("a folder");
    assert!(proxy_wasm_in(empty.path(), &["test"]).ended(2).err.contains("no file of scenarios"));
}

#[test]
fn the_schema_knows_every_key() {
    let schema = proxy_wasm(&["test", "--schema"]).ended(0).out;
    for key in
        ["\"upstreams\"", "\"calls_hold\"", "\"shared_data\"", "\"starts_with\"", "\"base64\""]
    {
        assert!(schema.contains(key), "{key}");
    }
    let committed =
        fs::read_to_string(root().join("cli/scenario.schema.json")).expect("the schema");
    if std::env::var_os("RPW_BLESS").is_some() {
        fs::write(root().join("cli/scenario.schema.json"), &schema).expect("a file");
    } else {
        assert!(
            schema == committed,
            "cli/scenario.schema.json is stale: run this with RPW_BLESS=1"
        );
    }
}

#[test]
fn watching() {
    let (folder, name) = scenario(PASSES);
    let mut child = command(folder.path(), &["test", "--watch", &name])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the command runs");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut wait_for = |text: &str| {
        let found =
            lines.by_ref().map(|line| line.expect("a line")).find(|line| line.contains(text));
        assert!(found.is_some(), "{text}");
    };
    wait_for("1 passed");
    wait_for("waiting");
    fs::write(&name, fs::read_to_string(&name).expect("a file") + "- name: empty\n")
        .expect("a file");
    wait_for("2 passed");
    child.kill().expect("a child");
    child.wait().expect("a child");
}
