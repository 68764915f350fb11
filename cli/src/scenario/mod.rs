//! Scenarios: tests of filters in YAML or TOML.
//!
//! [`syntax`] reads a file as a tree, [`node`] reads types out of it, [`model`] has these types, [`check`] says what they must be, [`runner`] plays them and
//! [`expect`] says what is not as it must be, [`record`] what was played and came of it. [`command`] is `proxy-wasm test`, [`junit`] writes its results for CI.

mod check;
pub mod command;
mod expect;
mod junit;
mod matching;
pub mod model;
pub mod node;
mod record;
mod runner;
mod state;
pub mod syntax;
mod values;

use std::path::{Path, PathBuf};

use model::{File, Test};
use node::{Located, Wrong};
use record::Played;
use serde::Serialize;
use values::Short;

use crate::fail::Fail;

/// A file of tests that was read.
pub struct Scenario {
    /// As it was named.
    pub name: String,
    /// Where the paths in it begin.
    pub folder: PathBuf,
    pub file: File,
}

/// What came of a test.
#[derive(Debug, Serialize)]
pub struct Outcome {
    pub name: String,
    pub line: usize,
    /// What is wrong, each with the line that says so.
    pub failures: Vec<(usize, String)>,
    pub log: Vec<String>,
    pub seconds: f64,
    pub played: Played,
}

impl Scenario {
    /// Reads a file.
    pub fn read(name: &str) -> Result<Self, Fail> {
        let bytes = crate::source::read(name)?;
        let text = String::from_utf8(bytes)
            .map_err(|_| Fail::input(format!("{name}: it is no text in UTF-8")))?;
        let file =
            Self::parse(name, &text).map_err(|wrong| Fail::input(format!("{name}:{wrong}")))?;
        let folder = Path::new(name).parent().map(Path::to_path_buf).unwrap_or_default();
        Ok(Self { name: name.into(), folder, file })
    }

    /// Reads a text; `name` tells YAML from TOML.
    pub fn parse(name: &str, text: &str) -> Result<File, Wrong> {
        let root = syntax::parse(name, text)?;
        let file: File = node::read(&root)?;
        check::file(&file, root.place.line)
            .map_err(|(line, text)| Wrong::new(node::Place { line, column: 1 }, text))?;
        Ok(file)
    }

    /// The filters of a test in their order.
    pub fn filters<'a>(&'a self, test: &'a Test) -> impl Iterator<Item = &'a Short<model::Filter>> {
        let own = test.filter.is_some() || !test.filters.is_empty();
        let (one, many) = match own {
            true => (&test.filter, &test.filters),
            false => (&self.file.filter, &self.file.filters),
        };
        one.iter().chain(many)
    }

    /// The filters of all tests.
    pub fn all_filters(&self) -> impl Iterator<Item = &Short<model::Filter>> {
        let of_tests = self.file.tests.iter().flat_map(|test| self.filters(&test.value));
        self.file.filter.iter().chain(&self.file.filters).chain(of_tests)
    }

    /// The tests.
    pub fn tests(&self) -> &[Located<Test>] {
        &self.file.tests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        Scenario::parse("a.yaml", text).map(|_| ()).expect_err("an error").to_string()
    }

    #[test]
    fn wrong_keys_are_named_with_their_place_and_the_nearest_right_one() {
        let text = "filter: a.wasm\ntests:\n  - name: one\n    expct:\n      status: 200\n";
        assert_eq!(wrong(text), "4:5: there is no key \"expct\" here; did you mean \"expect\"?");
        let text = "filter: a.wasm\ntests:\n  - name: one\n    expect:\n      body: {jsn: {}}\n";
        assert_eq!(wrong(text), "5:14: there is no key \"jsn\" here; did you mean \"json\"?");
        let text = "filter: {file: a.wasm, root-id: b}\ntests: []\n";
        assert_eq!(
            wrong(text),
            "1:24: there is no key \"root-id\" here; did you mean \"root_id\"?"
        );
        let toml =
            "filter = \"a.wasm\"\n[[tests]]\nname = \"one\"\n[tests.request]\nmethd = \"GET\"\n";
        let error = Scenario::parse("a.toml", toml).map(|_| ()).expect_err("an error").to_string();
        assert_eq!(error, "5:1: there is no key \"methd\" here; did you mean \"method\"?");
    }

