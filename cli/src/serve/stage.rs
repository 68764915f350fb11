//! The filters, and the requests that they know.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::log::{Log, Record};
use super::worker::{Begun, Head, Job, Way};
use crate::fail::Fail;
use crate::play::calls::Upstreams;
use crate::play::chain::{Chain, FilterSpec, LoadError, text};
use crate::play::flow::{Access, Flow, Parked};
use crate::play::headers::Headers;
use crate::play::loader::Loader;
use crate::play::request::Request;
use crate::play::server::Server;

/// See the module.
pub struct Stage {
    server: Arc<Server>,
    loader: Arc<Loader>,
    calls: Upstreams,
    log: Log,
    /// Filters by the number of their load. Requests end with those that they began with.
    chains: BTreeMap<u64, Chain>,
    open: HashMap<u64, Open>,
    /// How many requests there were.
    count: u64,
}

/// A request under way.
struct Open {
    /// The number of its filters.
    load: u64,
    parked: Parked,
    started: Instant,
    record: Record,
}

/// How long nothing is looked at when nothing is due.
const LONG: Duration = Duration::from_secs(3600);

/// Why filters did not take their place.
pub enum Unloaded {
    Filter(LoadError),
    /// What was to be said could not be written.
    Output(Fail),
}

impl fmt::Display for Unloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter(error) => f.write_str(&error.text),
            Self::Output(fail) => fail.fmt(f),
        }
    }
}

impl Stage {
    pub fn new(server: Arc<Server>, loader: Arc<Loader>, calls: Upstreams, log: Log) -> Self {
        Self { server, loader, calls, log, chains: BTreeMap::new(), open: HashMap::new(), count: 0 }
    }

    /// Has these filters take the place of those before. When that fails, the ones before stay.
    pub fn load(&mut self, specs: Vec<FilterSpec>) -> Result<(), Unloaded> {
        let (mut chain, loaded) =
            Chain::load(&self.server, &self.loader, specs, self.calls.clone());
        let result = match loaded {
            Ok(()) => {
                chain.settle();
                Ok(())
            }
            Err(error) => {
                chain.end();
                Err(Unloaded::Filter(error))
            }
        };
        self.between(&mut chain).map_err(Unloaded::Output)?;
        result?;
        let number = self.chains.last_key_value().map_or(1, |(last, _)| last + 1);
        self.chains.insert(number, chain);
        self.drop_unused();
        Ok(())
    }

