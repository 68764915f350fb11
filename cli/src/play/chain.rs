//! Filters that are loaded and configured, and what they do outside of requests.

use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::calls::{Call, Upstreams};
use super::loader::Loader;
use super::server::Server;
use super::trace::Trace;
use crate::core::abi::LogLevel;
use crate::core::callout::{Failure, Response};
use crate::core::error::Error;
use crate::core::ports::{Clock as _, Host, Log as _};
use crate::core::vm::{CallRef, Context, Module, Options, Plugin, Work};
use crate::core::{grpc, redis};
use crate::fail::Fail;

/// What a filter is made of.
pub struct FilterSpec {
    pub bytes: Vec<u8>,
    /// Its name, root id and limits.
    pub options: Options,
    /// `None` for no configuration.
    pub configuration: Option<Vec<u8>>,
}

/// A filter with its plugin context.
pub(super) struct Filter {
    pub name: String,
    pub context: Rc<Context>,
    /// When it wants to be asked for work, by the monotonic clock.
    next: Option<u64>,
}

/// Why a chain was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// It names the filter and the step.
    pub text: String,
    /// The filter whose bytes are no module, and what they are.
    no_module: Option<(usize, String)>,
}

impl LoadError {
    /// It as bad input, where a file is no module; `files` are those of the filters.
    pub fn input(&self, files: &[String]) -> Option<Fail> {
        let (index, cause) = self.no_module.as_ref()?;
        Some(Fail::input(format!("{}: {cause}", files.get(*index)?)))
    }
}

/// See the module.
pub struct Chain {
    pub server: Arc<Server>,
    pub trace: Trace,
    /// Calls in the order in which they were made.
    pub calls: Vec<Call>,
    pub upstreams: Upstreams,
    pub(super) filters: Vec<Filter>,
    pending: Vec<Pending>,
    wakers: usize,
}

/// A call whose answer is on its way.
struct Pending {
    due: u64,
    filter: usize,
    call: CallRef,
    number: usize,
    answer: Answer,
}

enum Answer {
    Http(Result<Response, Failure>),
    Grpc(grpc::Event),
    Redis(Result<Vec<u8>, Failure>),
}

impl Chain {
    /// Loads and configures filters. The steps of those that succeeded, and of the one that did not, are in the trace.
    pub fn load(
        server: &Arc<Server>,
        loader: &Loader,
        specs: Vec<FilterSpec>,
        upstreams: Upstreams,
    ) -> (Self, Result<(), LoadError>) {
        server.set_upstreams(upstreams.registered());
        let mut chain = Self {
            server: server.clone(),
            trace: Trace::default(),
            calls: Vec::new(),
            upstreams,
            filters: Vec::new(),
            pending: Vec::new(),
            wakers: 0,
        };
        let loaded = specs.into_iter().try_for_each(|spec| chain.add(loader, spec));
        (chain, loaded)
    }

    fn add(&mut self, loader: &Loader, spec: FilterSpec) -> Result<(), LoadError> {
        let name = spec.options.name.clone();
        let host: Arc<dyn Host> = self.server.clone();
        let failed = |step: &str, cause: String| {
            let text = format!("filter \"{name}\": failed to {step}: {cause}");
            LoadError { text, no_module: None }
        };
        let load = |cause: Error| failed("load wasm plugin", cause.to_string());
        let index = self.filters.len();
        let code = loader.code(&spec.bytes).map_err(|cause| match cause {
            Error::Module(_) => {
                LoadError { no_module: Some((index, cause.to_string())), ..load(cause) }
            }
            cause => load(cause),
        })?;
        let module = Module::new(code, spec.options, &host).map_err(load)?;
        for warning in module.warnings() {
            let line = format!("wasm plugin \"{name}\": {warning}");
            host.log(None, LogLevel::Warn, line.as_bytes());
        }
        let plugin =
            self.trace.step(&self.server, &name, || Plugin::new(module, host)).map_err(load)?;
        let configuration = spec.configuration.unwrap_or_default();
        let context = self
            .trace
            .step(&self.server, &name, || Context::new(&plugin, &configuration))
            .map_err(|cause| failed("run proxy_on_configure", cause.to_string()))?;
        self.filters.push(Filter { name, context, next: Some(0) });
        self.look();
        Ok(())
    }

    /// How many filters there are.
    pub fn len(&self) -> usize {
        self.filters.len()
    }

