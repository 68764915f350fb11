//! An HTTP call under way: what it exchanges with its upstream, and TLS when the library speaks it.
//!
//! nginx keeps connections by the name of a pool. The state of TLS must stay with its connection, so each connection over
//! which the library speaks TLS has a pool of its own, and [`IdleTls`] its state.

use std::net::IpAddr;
use std::rc::Rc;

use rustc_hash::FxHashMap;

use super::super::tls;
use super::super::types::{RPW_CALL_DONE, RPW_CALL_RECEIVE, lend, rpw_work_t};
use super::sockets;
use crate::callout::{
    self, Exchange, Failure, FailureKind, Reached, Response, Secure, Step, Trust,
};
use crate::guest::Dispatched;
use crate::vm::{CallRef, Plugin};

/// See the module.
pub(crate) struct Call {
    pub plugin: Rc<Plugin>,
    pub of: CallRef,
    pub dispatched: Dispatched,
    /// What to connect to, and the name of its pool of connections.
    host: String,
    port: u16,
    pool: String,
    by_library: Option<ByLibrary>,
    pub exchange: Option<Exchange>,
    pub result: Option<Result<Response, callout::Failure>>,
    pub out: Vec<u8>,
    /// When it was handed to Lua.
    pub began: u64,
}

/// TLS that the library speaks.
struct ByLibrary {
    trust: Trust,
    /// The connections that may serve this call.
    key: String,
    /// The connection, see [`IdleTls`].
    number: u64,
    secure: Option<Secure>,
}

impl Call {
    /// A call that is to be made.
    pub(crate) fn new(plugin: &Rc<Plugin>, of: CallRef, dispatched: Dispatched) -> Self {
        let (host, port) = sockets::address(&dispatched.upstream.target);
        let by_library = tls::of_http(&dispatched.upstream);
        let by_library = by_library.map(|trust| ByLibrary {
            trust,
            key: String::new(),
            number: 0,
            secure: None,
        });
        Self {
            plugin: plugin.clone(),
            of,
            host,
            port,
            pool: dispatched.upstream.pool(&dispatched.server_name),
            dispatched,
            by_library,
            exchange: None,
            result: None,
            out: Vec::new(),
            began: 0,
        }
    }

    /// Whether it may be made to an address.
    pub(crate) fn permits(&self, address: IpAddr) -> bool {
        let named = self.dispatched.judged.unwrap_or(true);
        self.plugin.module().info().calls.permits_address(address, self.port, named)
    }

    /// How far the response has come.
    pub(crate) fn reached(&self) -> Reached {
        self.exchange.as_ref().map_or(Reached::Nothing, Exchange::reached)
    }

    /// Bytes of the response's body that are held.
    pub(crate) fn received(&self) -> usize {
        match (&self.exchange, &self.result) {
            (_, Some(Ok(response))) => response.body.len(),
            (Some(exchange), _) => exchange.received(),
            _ => 0,
        }
    }

    /// Connections that may serve each other's calls. Where an address is judged, by the same rules.
    fn key(&self) -> String {
        match self.dispatched.judged {
            None => self.pool.clone(),
            Some(named) => {
                let rules = self.plugin.module().info().calls.number();
                format!("{}@{rules}:{named}", self.pool)
            }
        }
    }

    /// Where the library speaks TLS: takes a connection that was kept, when there is one.
    pub(crate) fn take_idle(&mut self, idle: &mut IdleTls, now: u64) {
        if self.by_library.is_none() {
            return;
        }
        let key = self.key();
        if let Some(tls) = &mut self.by_library {
            (tls.number, tls.secure) = idle.take(&key, now);
            tls.key = key;
        }
    }

    /// Says what is to be connected to.
    pub(crate) fn describe(&mut self, id: u32, work: &mut rpw_work_t) {
        if let Some(tls) = &self.by_library {
            self.pool += &format!("#{}", tls.number);
        }
        work.id = id;
        work.timeout_ms = self.dispatched.timeout_ms;
        work.port = self.port.into();
        work.judged = self.dispatched.judged.is_some().into();
        work.tls = match (self.dispatched.upstream.tls, &self.by_library) {
            (false, _) => 0,
            (true, None) => 1,
            (true, Some(_)) => 2,
        };
        (work.host, work.host_length) = lend(&self.host);
        (work.pool, work.pool_length) = lend(&self.pool);
        (work.server_name, work.server_name_length) = lend(&self.dispatched.server_name);
    }

