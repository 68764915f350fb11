//! `proxy-wasm bench`: what a filter costs.
//!
//! [`crate::play::meter`] measures. [`compare`] puts two filters beside each other, [`show`] draws.

mod compare;
mod show;

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use crate::core::abi::LogLevel;
use crate::fail::{Fail, Verdict};
use crate::out;
use crate::play::calls::Upstreams;
use crate::play::chain::{Chain, FilterSpec};
use crate::play::counter::Instructions;
use crate::play::flow::{Flow, Planned};
use crate::play::loader::{CacheArgs, Loader};
use crate::play::meter::{Figures, Meter};
use crate::play::request::Request;
use crate::play::server::{Clock, Server};
use crate::run::filters::FilterArgs;
use crate::run::{self, MessageArgs};
use compare::Comparison;

/// Measure what a filter's callbacks cost: the same request again and again.
#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(flatten)]
    pub filters: FilterArgs,

    /// Measure this file too, in place of the last filter, and compare
    #[arg(long, value_name = "FILE|REF")]
    pub vs: Option<String>,

    /// With --vs: end with exit code 1 when a callback of the first filter takes so many percent more: instructions where
    /// they are counted, else the median time
    #[arg(long, value_name = "PERCENT", requires = "vs")]
    pub fail_above: Option<f64>,

    /// Seconds to measure each filter
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, conflicts_with = "requests")]
    pub seconds: f64,

    /// Send so many requests in place of that
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub requests: Option<u64>,

    #[command(flatten)]
    pub message: MessageArgs,

    #[command(flatten)]
    pub cache: CacheArgs,
}

/// What `bench --json` prints.
#[derive(Debug, Serialize)]
pub struct Report {
    pub filters: Vec<Measured>,
    /// The first filter beside the one of `--vs`.
    pub comparison: Option<Comparison>,
    /// Why instructions were not counted.
    pub instructions_not_counted: Option<String>,
}

/// One filter's figures.
#[derive(Debug, Serialize)]
pub struct Measured {
    pub file: String,
    pub requests: u64,
    #[serde(flatten)]
    pub figures: Figures,
    /// What went wrong; a filter that fails is not worth its figures.
    pub failed: Option<String>,
}

/// Two filters take turns, so that a machine that becomes slower meanwhile is slower for both.
const ROUNDS: u32 = 10;

/// Requests before what is measured: the first ones grow memory and fill caches.
const WARM_UP: u64 = 100;

/// Measures.
pub fn run(args: &BenchArgs, json: bool) -> Result<Verdict, Fail> {
    if !(args.seconds > 0.0 && args.seconds <= 3600.0) {
        return Err(Fail::input(format!(
            "--seconds {}: it must be more than 0 and at most 3600",
            args.seconds
        )));
    }
    if args.fail_above.is_some_and(|percent| !percent.is_finite() || percent < 0.0) {
        return Err(Fail::input("--fail-above must be 0 or more"));
    }
    let specs = args.filters.specs()?;
    let (request, body) = args.message.request()?;
    let play = Play { request, body, planned: args.message.response()? };
    let upstreams = run::upstreams("--upstream", &args.message.upstream)?;
    let loader = Loader::new(&args.cache)?;
    let (instructions, not_counted) = match Instructions::new() {
        Ok(instructions) => (Some(instructions), None),
        Err(cause) => (None, Some(cause)),
    };

    let last = args.filters.filters.last().cloned().unwrap_or_default();
    let mut all = vec![(last, specs)];
    if let Some(file) = &args.vs {
        let mut filters = args.filters.clone();
        if let Some(last) = filters.filters.last_mut() {
            last.clone_from(file);
        }
        // The other file is called as the first one, so that both find the same root context.
        let mut specs = filters.specs()?;
        for (spec, first) in specs.iter_mut().zip(&all[0].1) {
            spec.options.name.clone_from(&first.options.name);
            spec.options.root_id.clone_from(&first.options.root_id);
        }
        all.push((file.clone(), specs));
    }
    let mut subjects = Vec::new();
    for (file, specs) in all {
        let mut files = args.filters.filters.clone();
        files.pop();
        files.push(file);
        let calls = upstreams.clone();
        subjects.push(Subject::new(&files, specs, &loader, calls, instructions.clone())?);
    }
    for round in 0..ROUNDS {
        for subject in &mut subjects {
            subject.round(&play, args, round);
        }
    }
    let filters: Vec<Measured> = subjects.into_iter().map(Subject::finish).collect();
    let comparison = match &*filters {
        [first, other] => Some(Comparison::new(&first.figures, &other.figures)),
        _ => None,
    };
    let report = Report { filters, comparison, instructions_not_counted: not_counted };
    if json {
        out::json(&report)?;
    } else {
        out::text(&show::report(&report))?;
    }
    let is_slower = args.fail_above.zip(report.comparison.as_ref());
    let is_slower = is_slower.is_some_and(|(percent, of)| of.worst().is_some_and(|w| w > percent));
    let has_failed = report.filters.iter().any(|filter| filter.failed.is_some());
    Ok((!is_slower && !has_failed).into())
}

