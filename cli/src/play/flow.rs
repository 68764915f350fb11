//! One request and its response on their way through a chain of filters: what `lib/resty/proxy-wasm/http/chain.lua` and the files
//! below it do in nginx.

use super::body::RequestBody;
use super::chain::Chain;
use super::local::Local;
use super::request::Request;
use super::show;
use crate::core::abi::{Callback, LogLevel};
use crate::core::effect::Effects;
use crate::core::error::Error;
use crate::core::event::{Action, Event};
use crate::core::guest::Output;
use crate::core::ports::{Log as _, Phase, RequestId};
use crate::core::vm::{self, StreamRef, Vm};

mod access;
mod response;

pub use response::Planned;

/// A request under way.
pub struct Flow<'a> {
    chain: &'a mut Chain,
    id: RequestId,
    participations: Vec<Participation>,
    /// Which filters hold some of the response's body.
    holding: Vec<bool>,
    /// The request's body now.
    body: Vec<u8>,
}

/// A request that waits for its upstream, and holds no chain meanwhile.
pub struct Parked {
    id: RequestId,
    participations: Vec<Participation>,
    holding: Vec<bool>,
    body: Vec<u8>,
}

impl Parked {
    /// Continues, in the chain that it was in.
    pub fn resume(self, chain: &mut Chain) -> Flow<'_> {
        let Self { id, participations, holding, body } = self;
        Flow { chain, id, participations, holding, body }
    }
}

/// What a filter is to a request.
#[derive(Clone, Copy)]
enum Participation {
    /// It was told of nothing yet.
    Free,
    Stream(StreamRef),
    /// It is told of nothing but the end.
    LeftOut(StreamRef),
    /// It failed, or another one answered before it.
    Skipped {
        drops_body: bool,
    },
}

/// How the way of the request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// It goes to the upstream.
    Forward,
    /// It is answered here.
    Respond(Local),
    /// Its connection is closed.
    Close,
}

/// The response went no further: the client sees that it is not whole. The text says why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut(pub String);

/// What came of an event.
struct Told {
    action: Action,
    body: Output,
    awaits_call: bool,
    expects_body: bool,
    rewrites_body: bool,
    effects: Effects,
}

impl Told {
    /// An outcome with the effects that came with it.
    fn of(outcome: vm::Outcome, vm: &mut Vm, stream: StreamRef) -> Self {
        let mut effects = Effects::default();
        vm.take_effects(stream.id, &mut effects);
        Self {
            action: outcome.action,
            body: outcome.body,
            awaits_call: outcome.awaits_call,
            expects_body: outcome.expects_body,
            rewrites_body: outcome.rewrites_body,
            effects,
        }
    }

    fn unchanged(body: Output) -> Self {
        Self {
            action: Action::Continue,
            body,
            awaits_call: false,
            expects_body: false,
            rewrites_body: false,
            effects: Effects::default(),
        }
    }
}

/// A filter failed. `rescued` is what becomes of the piece of a response's body that it was told of; `None` when what it
/// held is lost.
struct Failed {
    error: Error,
    rescued: Option<Output>,
}

enum Outcome {
    GoOn,
    /// The filter waits, and is to be given the body first.
    Held {
        expects_body: bool,
    },
    /// The request ends here.
    Ended(Option<Local>),
    Failed {
        cause: String,
        status: Option<u16>,
    },
}

const REQUEST_HEADERS: &str = "proxy_on_http_request_headers";
const REQUEST_BODY: &str = "proxy_on_http_request_body";
const RESPONSE_HEADERS: &str = "proxy_on_http_response_headers";
const RESPONSE_BODY: &str = "proxy_on_http_response_body";

impl<'a> Flow<'a> {
    /// Begins.
    pub fn new(chain: &'a mut Chain, mut request: Request, body: Vec<u8>) -> Self {
        request.body_bytes = body.len();
        let id = chain.server.add(request);
        let count = chain.len();
        Self {
            chain,
            id,
            participations: vec![Participation::Free; count],
            holding: vec![false; count],
            body,
        }
    }

    /// The request as it is now.
    pub fn request(&self) -> Request {
        self.chain.server.with(self.id, |request| request.clone())
    }

