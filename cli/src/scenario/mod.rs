//! Scenarios: tests of filters in YAML or TOML.
//!
//! [`syntax`] reads a file as a tree, [`node`] reads types out of it, [`model`] has these types, [`runner`] plays them and
//! [`expect`] says what is not as it must be, [`record`] what was played and came of it. [`command`] is `proxy-wasm test`, [`junit`] writes its results for CI.

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
        let has_filter = file.filter.is_some() || !file.filters.is_empty();
        // A file without tests has nothing to say which filter they are of.
        if !has_filter && file.tests.is_empty() {
            return Err(Wrong::new(root.place, NO_FILTER));
        }
        if file.filter.is_some() && !file.filters.is_empty() {
            return Err(Wrong::new(root.place, TWO_FILTERS));
        }
        for test in &file.tests {
            check_test(test, has_filter)
                .map_err(|(line, text)| Wrong::new(node::Place { line, column: 1 }, text))?;
        }
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

const NO_FILTER: &str = "one of the keys filter and filters is wanted";
const TWO_FILTERS: &str = "one of the keys filter and filters is enough";

/// What types alone do not say. The error has its line.
fn check_test(test: &Located<Test>, has_filter: bool) -> Result<(), (usize, &'static str)> {
    let Located { line, value: test } = test;
    match (&test.filter, test.filters.is_empty()) {
        (Some(_), false) => return Err((*line, TWO_FILTERS)),
        (None, true) if !has_filter => return Err((*line, NO_FILTER)),
        _ => {}
    }
    let plays = test.request.is_some() || test.response.is_some() || !test.steps.is_empty();
    if test.refused.is_some() && plays {
        return Err((*line, "a filter that is refused gets no request"));
    }
    if test
        .request
        .iter()
        .chain(test.steps.iter().filter_map(|step| step.value.request.as_ref()))
        .any(|request| request.path.as_ref().is_some_and(|path| !path.starts_with('/')))
    {
        return Err((*line, "the path of a request begins with /"));
    }
    for step in &test.steps {
        if step.value.response.is_some() && step.value.request.is_none() {
            return Err((step.line, "a response needs a request"));
        }
        if step.value.times == Some(0) {
            return Err((step.line, "times must be 1 or more"));
        }
    }
    let responses = test.response.iter();
    let responses = responses.chain(test.steps.iter().filter_map(|s| s.value.response.as_ref()));
    for response in responses {
        if response.body.is_some() && !response.chunks.is_empty() {
            return Err((*line, "a response has a body or chunks, not both"));
        }
        if response.status.is_some_and(|status| !(200..1000).contains(&status)) {
            return Err((*line, "the status of a response is from 200 to 999"));
        }
    }
    Ok(())
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
        ] {
            let error = wrong(text);
            assert!(error.contains(expected), "{text:?}: {error}");
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