    pub(super) fn context(&self, index: usize) -> Rc<Context> {
        self.filters[index].context.clone()
    }

    pub(super) fn plugin(&self, index: usize) -> &Rc<Plugin> {
        self.filters[index].context.plugin()
    }

    /// A token for somebody who waits.
    pub(super) fn new_waker(&mut self) -> NonZeroUsize {
        self.wakers += 1;
        NonZeroUsize::MIN.saturating_add(self.wakers)
    }

    /// Takes the calls that filters want to make, and has them answered.
    pub fn look(&mut self) {
        for index in 0..self.filters.len() {
            let work = self.plugin(index).requested();
            self.take(index, work);
        }
    }

    fn take(&mut self, index: usize, work: Work) {
        let name = self.filters[index].name.clone();
        let now = self.server.monotonic_clock();
        for dropped in &work.dropped {
            self.pending.retain(|p| p.filter != index || !p.call.is_of(*dropped));
        }
        for (call, dispatched) in work.calls {
            let mut record = Call::of(&name, &dispatched);
            record.at_ms = self.server.passed_ms();
            let (after_ms, result) = self.upstreams.answer(&dispatched, &record);
            record.answer = match &result {
                Ok(response) => text(response.headers.get(b":status").unwrap_or_default()),
                Err(failure) => failure.to_string(),
            };
            if let Err(failure) = &result {
                let line = format!(
                    "wasm plugin \"{name}\": HTTP call to {} failed: {failure}",
                    dispatched.name
                );
                self.server.log(None, LogLevel::Warn, line.as_bytes());
            }
            self.calls.push(record);
            let due = now + after_ms * NANOS_PER_MS;
            let number = self.calls.len();
            let answer = Answer::Http(result);
            self.pending.push(Pending { due, filter: index, call, number, answer });
        }
        for (call, function) in work.foreign {
            let line = format!(
                "wasm plugin \"{name}\": no function {} is registered",
                function.name.escape_ascii()
            );
            self.server.log(None, LogLevel::Warn, line.as_bytes());
            let plugin = self.plugin(index).clone();
            let answered = || plugin.foreign_result(call, Vec::new(), false);
            let result = self.trace.step(&self.server, &name, answered);
            self.report(index, result);
        }
        for (call, command) in work.grpc {
            match command {
                grpc::Command::Open(opening) => self.open(index, call, &opening),
                grpc::Command::Cancel(_) => {
                    self.pending.retain(|p| p.filter != index || p.call != call)
                }
                grpc::Command::Send(..) => {}
            }
        }
        for (call, command) in work.redis {
            if let redis::Command::Call(asked) = command {
                self.ask_redis(index, call, &asked);
            }
        }
        for error in work.errors {
            self.report(index, Err(error));
        }
    }

    /// Begins a Redis call.
    fn ask_redis(&mut self, index: usize, call: CallRef, asked: &redis::Call) {
        let name = &self.filters[index].name;
        let mut record = Call::of_redis(name, asked);
        record.at_ms = self.server.passed_ms();
        let (after_ms, result) = self.upstreams.answer_redis(&record);
        match &result {
            Ok(answer) => record.answer = text(answer),
            Err(failure) => {
                record.answer = failure.to_string();
                let upstream = &record.upstream;
                let line =
                    format!("wasm plugin \"{name}\": Redis call to {upstream} failed: {failure}");
                self.server.log(None, LogLevel::Warn, line.as_bytes());
            }
        }
        self.calls.push(record);
        let due = self.server.monotonic_clock() + after_ms * NANOS_PER_MS;
        let number = self.calls.len();
        let answer = Answer::Redis(result);
        self.pending.push(Pending { due, filter: index, call, number, answer });
    }

    /// Begins a gRPC call. Streams fail.
    fn open(&mut self, index: usize, call: CallRef, opening: &grpc::Opening) {
        let name = &self.filters[index].name;
        let (kind, after_ms, event) = match Call::of_grpc(name, opening) {
            Some(mut record) => {
                record.at_ms = self.server.passed_ms();
                let (after_ms, event) = self.upstreams.answer_grpc(&record);
                record.answer = match &event {
                    grpc::Event::Close(status) => status.to_string(),
                    _ => grpc::Code::Ok.to_string(),
                };
                self.calls.push(record);
                ("call", after_ms, event)
            }
            None => {
                let text = "proxy-wasm plays no streams of gRPC";
                let status = grpc::Status::new(grpc::Code::Unavailable, text);
                ("stream", 0, grpc::Event::Close(status))
            }
        };
        if let grpc::Event::Close(status) = &event
            && !status.of_server
        {
            let upstream = &opening.name;
            let line =
                format!("wasm plugin \"{name}\": gRPC {kind} to {upstream} failed: {status}");
            self.server.log(None, LogLevel::Warn, line.as_bytes());
        }
        let due = self.server.monotonic_clock() + after_ms * NANOS_PER_MS;
        let number = self.calls.len();
        let answer = Answer::Grpc(event);
        self.pending.push(Pending { due, filter: index, call, number, answer });
    }

