//! Playing scenarios.

use std::time::Instant;

use super::expect::{self, Seen};
use super::model::{self, Answer, CallFailure, Expect, Filter, Request, Response, Test};
use super::record::{self, Other, Played, Sent};
use super::values::{Content, OneOrMany, Short, Text};
use super::{Outcome, Scenario};
use crate::core::abi::LogLevel;
use crate::core::callout::FailureKind;
use crate::core::ports::Stores as _;
use crate::core::vm::Options;
use crate::fail::Fail;
use crate::play::calls::{Canned, Source, Upstreams};
use crate::play::chain::{Chain, FilterSpec};
use crate::play::flow::{Access, Flow, Planned};
use crate::play::headers::Headers;
use crate::play::loader::Loader;
use crate::play::properties;
use crate::play::request;
use crate::play::server::{Clock, Server};
use crate::play::trace::level_word;
use crate::run::filters::{stem, unique};
use crate::run::report::Message;

/// Plays one test.
pub fn play(
    scenario: &Scenario,
    test: &Test,
    line: usize,
    loader: &Loader,
) -> Result<Outcome, Fail> {
    let started = Instant::now();
    let mut failures = Vec::new();
    let mut played = Played::default();
    let mut player = Player { scenario, failures: &mut failures, played: &mut played };
    let log = player.play(test, line, loader).map_err(|cause| {
        // What cannot be played is no test that failed.
        Fail::input(format!("{}:{line}: {cause}", scenario.name))
    })?;
    Ok(Outcome {
        name: test.name.clone(),
        line,
        failures,
        log,
        seconds: started.elapsed().as_secs_f64(),
        played,
    })
}

struct Player<'a> {
    scenario: &'a Scenario,
    failures: &'a mut Vec<(usize, String)>,
    played: &'a mut Played,
}

