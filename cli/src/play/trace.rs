//! What happened while filters ran, step by step.

use std::time::Instant;

use serde::Serialize;

use super::meter::Meter;
use super::server::{LogLine, Server};
use crate::core::abi::{Callback, LogLevel};
use crate::core::ports::Stores as _;
use crate::core::store::Series;

/// One entry into a filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Step {
    pub filter: String,
    /// The callbacks that ran, in order.
    pub callbacks: Vec<String>,
    /// What the filter answered: continue, pause, respond, close.
    pub action: Option<&'static str>,
    pub microseconds: u64,
    /// Bytes of linear memory that the filter has afterwards.
    pub memory_bytes: u64,
    /// What it asked for: `set response header hello: world`.
    pub changes: Vec<String>,
    pub log: Vec<Line>,
    /// Why it failed.
    pub error: Option<String>,
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    pub level: &'static str,
    pub text: String,
}

impl From<LogLine> for Line {
    fn from(line: LogLine) -> Self {
        Self { level: level_word(line.level), text: line.text }
    }
}

/// The level as nginx writes it.
pub fn level_word(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Trace | LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
        LogLevel::Critical => "crit",
    }
}

/// All steps so far.
#[derive(Default)]
pub struct Trace {
    pub steps: Vec<Step>,
    /// Where it is there, callbacks are measured, and nothing else is kept.
    meter: Option<Meter>,
}

impl Trace {
    /// Runs `f`, which enters that filter, and keeps what came of it.
    pub fn step<T, E: ToString>(
        &mut self,
        server: &Server,
        filter: &str,
        f: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        if let Some(meter) = &mut self.meter {
            let recorder = server.recorder(filter);
            recorder.take();
            let start = meter.start();
            let result = f();
            meter.stop(&start, || shown_all(&recorder.take()), || recorder.memory());
            return result;
        }
        self.orphans(server);
        let recorder = server.recorder(filter);
        recorder.take();
        let started = Instant::now();
        let result = f();
        let microseconds = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let callbacks = recorder.take().chunk_by(|a, b| a == b).map(shown).collect::<Vec<_>>();
        let error = result.as_ref().err().map(ToString::to_string);
        let log: Vec<Line> = server.take_log().into_iter().map(Line::from).collect();
        if !callbacks.is_empty() || error.is_some() || !log.is_empty() {
            self.steps.push(Step {
                filter: filter.into(),
                callbacks,
                action: None,
                microseconds,
                memory_bytes: recorder.memory(),
                changes: Vec::new(),
                log,
                error,
            });
        }
        result
    }

    /// From here on callbacks are measured, and nothing else is kept.
    pub fn measure(&mut self, meter: Meter) {
        self.meter = Some(meter);
    }

    /// What measures.
    pub fn meter(&mut self) -> &mut Option<Meter> {
        &mut self.meter
    }

    /// Adds to the step that was last.
    pub fn last(&mut self, f: impl FnOnce(&mut Step)) {
        if let Some(step) = self.steps.last_mut() {
            f(step);
        }
    }

    /// Lines that were written between steps, by the host.
    pub fn orphans(&mut self, server: &Server) {
        if self.meter.is_some() {
            return;
        }
        let log: Vec<Line> = server.take_log().into_iter().map(Line::from).collect();
        if !log.is_empty() {
            self.steps.push(Step { log, ..Step::default() });
        }
    }

    /// All lines of the log so far.
    pub fn lines(&self) -> impl Iterator<Item = &Line> {
        self.steps.iter().flat_map(|step| &step.log)
    }
}

/// A callback, and how often it ran in a row.
fn shown(same: &[Callback]) -> String {
    let name = same.first().map_or("", |callback| callback.name());
    if same.len() > 1 { format!("{name} (× {})", same.len()) } else { name.into() }
}

fn shown_all(callbacks: &[Callback]) -> String {
    let names: Vec<String> = callbacks.chunk_by(|a, b| a == b).map(shown).collect();
    names.join(", ")
}

/// All metrics of the server.
pub fn metrics(server: &Server) -> Vec<Series> {
    server.shared().and_then(|shared| shared.metrics().ok()).unwrap_or_default()
}