    /// Its body now.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Leaves the chain to others while the upstream works.
    pub fn park(self) -> Parked {
        let Self { chain: _, id, participations, holding, body } = self;
        Parked { id, participations, holding, body }
    }

    /// Takes a filter that failed out of the request. Returns whether the request continues without it.
    fn skip(&mut self, index: usize, cause: &str, drops_body: bool) -> bool {
        let open = self.chain.plugin(index).module().fail_open();
        let line = format!("wasm plugin \"{}\": {cause}", self.chain.filters[index].name);
        self.chain.server.log(Some(self.id), LogLevel::Error, line.as_bytes());
        let skipped = Participation::Skipped { drops_body: drops_body && !open };
        let before = std::mem::replace(&mut self.participations[index], skipped);
        self.end_stream(index, before);
        self.chain.look();
        open
    }

    fn end_stream(&mut self, index: usize, participation: Participation) {
        let (Participation::Stream(stream) | Participation::LeftOut(stream)) = participation else {
            return;
        };
        let context = self.chain.context(index);
        let name = self.chain.filters[index].name.clone();
        let server = self.chain.server.clone();
        let ended = self.chain.trace.step(&server, &name, || context.end_stream(stream));
        self.chain.report(index, ended);
        self.chain.look();
    }

    /// Tells a filter of an event, with its stream made when it is the first one.
    fn tell(
        &mut self,
        index: usize,
        callback: Callback,
        chunk: &[u8],
        end_of_stream: bool,
        piecewise: bool,
    ) -> Result<Told, Failed> {
        let told = self.enter(index, callback, chunk, end_of_stream, piecewise);
        if callback == Callback::ResponseBody {
            let body = match &told {
                Ok(told) => Some(&told.body),
                Err(failed) => failed.rescued.as_ref(),
            };
            match body {
                Some(Output::Hold) => self.holding[index] = true,
                Some(Output::Replace(_)) => self.holding[index] = false,
                _ => {}
            }
        }
        self.chain.look();
        match told {
            Err(Failed { error, rescued: None }) if !self.holding[index] => {
                Err(Failed { error, rescued: Some(Output::Unchanged) })
            }
            told => told,
        }
    }

    fn enter(
        &mut self,
        index: usize,
        callback: Callback,
        chunk: &[u8],
        end_of_stream: bool,
        piecewise: bool,
    ) -> Result<Told, Failed> {
        let context = self.chain.context(index);
        let name = self.chain.filters[index].name.clone();
        let server = self.chain.server.clone();
        let of_request = matches!(callback, Callback::RequestHeaders | Callback::RequestBody);
        let calls_hold = of_request && context.plugin().module().calls_hold().unwrap_or(false);
        let stream = match self.participations[index] {
            Participation::Stream(stream) => stream,
            Participation::LeftOut(_) => return Ok(Told::unchanged(Output::Unchanged)),
            Participation::Skipped { drops_body } => {
                let drops = drops_body && callback == Callback::ResponseBody;
                return Ok(Told::unchanged(if drops { Output::Hold } else { Output::Unchanged }));
            }
            Participation::Free => {
                let id = self.id;
                let start = || context.start_stream(id, calls_hold);
                let stream = self.chain.trace.step(&server, &name, start);
                let stream = stream.map_err(|error| Failed { error, rescued: None })?;
                self.participations[index] = Participation::Stream(stream);
                stream
            }
        };
        let event =
            Event { callback, end_of_stream, piecewise, calls_hold, waits: false, body: chunk };
        let (response, connection) =
            server.with(self.id, |r| (r.response_headers.clone(), r.connection()));
        let mut rescued = None;
        let run = || {
            context.with_stream(stream, |vm| {
                if vm.wants_response_headers(stream.id, callback)
                    && let Some(map) = vm.response_headers_mut(stream.id)
                {
                    response.iter().for_each(|(name, value)| map.push(name, value));
                    if response.get(b"connection").is_none() {
                        map.push(b"connection", connection);
                    }
                }
                let result = vm.run(stream.id, event);
                if result.is_err() && callback == Callback::ResponseBody {
                    rescued = Some(vm.rescue_body(stream.id, event));
                }
                let outcome = result?;
                Ok(Told::of(outcome, vm, stream))
            })
        };
        let before = self.chain.trace.steps.len();
        let told = self.chain.trace.step(&server, &name, run);
        if let Ok(told) = &told
            && self.chain.trace.steps.len() > before
        {
            self.chain.trace.last(|step| {
                step.action = Some(show::action(told.action));
                step.changes.extend(show::effects(&told.effects));
                step.changes.extend(show::body(&told.body, chunk));
            });
        }
        told.map_err(|error| Failed { error, rescued })
    }