    /// Logs an error that no request is there to hear.
    pub(super) fn report(&self, index: usize, result: Result<(), Error>) {
        if let Err(error) = result {
            let line = format!("wasm plugin \"{}\": {error}", self.filters[index].name);
            self.server.log(None, LogLevel::Error, line.as_bytes());
        }
    }

    /// When there is something to do next, by the monotonic clock.
    fn next(&self) -> Option<u64> {
        let calls = self.pending.iter().map(|pending| pending.due);
        calls.chain(self.filters.iter().filter_map(|filter| filter.next)).min()
    }

    /// How long nothing is due; `None` when nothing will be by itself.
    pub fn idle(&self) -> Option<Duration> {
        let now = self.server.monotonic_clock();
        self.next().map(|at| Duration::from_nanos(at.saturating_sub(now)))
    }

    /// Does what is due. Returns whether there was anything.
    fn work(&mut self) -> bool {
        let now = self.server.monotonic_clock();
        let due = self.pending.iter().enumerate().filter(|(_, p)| p.due <= now);
        if let Some(first) = due.min_by_key(|(_, p)| (p.due, p.number)).map(|(index, _)| index) {
            let Pending { filter, call, answer, .. } = self.pending.remove(first);
            let plugin = self.plugin(filter).clone();
            let name = self.filters[filter].name.clone();
            let answered = self.trace.step(&self.server, &name, || match answer {
                Answer::Http(result) => plugin.answer(call, result),
                Answer::Grpc(event) => plugin.grpc_event(call, event),
                Answer::Redis(result) => plugin.redis_answer(call, result),
            });
            self.report(filter, answered);
            self.look();
            return true;
        }
        let Some(index) = self.filters.iter().position(|f| f.next.is_some_and(|at| at <= now))
        else {
            return false;
        };
        let plugin = self.plugin(index).clone();
        let name = self.filters[index].name.clone();
        let worked: Result<Work, String> =
            self.trace.step(&self.server, &name, || Ok(plugin.work()));
        let work = worked.unwrap_or_default();
        self.filters[index].next = work.next;
        self.take(index, work);
        true
    }

    /// Asks filters for work again: something may have given them some.
    pub fn wake_filters(&mut self) {
        for filter in &mut self.filters {
            filter.next = Some(0);
        }
    }

    /// Lets time pass until `done` says so, or that many milliseconds are over. Returns whether `done` did.
    pub fn pass_until(
        &mut self,
        milliseconds: u64,
        mut done: impl FnMut(&mut Self) -> bool,
    ) -> bool {
        let until = self.server.monotonic_clock() + milliseconds * NANOS_PER_MS;
        self.wake_filters();
        self.look();
        loop {
            if done(self) {
                return true;
            }
            if self.work() {
                continue;
            }
            let now = self.server.monotonic_clock();
            let next = self.next().unwrap_or(until).clamp(now + 1, until.max(now + 1));
            if now >= until {
                return false;
            }
            self.server.pass(Duration::from_nanos(next.min(until) - now));
        }
    }

    /// Does what is due now, and what that brings, without letting time pass.
    pub fn settle(&mut self) {
        self.wake_filters();
        self.look();
        // A filter that calls in each answer would continue without end.
        for _ in 0..MOST_AT_ONCE {
            if !self.work() {
                return;
            }
        }
    }

    /// Ends all plugin contexts.
    pub fn end(&mut self) {
        for index in 0..self.filters.len() {
            let context = self.context(index);
            let name = self.filters[index].name.clone();
            let ended = self.trace.step(&self.server, &name, || context.drop_by_owner());
            self.report(index, ended);
        }
        self.trace.orphans(&self.server);
    }
}

const NANOS_PER_MS: u64 = 1_000_000;
const MOST_AT_ONCE: usize = 10_000;

/// Bytes as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
