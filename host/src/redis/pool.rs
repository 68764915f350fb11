//! The connections of a worker to Redis servers, and which of them each call is sent on.
//!
//! A plugin has one connection to a server as one user and for one database. When an answer does not come in time, the next
//! call is sent on a new one, and the old one lives until the time of its other calls is over.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::connection::Came;
use super::{Call, Connection, Target};
use crate::callout::{Failure, FailureKind, Tls};
use crate::limits;

const NANOS_PER_MS: u64 = 1_000_000;

/// A connection without calls is kept for so long.
const IDLE_NANOS: u64 = 60_000 * NANOS_PER_MS;

/// What the shell is to do: look at the connection of that number, and make it when it is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action(pub u32);

/// When a connection wants to be looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// At that time on the monotonic clock, or when something happens.
    Until(u64),
    /// It is to be closed.
    Close,
}

/// What is to be told of a call: its number, and all its answers, or why there are none.
#[derive(Debug)]
pub struct Event {
    /// The call.
    pub id: u32,
    /// What came of it.
    pub result: Result<Vec<u8>, Failure>,
}

/// What is to be told to the administrator.
#[derive(Debug)]
pub struct Lost<O> {
    /// Whose calls they are.
    pub owner: O,
    /// The upstream as its guest named it.
    pub name: String,
    /// How many of them fail; 0 when the server refused who asks, and they may not.
    pub calls: usize,
    /// Why.
    pub why: String,
}

struct Waiting<O> {
    owner: O,
    call: Call,
    connection: u32,
    deadline: u64,
    /// What came of it waits to be told.
    ended: bool,
    /// Nothing waits for its answer: it is to be sent, no more.
    given_up: bool,
}

struct Entry<O> {
    /// Whose call came last.
    owner: Option<O>,
    /// Whose it is.
    of: usize,
    target: Arc<Target>,
    server_name: String,
    /// `None` before there is one.
    machine: Option<Connection>,
    waiting: VecDeque<u32>,
    /// How many of these nothing waits for, and their bytes.
    given_up: (usize, usize),
    deadlines: BTreeSet<(u64, u32)>,
    /// Calls that were begun on it, and not told of.
    calls: usize,
    /// It takes no more calls.
    drains: bool,
    idle_since: u64,
    woken: bool,
}

/// See the module. `O` is whom a call belongs to.
pub struct Pool<O> {
    entries: FxHashMap<u32, Entry<O>>,
    calls: FxHashMap<u32, Waiting<O>>,
    last_entry: u32,
    last_call: u32,
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
    lost: Vec<Lost<O>>,
    ending: bool,
    came: Vec<Came>,
}

impl<O> Default for Pool<O> {
    fn default() -> Self {
        Self {
            entries: FxHashMap::default(),
            calls: FxHashMap::default(),
            last_entry: 0,
            last_call: 0,
            actions: VecDeque::new(),
            events: VecDeque::new(),
            lost: Vec::new(),
            ending: false,
            came: Vec::new(),
        }
    }
}

fn next<V>(last: &mut u32, used: &FxHashMap<u32, V>) -> u32 {
    loop {
        *last = last.wrapping_add(1);
        if *last != 0 && !used.contains_key(last) {
            return *last;
        }
    }
}