impl Player<'_> {
    fn fail(&mut self, line: usize, cause: impl Into<String>) {
        self.failures.push((line, cause.into()));
    }

    /// Returns the lines of the log.
    fn play(&mut self, test: &Test, line: usize, loader: &Loader) -> Result<Vec<String>, String> {
        let file = &self.scenario.file;
        let log_level = file.log_level.map_or(LogLevel::Info, LogLevel::from);
        let server = Server::new(Clock::Simulated, log_level);
        self.played.log_level = level_word(log_level);
        let specs = self.specs(test)?;
        let upstreams = self.upstreams(test)?;
        let (mut chain, loaded) = Chain::load(&server, loader, specs, upstreams);
        self.played.refused = loaded.as_ref().err().map(|error| error.text.clone());
        match (loaded, &test.refused) {
            (Ok(()), None) => {}
            (Ok(()), Some(_)) => self.fail(line, "the filter loads, and should be refused"),
            (Err(error), Some(expected)) => {
                if let Err(cause) = expected.check_part(&error.text) {
                    self.fail(line, format!("the error {cause}"));
                }
            }
            (Err(error), None) => {
                self.fail(line, error.text);
                return Ok(lines_of(&chain));
            }
        }
        let mut seen = Seen::default();
        if test.refused.is_none() {
            chain.settle();
            self.steps(test, line, &mut chain, &mut seen)?;
        } else {
            seen.take(&mut chain);
            // That it is refused is no failure of the test.
            seen.forget_errors();
            if let Some(expect) = &test.expect {
                self.check((expect.line, None), &expect.value, &chain, &mut seen);
            }
        }
        chain.end();
        Ok(lines_of(&chain))
    }

    fn steps(
        &mut self,
        test: &Test,
        line: usize,
        chain: &mut Chain,
        seen: &mut Seen,
    ) -> Result<(), String> {
        if test.request.is_some() || test.response.is_some() || test.steps.is_empty() {
            let request = test.request.clone().unwrap_or_default();
            self.request(chain, seen, &request, test.response.as_ref())?;
        }
        seen.take(chain);
        match &test.expect {
            Some(expect) => self.check((expect.line, None), &expect.value, chain, seen),
            None if test.steps.is_empty() => {
                self.check((line, None), &Expect::default(), chain, seen);
            }
            // What came while the filter was loaded is of the first step.
            None => {}
        }
        for step in &test.steps {
            let (line, step) = (step.line, &step.value);
            for _ in 0..step.times.unwrap_or(1) {
                if test.expect.is_some() || line != test.steps[0].line {
                    seen.reset_messages();
                }
                seen.others = self.other_workers(chain, step)?;
                if let Some(request) = &step.request {
                    self.request(chain, seen, request, step.response.as_ref())?;
                }
                if let Some(time) = step.advance {
                    chain.pass_until(time.0, |_| false);
                }
                chain.settle();
                seen.take(chain);
                let advance = step.advance.map(|time| time.0);
                match &step.expect {
                    Some(expect) => {
                        self.check((expect.line, advance), &expect.value, chain, seen);
                    }
                    None => self.check((line, advance), &Expect::default(), chain, seen),
                }
            }
        }
        Ok(())
    }

    fn check(
        &mut self,
        (line, advance): (usize, Option<u64>),
        expect: &Expect,
        chain: &Chain,
        seen: &mut Seen,
    ) {
        for cause in expect::check(expect, chain, seen) {
            self.fail(line, cause);
        }
        self.played.steps.push(seen.record(line, advance, chain));
        seen.reset();
    }

    /// Does what other workers do in a step.
    fn other_workers(&mut self, chain: &Chain, step: &model::Step) -> Result<Vec<Other>, String> {
        let mut done = Vec::new();
        let shared = chain.server.shared().ok_or("there is no shared memory")?;
        let refused = |cause| format!("shared memory: {cause:?}");
        if let Some(message) = &step.message {
            let data = message.data.bytes(&self.scenario.folder)?;
            let (vm_id, queue) = (message.vm_id.as_bytes(), message.queue.as_bytes());
            let id = shared.queue(vm_id, queue).map_err(refused)?;
            shared.enqueue(id, &data).map_err(refused)?;
            done.push(Other {
                vm_id: message.vm_id.clone(),
                queue: Some(message.queue.clone()),
                key: None,
                data: record::bytes(&data),
            });
        }
        if let Some(share) = &step.share {
            for (key, value) in &share.data {
                let value = value.bytes(&self.scenario.folder)?;
                shared.set(share.vm_id.as_bytes(), key.as_bytes(), &value, 0).map_err(refused)?;
                done.push(Other {
                    vm_id: share.vm_id.clone(),
                    queue: None,
                    key: Some(key.clone()),
                    data: record::bytes(&value),
                });
            }
        }
        Ok(done)
    }

    fn request(
        &mut self,
        chain: &mut Chain,
        seen: &mut Seen,
        of: &Request,
        response: Option<&Response>,
    ) -> Result<(), String> {
        let (request, body) = self.client_request(of)?;
        let planned = self.upstream_response(response)?;
        seen.was_requested = true;
        let properties = self.scenario.file.properties.iter().chain(&of.properties);
        seen.sent = Some(Sent {
            request: Message::request(&request, &body),
            properties: properties
                .map(|(name, Text(value))| (name.clone(), value.clone()))
                .collect(),
            status: planned.status,
            headers: record::lines(&planned.headers),
            pieces: planned.pieces.iter().map(|piece| record::bytes(piece)).collect(),
        });
        let mut flow = Flow::new(chain, request, body);
        let access = flow.access();
        if access == Access::Forward {
            seen.upstream = Some(Message::request(&flow.request(), flow.body()));
        }
        match flow.respond(access, &planned) {
            Ok(body) => {
                let request = flow.request();
                let headers = &request.response_headers;
                seen.response = Some(Message::response(request.status, headers, &body));
            }
            Err(cut) => seen.cut = Some(cut.0),
        }
        flow.end();
        chain.settle();
        Ok(())
    }

    fn client_request(&self, of: &Request) -> Result<(request::Request, Vec<u8>), String> {
        let body = self.content(of.body.as_ref())?;
        let mut request = request::Request::default();
        if let Some(method) = &of.method {
            request.method = method.clone().into_bytes();
            request.is_head = method == "HEAD";
        }
        if let Some(path) = &of.path {
            request.target = path.clone().into_bytes();
        }
        for (name, OneOrMany(values)) in &of.headers {
            for Text(value) in values {
                if name.eq_ignore_ascii_case("host") {
                    request.authority = Some(value.clone().into_bytes());
                } else {
                    request.headers.add(name.as_bytes(), value.as_bytes());
                }
            }
        }
        request.set_length(&body);
        for (name, Text(value)) in self.scenario.file.properties.iter().chain(&of.properties) {
            properties::set(&mut request, name, value)
                .map_err(|cause| format!("properties: {cause}"))?;
        }
        Ok((request, body))
    }

    fn upstream_response(&self, of: Option<&Response>) -> Result<Planned, String> {
        let none = Response::default();
        let of = of.unwrap_or(&none);
        let chunks = of.chunks.iter().map(|chunk| chunk.bytes(&self.scenario.folder));
        let mut pieces = chunks.collect::<Result<Vec<_>, _>>()?;
        if pieces.is_empty() {
            pieces.push(self.content(of.body.as_ref())?);
        }
        Ok(Planned::new(of.status.unwrap_or(200), lines(&of.headers), pieces))
    }

    fn content(&self, content: Option<&Content>) -> Result<Vec<u8>, String> {
        content.map_or(Ok(Vec::new()), |content| content.bytes(&self.scenario.folder))
    }

    fn specs(&mut self, test: &Test) -> Result<Vec<FilterSpec>, String> {
        let mut specs: Vec<FilterSpec> = Vec::new();
        for (index, short) in self.scenario.filters(test).enumerate() {
            let filter = match short {
                Short::Text(file) => Filter { file: file.clone(), ..Filter::default() },
                Short::Long(filter) => filter.clone(),
            };
            let path = self.scenario.folder.join(&filter.file);
            let bytes = crate::source::bytes(&path)
                .map_err(|error| format!("{}: {}", path.display(), crate::source::plain(&error)))?;
            let configuration = test.configuration.as_ref().filter(|_| index == 0);
            let configuration = configuration.or(filter.configuration.as_ref());
            let configuration = configuration.map(|content| content.bytes(&self.scenario.folder));
            let called = filter.name.clone().unwrap_or_else(|| stem(&path.to_string_lossy()));
            let mut options = Options::new(&unique(&called, &specs));
            options.root_id = filter.root_id.clone().unwrap_or(called);
            options.vm_id.clone_from(&filter.vm_id);
            options.vm_config = self.content(filter.vm_configuration.as_ref())?;
            options.env = filter
                .env
                .iter()
                .map(|(name, Text(value))| (name.clone(), value.clone()))
                .collect();
            options.fail_open = filter.fail == model::Fail::Open;
            options.body = filter.body;
            options.calls_hold = filter.calls_hold;
            options.memory_limit = filter.memory_limit.unwrap_or(options.memory_limit);
            options.body_limit = filter.body_limit.unwrap_or(options.body_limit);
            let milliseconds =
                |time: super::values::Duration| u32::try_from(time.0).unwrap_or(u32::MAX);
            if let Some(time) = filter.time_limit {
                options.time_limits.callback = milliseconds(time);
            }
            if let Some(time) = filter.start_time_limit {
                options.time_limits.start = milliseconds(time);
            }
            if let Some(time) = filter.pause_timeout {
                options.pause_timeout = milliseconds(time);
            }
            let spec = FilterSpec { bytes, options, configuration: configuration.transpose()? };
            self.played.filters.push(record::Filter::of(&path.to_string_lossy(), &spec));
            specs.push(spec);
        }
        Ok(specs)
    }

    fn upstreams(&mut self, test: &Test) -> Result<Upstreams, String> {
        let mut upstreams = Upstreams::default();
        for (name, OneOrMany(answers)) in self.scenario.file.upstreams.iter().chain(&test.upstreams)
        {
            let canned = answers.iter().map(|answer| self.canned(answer));
            let canned = canned.collect::<Result<Vec<_>, _>>()?;
            let answers = canned.iter().map(record::Answer::of).collect();
            self.played.upstreams.insert(name.clone(), answers);
            upstreams.insert(name, Source::Canned(canned));
        }
        Ok(upstreams)
    }

    fn canned(&self, answer: &Answer) -> Result<Canned, String> {
        Ok(Canned {
            method: answer.method.clone(),
            path: answer.path.clone(),
            status: answer.status.unwrap_or(200),
            headers: lines(&answer.headers),
            body: self.content(answer.body.as_ref())?,
            trailers: lines(&answer.trailers),
            after_ms: answer.after.0,
            failure: answer.fails.map(|fails| match fails {
                CallFailure::Resolver => FailureKind::Resolver,
                CallFailure::Connect => FailureKind::Connect,
                CallFailure::Refused => FailureKind::Refused,
                CallFailure::Tls => FailureKind::Tls,
                CallFailure::Timeout => FailureKind::Timeout,
                CallFailure::Closed => FailureKind::Closed,
                CallFailure::Protocol => FailureKind::Protocol,
            }),
        })
    }
}

/// The lines of the log.
fn lines_of(chain: &Chain) -> Vec<String> {
    chain.trace.lines().map(|line| format!("[{}] {}", line.level, line.text)).collect()
}

fn lines(headers: &std::collections::BTreeMap<String, OneOrMany<Text>>) -> Headers {
    let each = headers.iter().flat_map(|(name, OneOrMany(values))| {
        values.iter().map(move |Text(value)| (name.as_bytes(), value.as_bytes()))
    });
    each.collect()
}
