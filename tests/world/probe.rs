//! The scriptable guest of `t/guests/README.md`, loaded with its script as configuration.

use super::{Filter, Request, Stream, guest, sim_host};
use resty_proxy_wasm::vm::{Context, Options};
use std::rc::Rc;

/// A probe with one plugin context.
pub(crate) struct Probe {
    pub filter: Filter,
    pub context: Rc<Context>,
}

impl Probe {
    pub(crate) fn new(script: &str) -> Self {
        Self::load("probe.wasm", Options::new("probe"), script)
    }

    /// Another build of it: `probe_0_1_0.wasm`.
    pub(crate) fn of(file: &str, script: &str) -> Self {
        Self::load(file, Options::new("probe"), script)
    }

    pub(crate) fn with(options: Options, script: &str) -> Self {
        Self::load("probe.wasm", options, script)
    }

    fn load(file: &str, options: Options, script: &str) -> Self {
        let filter = Filter::load(&sim_host(), &guest(file), options).expect("the probe");
        let context = filter.context(script);
        Self { filter, context }
    }

    pub(crate) fn open(&self) -> Stream {
        self.filter.open(&self.context)
    }

    pub(crate) fn open_for(&self, request: Request) -> Stream {
        self.filter.open_for(&self.context, request)
    }

    /// Lines that it logged since the last look.
    pub(crate) fn said(&self) -> Vec<String> {
        self.filter.host.said()
    }

    /// The values behind the arrows of those lines: `STATUS VALUES`.
    pub(crate) fn answers(&self) -> Vec<String> {
        let answer = |line: String| line.split_once(" -> ").map_or(line.clone(), |(_, a)| a.into());
        self.said().into_iter().map(answer).collect()
    }

    pub(crate) fn warned(&self) -> Vec<String> {
        self.filter.host.warned()
    }
}

/// Runs a script's lines for `request_headers` on a request, and returns the answers.
pub(crate) fn request_headers(request: Request, script: &str) -> Vec<String> {
    let lines: Vec<String> = script.lines().map(|op| format!("request_headers: {op}")).collect();
    let probe = Probe::new(&lines.join("\n"));
    probe.open_for(request).request_headers();
    probe.answers()
}