impl<O: Clone> Pool<O> {
    /// Begins a call of a plugin, which `of` is a number for. Returns the call's number.
    pub fn call(&mut self, owner: O, of: usize, call: Call, now: u64) -> u32 {
        let id = next(&mut self.last_call, &self.calls);
        let deadline = now + u64::from(call.timeout_ms) * NANOS_PER_MS;
        let connection = self.connection(of, &call.target, now);
        let entry = connection.and_then(|connection| self.entries.get_mut(&connection));
        let (Some(entry), Some(connection)) = (entry, connection) else {
            let details = "there are as many connections as the host makes";
            self.calls.insert(
                id,
                Waiting { owner, call, connection: 0, deadline, ended: false, given_up: false },
            );
            self.lose(&[id], &Failure::new(FailureKind::Connect, details));
            return id;
        };
        entry.deadlines.insert((deadline, id));
        entry.calls += 1;
        entry.owner = Some(owner.clone());
        let unsent = match &mut entry.machine {
            Some(machine) if machine.is_ready() => {
                machine.send(id, &call.query);
                machine.unsent()
            }
            _ => {
                entry.waiting.push_back(id);
                0
            }
        };
        self.calls.insert(
            id,
            Waiting { owner, call, connection, deadline, ended: false, given_up: false },
        );
        self.wake(connection);
        if unsent > limits::CALL_REQUEST_BODIES {
            let details = "the server does not take what is sent";
            self.failed(connection, &Failure::new(FailureKind::Closed, details));
        }
        id
    }

    /// The connection for another call; a new one when there is none. `None` when there are too many.
    fn connection(&mut self, of: usize, target: &Arc<Target>, now: u64) -> Option<u32> {
        let serves =
            |entry: &Entry<O>| !entry.drains && entry.of == of && entry.target.shares_with(target);
        if let Some((id, _)) = self.entries.iter().find(|(_, entry)| serves(entry)) {
            return Some(*id);
        }
        if self.entries.len() >= limits::REDIS_CONNECTIONS {
            self.close_an_idle_one();
            return None;
        }
        let id = next(&mut self.last_entry, &self.entries);
        self.entries.insert(
            id,
            Entry {
                owner: None,
                of,
                target: target.clone(),
                server_name: target.server_name(),
                machine: None,
                waiting: VecDeque::new(),
                given_up: (0, 0),
                deadlines: BTreeSet::new(),
                calls: 0,
                drains: false,
                idle_since: now,
                woken: false,
            },
        );
        Some(id)
    }

    /// Has one that is not used closed, so that there is room soon.
    fn close_an_idle_one(&mut self) {
        let idle = self.entries.iter_mut().filter(|(_, entry)| entry.calls == 0 && !entry.drains);
        if let Some((id, entry)) = idle.min_by_key(|(_, entry)| entry.idle_since) {
            let id = *id;
            entry.drains = true;
            self.wake(id);
        }
    }