    /// Does what it is asked until all that ask are gone.
    pub fn run(&mut self, jobs: &Receiver<Job>) -> Result<(), Fail> {
        loop {
            let idle = self.chains.values().filter_map(Chain::idle).min().unwrap_or(LONG);
            match jobs.recv_timeout(idle.min(LONG)) {
                Ok(job) => self.work(job)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            let mut chains = std::mem::take(&mut self.chains);
            for chain in chains.values_mut() {
                chain.settle();
                self.between(chain)?;
            }
            self.chains = chains;
        }
    }

    fn work(&mut self, job: Job) -> Result<(), Fail> {
        match job {
            Job::Begin { request, body, reply } => {
                if let Some(begun) = self.begin(*request, body) {
                    // The caller may be gone.
                    let _ = reply.send(begun);
                }
            }
            Job::Respond { number, status, headers, from, reply } => {
                let _ = reply.send(self.respond(number, status, headers, from));
            }
            Job::Piece { number, piece, is_last, reply } => {
                let _ = reply.send(self.piece(number, &piece, is_last));
            }
            Job::End { number, cut } => self.end(number, cut)?,
            Job::Replace { specs, codes } => {
                let names: Vec<String> =
                    specs.iter().map(|spec| spec.options.name.clone()).collect();
                match self.load(specs) {
                    Ok(()) => self.log.reloaded(&names)?,
                    Err(cause) => self.log.not_reloaded(&cause.to_string())?,
                }
                drop(codes);
            }
            Job::NotReplaced(cause) => self.log.not_reloaded(&cause)?,
        }
        Ok(())
    }

    fn begin(&mut self, request: Request, body: Vec<u8>) -> Option<Begun> {
        let started = Instant::now();
        let mut record = Record::of(&request);
        let (load, chain) = self
            .chains
            .last_key_value()
            .map(|(load, _)| *load)
            .and_then(|load| Some((load, self.chains.get_mut(&load)?)))?;
        let mut flow = Flow::new(chain, request, body);
        let way = match flow.access() {
            Access::Forward => {
                Way::Forward { request: Box::new(flow.request()), body: flow.body().to_vec() }
            }
            Access::Respond(local) => {
                record.answered_by_filter = true;
                Way::Respond(local)
            }
            Access::Close => Way::Close,
        };
        let parked = flow.park();
        record.take(chain);
        self.count += 1;
        self.open.insert(self.count, Open { load, parked, started, record });
        Some(Begun { number: self.count, way })
    }

    fn respond(
        &mut self,
        number: u64,
        status: u16,
        headers: Headers,
        from: Option<String>,
    ) -> Result<Head, String> {
        self.with(number, |flow, record| {
            flow.header_filter(status, headers, from.as_deref()).map_err(|cut| cut.0)?;
            let request = flow.request();
            record.status = Some(request.status);
            Ok(Head { status: request.status, headers: request.response_headers })
        })
    }

    fn piece(&mut self, number: u64, piece: &[u8], is_last: bool) -> Result<Vec<u8>, String> {
        self.with(number, |flow, record| {
            let passed = flow.body_filter(piece, is_last).map_err(|cut| cut.0)?;
            record.bytes += passed.len() as u64;
            Ok(passed)
        })
    }

    /// Continues with a request.
    fn with<T>(
        &mut self,
        number: u64,
        f: impl FnOnce(&mut Flow<'_>, &mut Record) -> Result<T, String>,
    ) -> Result<T, String> {
        let missing = || format!("request {number} is over");
        let open = self.open.remove(&number).ok_or_else(missing)?;
        let chain = self.chains.get_mut(&open.load).ok_or_else(missing)?;
        let Open { load, parked, started, mut record } = open;
        let mut flow = parked.resume(chain);
        let result = f(&mut flow, &mut record);
        let parked = flow.park();
        record.take(chain);
        self.open.insert(number, Open { load, parked, started, record });
        result
    }

    fn end(&mut self, number: u64, cut: Option<String>) -> Result<(), Fail> {
        let Some(open) = self.open.remove(&number) else { return Ok(()) };
        let Open { load, parked, started, mut record } = open;
        record.cut = cut;
        record.milliseconds = started.elapsed().as_secs_f64() * 1000.0;
        if let Some(chain) = self.chains.get_mut(&load) {
            parked.resume(chain).end();
            record.take(chain);
        }
        self.log.request(&record)?;
        self.drop_unused();
        Ok(())
    }

    /// Ends filters that others took the place of, once no request is left that they know.
    fn drop_unused(&mut self) {
        let Some(current) = self.chains.last_key_value().map(|(number, _)| *number) else { return };
        let open = &self.open;
        let is_used = |load: u64| load == current || open.values().any(|open| open.load == load);
        let unused: Vec<u64> = self.chains.keys().copied().filter(|load| !is_used(*load)).collect();
        for load in unused {
            if let Some(mut chain) = self.chains.remove(&load) {
                chain.end();
                // What filters say at their end is of no request; a failure to write it ends the loop at the next line.
                let _ = self.between(&mut chain);
            }
        }
    }

    /// Says what filters did outside of requests.
    fn between(&self, chain: &mut Chain) -> Result<(), Fail> {
        let mut record = Record::default();
        record.take(chain);
        self.log.between(&record)
    }
}

impl Record {
    fn of(request: &Request) -> Self {
        Self { method: text(&request.method), path: text(&request.target), ..Self::default() }
    }

    /// Takes what was done since the last look.
    fn take(&mut self, chain: &mut Chain) {
        let server = chain.server.clone();
        chain.trace.orphans(&server);
        self.steps.append(&mut chain.trace.steps);
        self.calls.append(&mut chain.calls);
    }
}
