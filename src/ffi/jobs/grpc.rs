//! The gRPC calls of a worker, and the connections that serve them.

use std::net::IpAddr;
use std::rc::Rc;

use rustc_hash::FxHashMap;

use super::super::process::PROCESS;
use super::super::types::{lend, rpw_work_t};
use super::super::{failures, tls};
use super::answer::Answer;
use super::connections::{Connections, Received, Then};
use super::sockets;
use crate::callout::{Failure, FailureKind, Target};
use crate::grpc::{Action, Code, Command, Event, Opening, Pool, Wait};
use crate::shm::CallKind;
use crate::vm::{CallRef, Plugin};

/// Whom a call belongs to.
type Owner = (Rc<Plugin>, CallRef);

/// See the module.
#[derive(Default)]
pub(crate) struct Grpc {
    pool: Pool<Owner>,
    /// The numbers of calls in the pool, by their plugins' addresses.
    ids: FxHashMap<(usize, CallRef), u32>,
    /// What is to be sent, lent to Lua.
    out: Vec<u8>,
    /// What to connect to, lent to Lua.
    host: String,
    /// When connections were begun that are not made yet.
    began: FxHashMap<u32, u64>,
}

/// What light threads are to do.
pub(crate) enum ToDo {
    /// That connection has something to do.
    Wake(u32),
    /// Make that connection, for that plugin, when it is its turn.
    Connect(Rc<Plugin>, u32),
}

fn key(plugin: &Rc<Plugin>, of: CallRef) -> (usize, CallRef) {
    (Rc::as_ptr(plugin) as usize, of)
}

impl Grpc {
    /// Does what a plugin's guests asked for.
    pub(crate) fn command(
        &mut self,
        plugin: &Rc<Plugin>,
        commands: Vec<(CallRef, Command)>,
        now: u64,
    ) {
        for (of, command) in commands {
            let id = self.ids.get(&key(plugin, of)).copied();
            match (command, id) {
                (Command::Open(opening), _) => {
                    let id = self.pool.open((plugin.clone(), of), *opening, now);
                    self.ids.insert(key(plugin, of), id);
                }
                (Command::Send(_, message, end), Some(id)) => self.pool.send(id, message, end),
                (Command::Cancel(_), Some(id)) => {
                    self.ids.remove(&key(plugin, of));
                    self.pool.cancel(id, now);
                }
                // It has ended meanwhile.
                (Command::Send(..) | Command::Cancel(_), None) => {}
            }
        }
    }

    /// Gives up the calls of a VM that has ended.
    pub(crate) fn drop_calls(&mut self, plugin: &Rc<Plugin>, dropped: CallRef, now: u64) {
        let calls = self.pool.calls_of(|(of, call)| Rc::ptr_eq(of, plugin) && call.is_of(dropped));
        for id in calls {
            self.pool.cancel(id, now);
        }
        self.ids.retain(|(address, of), _| {
            *address != Rc::as_ptr(plugin) as usize || !of.is_of(dropped)
        });
    }

    /// The next thing to do.
    pub(crate) fn take_action(&mut self) -> Option<ToDo> {
        loop {
            match self.pool.take_action()? {
                Action::Wake(id) => return Some(ToDo::Wake(id)),
                Action::Connect(id) => match self.pool.asker(id) {
                    Some((plugin, _)) => return Some(ToDo::Connect(plugin.clone(), id)),
                    None => self.pool.forget_connection(id),
                },
            }
        }
    }

    /// Says what to connect to. False when no call waits for that connection any more.
    pub(crate) fn begin_connecting(&mut self, id: u32, work: &mut rpw_work_t, now: u64) -> bool {
        if self.pool.asker(id).is_none() {
            self.pool.forget_connection(id);
            return false;
        }
        let Some(destination) = self.pool.destination(id).cloned() else { return false };
        let upstream = &destination.upstream;
        let (host, port) = sockets::address(&upstream.target);
        (work.id, work.port, work.tls) = (id, port.into(), upstream.tls.into());
        work.judged = destination.judged.is_some().into();
        self.host = host;
        (work.host, work.host_length) = lend(&self.host);
        self.began.insert(id, now);
        true
    }