    /// The next call of that plugin to that server begins a new connection.
    pub fn renew(&mut self, of: usize, target: &Target) {
        let same = |entry: &Entry<O>| entry.of == of && entry.target.shares_with(target);
        let ids: Vec<u32> =
            self.entries.iter().filter(|(_, entry)| same(entry)).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.drains = true;
            }
            self.wake(id);
        }
    }

    fn wake(&mut self, connection: u32) {
        if let Some(entry) = self.entries.get_mut(&connection)
            && !std::mem::replace(&mut entry.woken, true)
        {
            self.actions.push_back(Action(connection));
        }
    }

    /// What the shell is to do.
    pub fn take_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whether there is any.
    pub fn has_actions(&self) -> bool {
        !self.actions.is_empty()
    }

    /// What to connect to for a connection, and whose certificate it must show.
    pub fn target(&self, connection: u32) -> Option<(&Target, &str)> {
        let entry = self.entries.get(&connection)?;
        Some((&entry.target, &entry.server_name))
    }

    /// Whose calls a connection has, or had last.
    pub fn owner(&self, connection: u32) -> Option<&O> {
        self.entries.get(&connection).and_then(|entry| entry.owner.as_ref())
    }

    /// The connection is there. `tls`: what is spoken on it, when its socket does not speak that.
    pub fn connected(&mut self, connection: u32, tls: Option<Tls>) {
        if let Some(entry) = self.entries.get_mut(&connection) {
            entry.machine = Some(Connection::new(&entry.target, tls));
            self.send_waiting(connection);
        }
    }

    fn send_waiting(&mut self, connection: u32) {
        let Some(entry) = self.entries.get_mut(&connection) else { return };
        let Some(machine) = entry.machine.as_mut().filter(|machine| machine.is_ready()) else {
            return;
        };
        let mut given_up = Vec::new();
        entry.given_up = (0, 0);
        for id in entry.waiting.drain(..) {
            if let Some(waiting) = self.calls.get(&id) {
                machine.send(id, &waiting.call.query);
                if waiting.given_up {
                    given_up.push(id);
                }
            }
        }
        if machine.unsent() > 0 {
            self.wake(connection);
        }
        for id in given_up {
            self.forget(id);
        }
    }

    /// Takes what a connection received; `eof` when it was the last.
    pub fn receive(&mut self, connection: u32, data: &[u8], eof: bool, now: u64) {
        let mut came = std::mem::take(&mut self.came);
        let received = match self.entries.get_mut(&connection).and_then(|e| e.machine.as_mut()) {
            Some(machine) => machine.receive(data, &mut came),
            None => Ok(()),
        };
        for came in came.drain(..) {
            match came {
                Came::Answer(id, answer) => {
                    self.end(id, Ok(answer));
                    self.idle(connection, now);
                }
                Came::NotAccepted(said) => self.not_accepted(connection, &said),
            }
        }
        self.came = came;
        match received {
            Err(failure) => self.failed(connection, &failure),
            Ok(()) if eof => self.failed(connection, &Failure::new(FailureKind::Closed, "")),
            Ok(()) => {
                self.send_waiting(connection);
                self.answer_tls(connection);
                self.keep_within(connection);
            }
        }
    }

    /// The handshake, and changes of keys, have something to be sent.
    fn answer_tls(&mut self, connection: u32) {
        let machine = self.entries.get(&connection).and_then(|entry| entry.machine.as_ref());
        if machine.is_some_and(Connection::speaks_tls) {
            self.wake(connection);
        }
    }

    fn idle(&mut self, connection: u32, now: u64) {
        if let Some(entry) = self.entries.get_mut(&connection) {
            entry.idle_since = now;
        }
    }

    fn not_accepted(&mut self, connection: u32, said: &str) {
        let Some(entry) = self.entries.get(&connection) else { return };
        let Some(owner) = entry.owner.clone() else { return };
        let why = format!("the server does not accept who asks: {said}");
        self.lost.push(Lost { owner, name: entry.target.name.clone(), calls: 0, why });
    }

    /// Fails the calls of a connection that holds too much for all of them.
    fn keep_within(&mut self, connection: u32) {
        let held = |entry: &Entry<O>| entry.machine.as_ref().map_or(0, Connection::held);
        if self.entries.values().map(held).sum::<usize>() > limits::CALL_BODIES {
            let details = "with those of all calls under way";
            self.failed(connection, &Failure::new(FailureKind::TooLarge, details));
        }
    }

    /// Appends what a connection must send, and says when to look at it again.
    pub fn next(&mut self, connection: u32, out: &mut Vec<u8>, now: u64) -> Wait {
        self.expire(connection, now);
        let ending = self.ending;
        let Some(entry) = self.entries.get_mut(&connection) else { return Wait::Close };
        entry.woken = false;
        if let Some(machine) = &mut entry.machine {
            machine.take_output(out);
        }
        if entry.calls > 0 {
            return Wait::Until(entry.deadlines.first().map_or(u64::MAX, |(at, _)| *at));
        }
        let idle_at = entry.idle_since + IDLE_NANOS;
        if entry.drains || ending || now >= idle_at {
            self.entries.remove(&connection);
            return Wait::Close;
        }
        Wait::Until(idle_at)
    }

    /// Ends the calls whose time is over.
    fn expire(&mut self, connection: u32, now: u64) {
        let Some(entry) = self.entries.get_mut(&connection) else { return };
        let mut late = Vec::new();
        while let Some((_, id)) = entry.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            entry.deadlines.pop_first();
            late.push(id);
        }
        if late.is_empty() {
            return;
        }
        entry.drains = true;
        // What the server does not take is not kept for it.
        let is_stuck = entry.machine.as_ref().is_some_and(|machine| machine.unsent() > 0);
        let timeout = Failure::new(FailureKind::Timeout, "");
        self.lose(&late, &timeout);
        if is_stuck {
            self.failed(connection, &timeout);
        }
    }

    /// Fails these calls.
    fn lose(&mut self, ids: &[u32], failure: &Failure) {
        let of = ids.iter().find_map(|id| self.calls.get(id));
        if let Some((owner, name)) = of.map(|of| (of.owner.clone(), of.call.target.name.clone())) {
            let calls = ids.iter().filter(|id| self.calls.contains_key(id)).count();
            self.lost.push(Lost { owner, name, calls, why: failure.to_string() });
        }
        for id in ids {
            self.end(*id, Err(failure.clone()));
        }
    }

    /// The connection was not made, or is lost, or cannot be spoken to: its calls fail with it.
    pub fn failed(&mut self, connection: u32, failure: &Failure) {
        let Some(entry) = self.entries.get(&connection) else { return };
        let ids: Vec<u32> = entry.deadlines.iter().map(|(_, id)| *id).collect();
        self.lose(&ids, failure);
        self.entries.remove(&connection);
    }

    /// A call ends. One that was given up is told to no guest.
    fn end(&mut self, id: u32, result: Result<Vec<u8>, Failure>) {
        let Some(waiting) = self.calls.get_mut(&id).filter(|waiting| !waiting.ended) else {
            return;
        };
        if waiting.given_up {
            return self.forget(id);
        }
        waiting.ended = true;
        let (connection, deadline) = (waiting.connection, waiting.deadline);
        self.events.push_back(Event { id, result });
        self.leave(id, connection, deadline);
    }

    fn leave(&mut self, id: u32, connection: u32, deadline: u64) {
        let ending = self.ending;
        let Some(entry) = self.entries.get_mut(&connection) else { return };
        entry.deadlines.remove(&(deadline, id));
        entry.calls -= 1;
        if entry.calls == 0 && (entry.drains || ending) {
            self.wake(connection);
        }
    }

    /// What is to be told of a call, with its owner and the call.
    pub fn take_event(&mut self) -> Option<(Event, O, Call)> {
        loop {
            let event = self.events.pop_front()?;
            if let Some(waiting) = self.calls.remove(&event.id) {
                return Some((event, waiting.owner, waiting.call));
            }
        }
    }

    /// What is to be told to the administrator.
    pub fn take_lost(&mut self) -> Vec<Lost<O>> {
        std::mem::take(&mut self.lost)
    }

    /// Gives a call up: its answer is dropped when it comes. One that waits for its connection is sent all the same, as long as
    /// there are not too many of those.
    pub fn cancel(&mut self, id: u32) {
        let Some(waiting) = self.calls.get_mut(&id) else { return };
        let size = waiting.call.query.bytes.len();
        if let Some(entry) = self.entries.get_mut(&waiting.connection)
            && !entry.machine.as_ref().is_some_and(Connection::is_ready)
            && entry.given_up.0 < limits::CALLS
            && entry.given_up.1 + size <= limits::CALL_REQUEST_BODIES
        {
            entry.given_up = (entry.given_up.0 + 1, entry.given_up.1 + size);
            waiting.given_up = true;
            return;
        }
        self.forget(id);
    }

    /// Forgets a call that no guest is told of.
    fn forget(&mut self, id: u32) {
        if let Some(waiting) = self.calls.remove(&id).filter(|waiting| !waiting.ended) {
            self.leave(id, waiting.connection, waiting.deadline);
        }
    }

    /// The calls of whom the closure says so.
    pub fn calls_of(&self, is: impl Fn(&O) -> bool) -> Vec<u32> {
        self.calls.iter().filter(|(_, call)| is(&call.owner)).map(|(id, _)| *id).collect()
    }

    /// The process is to end: connections without calls are closed.
    pub fn end_soon(&mut self) {
        self.ending = true;
        let ids: Vec<u32> = self.entries.keys().copied().collect();
        for id in ids {
            self.wake(id);
        }
    }
}