/// What is sent and answered.
struct Play {
    request: Request,
    body: Vec<u8>,
    planned: Planned,
}

/// A filter that is measured.
struct Subject {
    file: String,
    chain: Chain,
    requests: u64,
    failed: Option<String>,
}

impl Subject {
    fn new(
        files: &[String],
        specs: Vec<FilterSpec>,
        loader: &Loader,
        upstreams: Upstreams,
        instructions: Option<Instructions>,
    ) -> Result<Self, Fail> {
        let server = Server::new(Clock::Paused, LogLevel::Error);
        let (mut chain, loaded) = Chain::load(&server, loader, specs, upstreams);
        let failed = match loaded {
            Ok(()) => None,
            Err(error) => match error.input(files) {
                Some(fail) => return Err(fail),
                None => Some(error.text),
            },
        };
        let file = files.last().cloned().unwrap_or_default();
        chain.settle();
        chain.trace.measure(Meter::new(instructions));
        Ok(Self { file, chain, requests: 0, failed })
    }

    /// A part of the measurement.
    fn round(&mut self, play: &Play, args: &BenchArgs, round: u32) {
        if self.failed.is_some() {
            return;
        }
        if round == 0 {
            for _ in 0..WARM_UP.min(args.requests.unwrap_or(WARM_UP)) {
                self.request(play);
            }
            self.chain.trace.meter().iter_mut().for_each(|meter| meter.reset());
            self.requests = 0;
        }
        let share = |all: u64, round: u32| all * u64::from(round) / u64::from(ROUNDS);
        let until = Instant::now() + Duration::from_secs_f64(args.seconds / f64::from(ROUNDS));
        let goes_on = |requests: u64| match args.requests {
            Some(all) => requests < share(all, round + 1),
            None => Instant::now() < until,
        };
        while self.failed.is_none() && goes_on(self.requests) {
            self.request(play);
        }
    }

    fn request(&mut self, play: &Play) {
        let mut flow = Flow::new(&mut self.chain, play.request.clone(), play.body.clone());
        let access = flow.access();
        if let Err(cut) = flow.respond(access, &play.planned) {
            self.failed = Some(format!("the client got no whole response: {}", cut.0));
        }
        flow.end();
        self.chain.settle();
        self.chain.calls.clear();
        self.requests += 1;
        let errors = self.chain.server.take_log();
        if let Some(line) = errors.into_iter().find(|line| line.level >= LogLevel::Error) {
            self.failed.get_or_insert(line.text);
        }
    }

    fn finish(mut self) -> Measured {
        let meter = self.chain.trace.meter().take();
        self.chain.end();
        Measured {
            file: self.file,
            requests: self.requests,
            figures: meter.map(Meter::finish).unwrap_or_default(),
            failed: self.failed,
        }
    }
}