    /// There is a connection; `kept`: one that served another call before.
    pub(crate) fn connected(&mut self, kept: bool) -> Result<(), callout::Failure> {
        if let Some(tls) = &mut self.by_library
            && !(kept && tls.secure.is_some())
        {
            tls.secure = Some(Secure::new(&tls.trust, &self.dispatched.server_name)?);
        }
        Ok(())
    }

    /// The connection was kept for other calls.
    pub(crate) fn kept(&mut self, idle: &mut IdleTls, now: u64) {
        if let Some(tls) = &mut self.by_library
            && let Some(secure) = tls.secure.take()
        {
            idle.put(std::mem::take(&mut tls.key), tls.number, secure, now);
        }
    }

    /// Begins once more on another connection.
    pub(crate) fn restart(&mut self) {
        self.exchange = None;
        if let Some(tls) = &mut self.by_library {
            tls.secure = None;
        }
    }

    /// Takes what was received and writes what must be sent to `out`. Returns what comes next, and whether the connection may
    /// serve another call.
    pub(crate) fn advance(&mut self, received: &[u8], eof: bool) -> (i32, bool) {
        let exchange = match &mut self.exchange {
            Some(exchange) => exchange,
            None => match Exchange::new(&self.dispatched.request) {
                Ok(exchange) => self.exchange.insert(exchange),
                Err(failure) => {
                    self.result = Some(Err(failure));
                    return (RPW_CALL_DONE, false);
                }
            },
        };
        let step = match &mut self.by_library {
            None => exchange.advance(received, eof, &mut self.out),
            Some(ByLibrary { secure: Some(secure), .. }) => {
                secure.advance(exchange, received, eof, &mut self.out)
            }
            // Nothing goes out in plain text.
            Some(_) => Step::Failed(Failure::new(FailureKind::Tls, "TLS was not begun")),
        };
        match step {
            Step::Receive => (RPW_CALL_RECEIVE, false),
            Step::Failed(failure) => {
                self.result = Some(Err(failure));
                (RPW_CALL_DONE, false)
            }
            Step::Done { reusable } => {
                self.result = self.exchange.take().map(|exchange| Ok(exchange.into_response()));
                (RPW_CALL_DONE, reusable)
            }
        }
    }
}

/// The longest that a connection is kept; nginx closes it then.
const IDLE_NANOS: u64 = 60_000_000_000;
/// Connections that are kept at the most.
const IDLE: usize = 256;

/// The states of TLS of the connections that nginx keeps, by their numbers, which name their pools.
#[derive(Default)]
pub(crate) struct IdleTls {
    last: u64,
    idle: FxHashMap<String, Vec<(u64, Secure, u64)>>,
    count: usize,
}

impl IdleTls {
    /// One that was kept, or a new number.
    fn take(&mut self, key: &str, now: u64) -> (u64, Option<Secure>) {
        while let Some(of_key) = self.idle.get_mut(key) {
            let last = of_key.pop();
            if of_key.is_empty() {
                self.idle.remove(key);
            }
            let Some((number, secure, since)) = last else { break };
            self.count -= 1;
            if now < since + IDLE_NANOS {
                return (number, Some(secure));
            }
        }
        self.last += 1;
        (self.last, None)
    }

    fn put(&mut self, key: String, number: u64, secure: Secure, now: u64) {
        if self.count >= IDLE {
            self.idle.retain(|_, of_key| {
                of_key.retain(|(_, _, since)| now < since + IDLE_NANOS);
                !of_key.is_empty()
            });
            self.count = self.idle.values().map(Vec::len).sum();
        }
        if self.count < IDLE {
            self.idle.entry(key).or_default().push((number, secure, now));
            self.count += 1;
        }
    }
}