    /// A guest was told of a message of a stream, of that size.
    pub(crate) fn told(&mut self, id: u32, size: usize) {
        self.pool.told(id, size);
    }
}

impl Connections for Grpc {
    fn connected(&mut self, id: u32, now: u64) {
        self.began.remove(&id);
        let Some(destination) = self.pool.destination(id) else { return };
        let (upstream, name) = (&destination.upstream, &destination.server_name);
        let tls = if upstream.tls { tls::begin_grpc(upstream, name).map(Some) } else { Ok(None) };
        match tls {
            Ok(tls) => self.pool.connected(id, tls, now),
            Err(failure) => self.pool.failed(id, &failure, now),
        }
    }

    fn receive(&mut self, id: u32, data: &[u8], eof: bool, untold: usize, now: u64) -> Received {
        self.pool.receive(id, data, eof, now);
        self.pool.keep_within(id, untold, now);
        Received { plugin: None, is_open: true }
    }

    fn next(&mut self, id: u32, ready: bool, now: u64) -> (&[u8], Then) {
        self.pool.give_up(|(plugin, _)| !plugin.has_requests(), now);
        self.pool.expire(id, now);
        self.out.clear();
        let then = match self.pool.next(id, ready.then_some(&mut self.out), now) {
            Wait::Close => Then::Close,
            Wait::Until(at) => Then::Wait(at),
        };
        (&self.out, then)
    }

    fn failed(&mut self, id: u32, mut failure: Failure, now: u64) -> u64 {
        // The time of a call is over when its deadline is, and not when a connection takes long.
        if failure.kind == FailureKind::Timeout {
            failure.kind = FailureKind::Connect;
        }
        self.pool.failed(id, &failure, now);
        self.began.remove(&id).map_or(0, |began| sockets::failed_nanos(began, now))
    }

    fn end_soon(&mut self) {
        self.pool.end_soon();
    }

    fn next_answer(&mut self) -> Option<Answer> {
        loop {
            let (id, event) = self.pool.take_event()?;
            let Some(((plugin, of), ended)) = self.pool.owner_of(id, &event) else { continue };
            if let Some(opening) = ended {
                self.ids.remove(&key(&plugin, of));
                let failed = matches!(&event, Event::Close(status) if status.code != Code::Ok);
                PROCESS.shared.count_call(&plugin, &opening.name, CallKind::Grpc, failed);
                log_failure(&plugin, &opening, &event);
            }
            return Some(Answer::Grpc(plugin, of, id, event));
        }
    }

    fn log_failures(&mut self, _: u64) {}

    fn has_actions(&self) -> bool {
        self.pool.has_actions()
    }

    fn permits(&self, id: u32, address: IpAddr) -> bool {
        let judged = || {
            let destination = self.pool.destination(id)?;
            let (plugin, _) = self.pool.asker(id)?;
            let port = match destination.upstream.target {
                Target::Tcp(_, port) => port,
                Target::Unix(_) => 0,
            };
            let named = destination.judged.is_none_or(|judged| judged.name_allowed);
            Some(plugin.module().info().calls.permits_address(address, port, named))
        };
        judged().unwrap_or(false)
    }
}

/// What a server answers is the filter's business; what fails on the way is the administrator's.
fn log_failure(plugin: &Plugin, opening: &Opening, event: &Event) {
    let Event::Close(status) = event else { return };
    if status.code == Code::Ok || status.of_server {
        return;
    }
    let kind = if opening.message.is_some() { "gRPC call" } else { "gRPC stream" };
    failures::report_call(plugin, kind, &opening.name, status);
}
