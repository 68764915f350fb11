//! The Redis calls of a worker, and the connections that serve them.

use std::net::IpAddr;
use std::rc::Rc;

use rustc_hash::FxHashMap;

use super::super::types::{RPW_WORK_REDIS, lend, rpw_work_t};
use super::super::{nginx, tls};
use super::answer::Answer;
use super::connections::{Connections, Received, Then};
use super::sockets;
use crate::abi::LogLevel;
use crate::callout::Failure;
use crate::limits;
use crate::redis::{Action, Command, Event, Lost, Pool, Wait};
use crate::vm::{CallRef, Plugin};

/// Whom a call belongs to.
type Owner = (Rc<Plugin>, CallRef);

/// See the module.
#[derive(Default)]
pub(crate) struct Redis {
    pool: Pool<Owner>,
    /// The numbers of calls in the pool, by their plugins' addresses.
    ids: FxHashMap<(usize, CallRef), u32>,
    /// When the log was told last of a server's failures, and how many calls have failed since, by plugin and server.
    told: FxHashMap<(usize, String), (u64, usize)>,
    /// What is to be sent, lent to Lua.
    out: Vec<u8>,
    /// What to connect to, and whose certificate it must show, lent to Lua.
    host: String,
    server_name: String,
}

fn address(plugin: &Rc<Plugin>) -> usize {
    Rc::as_ptr(plugin) as usize
}

impl Redis {
    /// Does what a plugin's guests asked for. Returns how many calls that is.
    pub(crate) fn command(
        &mut self,
        plugin: &Rc<Plugin>,
        commands: Vec<(CallRef, Command)>,
        now: u64,
    ) -> u64 {
        let mut calls = 0;
        for (of, command) in commands {
            match command {
                Command::Renew(target) => self.pool.renew(address(plugin), &target),
                Command::Call(call) => {
                    let id = self.pool.call((plugin.clone(), of), address(plugin), call, now);
                    self.ids.insert((address(plugin), of), id);
                    calls += 1;
                }
            }
        }
        calls
    }

    /// Gives up calls that no guest waits for any more.
    pub(crate) fn drop_calls(&mut self, plugin: &Rc<Plugin>, dropped: CallRef) {
        let Self { pool, ids, .. } = self;
        if ids.is_empty() {
            return;
        }
        if let Some(id) = ids.remove(&(address(plugin), dropped)) {
            pool.cancel(id);
            return;
        }
        // Maybe all of a VM.
        ids.retain(|(of, call), id| {
            let stays = *of != address(plugin) || !call.is_of(dropped);
            if !stays {
                pool.cancel(*id);
            }
            stays
        });
    }

    /// What light threads are to do: `RPW_WORK_REDIS` with a connection.
    pub(crate) fn hand_out(&mut self, work: &mut rpw_work_t) -> Option<i32> {
        loop {
            let Action(id) = self.pool.take_action()?;
            let Some((target, name)) = self.pool.target(id) else { continue };
            let (host, port) = sockets::address(&target.upstream.target);
            (work.id, work.port) = (id, port.into());
            work.tls = match tls::of_http(&target.upstream) {
                _ if !target.upstream.tls => 0,
                None => 1,
                Some(_) => 2,
            };
            (self.host, self.server_name) = (host, name.to_string());
            (work.host, work.host_length) = lend(&self.host);
            (work.server_name, work.server_name_length) = lend(&self.server_name);
            return Some(RPW_WORK_REDIS);
        }
    }

    /// One line for all calls that fail by one cause, and one for each second: they may be thousands.
    fn log_lost(&mut self, lost: &Lost<Owner>, now: u64) {
        let (plugin, name, why) = (&lost.owner.0, &lost.name, &lost.why);
        // Names are few: a plugin context begins with so many servers at most, but may call others.
        if self.told.len() >= limits::REDIS_CONNECTIONS {
            self.told.retain(|_, (at, _)| now - *at < QUIET_NANOS);
        }
        let told = self.told.entry((address(plugin), name.clone())).or_insert((0, 0));
        if told.0 != 0 && now - told.0 < QUIET_NANOS {
            told.1 += lost.calls;
            return;
        }
        told.0 = now;
        let more = std::mem::take(&mut told.1);
        let what = match lost.calls {
            0 => format!("Redis server {name}"),
            1 => format!("Redis call to {name} failed"),
            many => format!("{many} Redis calls to {name} failed"),
        };
        let more =
            if more == 0 { String::new() } else { format!("; so did {more} in the second before") };
        let line = format!("wasm plugin \"{}\": {what}: {why}{more}", plugin.name());
        nginx::log(None, LogLevel::Warn, line.as_bytes());
    }
}

/// For so long the log is told nothing more of a server's failures.
const QUIET_NANOS: u64 = 1_000 * sockets::NANOS_PER_MS;

impl Connections for Redis {
    fn connected(&mut self, id: u32, _: u64) {
        let Some((target, name)) = self.pool.target(id) else { return };
        match tls::begin_redis(&target.upstream, name) {
            Ok(tls) => self.pool.connected(id, tls),
            Err(failure) => self.pool.failed(id, &failure),
        }
    }

    fn receive(&mut self, id: u32, data: &[u8], eof: bool, _: usize, now: u64) -> Received {
        let plugin = self.pool.owner(id).map(|(plugin, _)| plugin.clone());
        self.pool.receive(id, data, eof, now);
        Received { plugin, is_open: self.pool.target(id).is_some() }
    }

    fn next(&mut self, id: u32, _: bool, now: u64) -> (&[u8], Then) {
        self.out.clear();
        let then = match self.pool.next(id, &mut self.out, now) {
            Wait::Close => Then::Close,
            Wait::Until(at) => Then::Wait(at),
        };
        (&self.out, then)
    }

    fn failed(&mut self, id: u32, failure: Failure, _: u64) -> u64 {
        self.pool.failed(id, &failure);
        sockets::FAILED_NANOS
    }

    fn end_soon(&mut self) {
        self.pool.end_soon();
    }

    fn next_answer(&mut self) -> Option<Answer> {
        let (Event { result, .. }, (plugin, of), _) = self.pool.take_event()?;
        self.ids.remove(&(address(&plugin), of));
        Some(Answer::Redis(plugin, of, result))
    }

    fn log_failures(&mut self, now: u64) {
        for lost in self.pool.take_lost() {
            self.log_lost(&lost, now);
        }
    }

    fn has_actions(&self) -> bool {
        self.pool.has_actions()
    }

    /// Rules are asked by name when a guest calls.
    fn permits(&self, _: u32, _: IpAddr) -> bool {
        true
    }
}