    #[test]
    fn wrong_values_are_named_with_their_place() {
        for (text, expected) in [
            ("tests: []", "1:1: one of the keys filter and filters is wanted"),
            ("tests:\n- name: x", "2:1: one of the keys filter and filters is wanted"),
            (
                "tests:\n- {name: x, filter: a}\n- {name: y, filter: a, filters: [b]}",
                "3:1: one of the keys filter and filters is enough",
            ),
            ("filter: a\ntests: 5", "2:8: a list is wanted here, and this is integer `5`"),
            ("filter: a\ntests:\n - 7", "3:4: a map is wanted here, and this is integer `7`"),
            (
                "filter: a\ntests:\n - name: x\n   expect: {status: ok}",
                "a whole number from 0 to 65535 is wanted here, and this is the text \"ok\"",
            ),
            (
                "filter: a\ntests:\n - name: x\n   expect: {body: {matches: '('}}",
                "no regular expression",
            ),
            ("filter: a\ntests:\n - name: x\n   steps: [{advance: soon}]", "\"soon\" is no time"),
            ("filter: a\ntests:\n - request: {}", "3:4: the key \"name\" is missing here"),
            ("filter: a\nlog_level: wran\ntests: []", "did you mean warn?"),
            ("filter: a\r\ntests: \r\r\n", "2:8: a carriage return without a line feed"),
            ("filter: {file: a, memory_limit: 1}\ntests: []", "1:1: option \"memory_limit\" must"),
            ("filter: {file: a, body_limit: 0}\ntests: []", "body_limit"),
            ("filter: {file: a, time_limit: 0s}\ntests: []", "time_limit"),
            ("filter: {file: a, env: {A=B: c}}\ntests: []", "env: \"A=B\" cannot be"),
            ("filter: a\nupstreams: {b: []}\ntests: []", "\"b\": it has no answer"),
            ("filter: a\nupstreams: {b: {status: 9}}\ntests: []", "from 100 to 999"),
            ("filter: a\nupstreams: {b: {trailers: {c d: e}}}\ntests: []", "no name of a header"),
        ] {
            let error = wrong(text);
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn what_no_client_and_no_server_can_send_is_told() {
        for (keys, expected) in [
            ("request: {path: no}", "3:1: path no: it must begin with /"),
            ("request: {path: \"/\\n\"}", "path /\\n: it must begin with /"),
            ("request: {method: a b}", "method a b: it must be of capital letters"),
            ("request: {headers: {a b: c}}", "no name of a header"),
            (
                "request: {headers: {a: [b, \"c\\nd\"]}}",
                "headers: \"a\": a value of a header is one line",
            ),
            ("response: {headers: {\"\": c}}", "no name of a header"),
            ("response: {status: 100}", "from 200 to 999"),
            ("response: {body: a, chunks: [b]}", "not both"),
            ("expect: {log: [{level: shout}]}", "4:27: \"shout\" is not one of debug"),
            ("steps: [{}]", "a step has one of the keys"),
            (
                "steps:\n   - {request: {}}\n   - {request: {}, advance: 1s}",
                "6:1: a step has one of",
            ),
            ("steps: [{advance: 1s, times: 2}]", "go with a request"),
            ("steps: [{request: {}, times: 0}]", "times must be from 1 to 1000000"),
            ("steps: [{request: {}, times: 1000001}]", "times must be from 1 to 1000000"),
            ("expect: {status: 5000}", "expect: a status is from 100 to 999"),
            ("steps: [{request: {}, expect: {status: 0}}]", "expect: a status is from 100 to 999"),
        ] {
            let error = wrong(&format!("filter: a\ntests:\n - name: x\n   {keys}\n"));
            assert!(error.contains(expected), "{keys:?}: {error}");
        }
    }

    #[test]
    fn short_forms() {
        let text = "filter: a.wasm\nproperties: {n: 1.10}\nupstreams: {a: {status: 404}, b: [{}, {fails: timeout}]}\ntests:\n- name: 5\n  request: {headers: {x-a: 7, x-b: [a, b]}, body: {json: {a: [1]}}}\n  expect: {headers: {x: null, y: [a, {contains: b}]}, body: {json: {$.a: 1}}, upstream: false}\n";
        let file = Scenario::parse("a.yaml", text).expect("a scenario");
        assert_eq!(file.properties["n"].0, "1.10");
        assert_eq!(file.upstreams["b"].0.len(), 2);
        let test = &file.tests[0];
        assert_eq!((test.line, test.value.name.as_str()), (5, "5"));
    }
}