    /// Does what an outcome asks for, and waits where that is a pause.
    fn finish(
        &mut self,
        index: usize,
        told: Result<Told, Failed>,
        step: &str,
        body: Option<&mut RequestBody>,
    ) -> Outcome {
        let told = told.map_err(|failed| {
            let too_large =
                matches!(failed.error, Error::BodyTooLarge { .. } | Error::BodiesTooLarge { .. });
            let cause = format!("failed to run {step}: {}", failed.error);
            (cause, too_large.then_some(413))
        });
        self.finish_waited(index, told, step, body)
    }

    fn finish_waited(
        &mut self,
        index: usize,
        mut told: Result<Told, (String, Option<u16>)>,
        step: &str,
        mut body: Option<&mut RequestBody>,
    ) -> Outcome {
        loop {
            let told_now = match told {
                Ok(told) => told,
                Err((cause, status)) => return Outcome::Failed { cause, status },
            };
            let local = self.apply(&told_now.effects);
            if let Some(body) = &mut body {
                body.take(told_now.body);
            }
            match told_now.action {
                Action::Continue => return Outcome::GoOn,
                Action::Respond => return Outcome::Ended(local),
                Action::Close => return Outcome::Ended(None),
                Action::Pause => told = self.wait(index, told_now.awaits_call, step),
            }
        }
    }

    /// Waits until a filter lets the request continue.
    fn wait(
        &mut self,
        index: usize,
        awaits_call: bool,
        step: &str,
    ) -> Result<Told, (String, Option<u16>)> {
        let failed = |cause: String| (format!("failed to run {step}: {cause}"), None);
        let Participation::Stream(stream) = self.participations[index] else {
            return Err(failed("the filter's VM was lost".into()));
        };
        let context = self.chain.context(index);
        let waker = self.chain.new_waker();
        let waits = context.with_stream(stream, |vm| Ok(vm.wait(stream.id, || Some(waker))));
        let milliseconds = context.plugin().pause_timeout();
        if waits.map_err(|error| failed(error.to_string()))? {
            self.chain.pass_until(milliseconds.into(), |chain| chain.server.was_woken(waker));
        }
        let name = self.chain.filters[index].name.clone();
        let server = self.chain.server.clone();
        let resume = || {
            context.with_stream(stream, |vm| {
                let outcome = vm.resume(stream.id)?;
                vm.keep_wakers(stream.id, |_| false);
                Ok(Told::of(outcome, vm, stream))
            })
        };
        let told = self.chain.trace.step(&server, &name, resume);
        let told = told.map_err(|error| failed(error.to_string()))?;
        self.chain.trace.last(|step| step.changes.extend(show::effects(&told.effects)));
        if told.action == Action::Pause {
            return Err(failed(if told.awaits_call || awaits_call {
                format!("the filter's calls were not answered within {milliseconds} ms")
            } else {
                format!(
                    "the filter paused the request, and nothing let it go on within {milliseconds} ms"
                )
            }));
        }
        Ok(told)
    }

    /// The request is over: its streams end, and the server forgets it.
    pub fn end(mut self) {
        self.chain.server.with(self.id, |request| request.phase = Phase::Log);
        for index in 0..self.participations.len() {
            let participation = std::mem::replace(
                &mut self.participations[index],
                Participation::Skipped { drops_body: false },
            );
            self.end_stream(index, participation);
        }
        self.chain.trace.orphans(&self.chain.server.clone());
        self.chain.server.forget(self.id);
    }

    /// Does to the request and the response what a filter asked for. Returns the response that it made.
    fn apply(&mut self, effects: &Effects) -> Option<Local> {
        self.chain.server.with(self.id, |request| request.apply(effects))
    }
}
