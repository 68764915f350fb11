//! The connections of a worker, and which of them each call is sent on.
//!
//! Connections to one upstream serve all filters. Another one is made when those that there are have no room, or take
//! nothing new.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::entry::{Call, Destination, Entry, NANOS_PER_MS};
use super::{Code, Connection, Event, Message, Opening, Refused, Status};
use crate::callout::{Failure, FailureKind, Tls};
use crate::limits;

/// A connection without calls is kept for so long.
const IDLE_NANOS: u64 = 60_000 * NANOS_PER_MS;

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect, for the connection of that number.
    Connect(u32),
    /// There are bytes to send, or another time to wait for.
    Wake(u32),
}

/// When a connection wants to be looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// At that time on the monotonic clock, or when something happens.
    Until(u64),
    /// It is to be closed.
    Close,
}

/// See the module. `O` is whom a call belongs to.
pub struct Pool<O> {
    entries: FxHashMap<u32, Entry>,
    calls: FxHashMap<u32, Call<O>>,
    last_entry: u32,
    last_call: u32,
    actions: VecDeque<Action>,
    events: VecDeque<(u32, Event)>,
    ending: bool,
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
            ending: false,
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

impl<O> Pool<O> {
    /// Begins a call. Returns its number.
    pub fn open(&mut self, owner: O, opening: Opening, now: u64) -> u32 {
        let id = next(&mut self.last_call, &self.calls);
        let deadline = opening.timeout_ms.map(|ms| now + u64::from(ms) * NANOS_PER_MS);
        let goes_to = Destination::of(&opening);
        let call = Call {
            owner,
            opening,
            goes_to: goes_to.clone(),
            begun: false,
            waiting: Vec::new(),
            was_refused: false,
            connection: 0,
            deadline,
        };
        self.calls.insert(id, call);
        self.find_connection(id, &goes_to, now);
        id
    }

    fn find_connection(&mut self, id: u32, goes_to: &Arc<Destination>, now: u64) {
        match self.connection(goes_to, now) {
            Some(connection) => self.wait_for_room(id, connection),
            None => {
                let text = "the worker has no room for another connection";
                self.end(id, 0, Status::new(Code::Unavailable, text), now);
            }
        }
    }

    fn wait_for_room(&mut self, id: u32, connection: u32) {
        let Some(entry) = self.entries.get_mut(&connection) else { return };
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.connection = connection;
        entry.waiting.push_back(id);
        entry.deadlines.extend(call.deadline.map(|at| (at, id)));
        self.wake(connection);
    }

    /// The connection for another call: one with room, else a new one, else one that will have room. `None` when the worker
    /// has no room for a new one.
    fn connection(&mut self, goes_to: &Arc<Destination>, now: u64) -> Option<u32> {
        let mut least: Option<(usize, u32)> = None;
        let mut count = 0;
        for (id, entry) in &mut self.entries {
            if entry.goes_to.key != goes_to.key
                || entry.machine.as_mut().is_some_and(Connection::is_over)
            {
                continue;
            }
            count += 1;
            let unsettled = entry.machine.as_ref().is_none_or(|machine| !machine.is_settled());
            if unsettled || entry.machine.as_mut().is_some_and(|m| m.room() > entry.waiting.len()) {
                return Some(*id);
            }
            let this = (entry.calls(), *id);
            least = Some(least.map_or(this, |least| least.min(this)));
        }
        if let Some((_, id)) = least
            && (count >= limits::GRPC_CONNECTIONS || self.is_full())
        {
            return Some(id);
        }
        if self.is_full() {
            return None;
        }
        let id = next(&mut self.last_entry, &self.entries);
        self.entries.insert(id, Entry::new(goes_to.clone(), now));
        self.actions.push_back(Action::Connect(id));
        Some(id)
    }

    /// Whether the worker has as many connections as it may have, and all of them have calls. One without gives way.
    fn is_full(&mut self) -> bool {
        if self.entries.len() < limits::GRPC_WORKER_CONNECTIONS {
            return false;
        }
        let idle = self.entries.iter().filter(|(_, entry)| entry.calls() == 0);
        let Some(id) = idle.min_by_key(|(_, entry)| entry.idle_since).map(|(id, _)| *id) else {
            return true;
        };
        self.entries.remove(&id);
        // The shell finds it gone and closes it.
        self.actions.push_back(Action::Wake(id));
        false
    }

    fn wake(&mut self, connection: u32) {
        if let Some(entry) = self.entries.get_mut(&connection)
            && !std::mem::replace(&mut entry.woken, true)
        {
            self.actions.push_back(Action::Wake(connection));
        }
    }

    /// Sends on a stream.
    pub fn send(&mut self, id: u32, message: Option<Message>, end: bool) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let connection = call.connection;
        if !call.begun {
            call.waiting.push((message, end));
            return;
        }
        if let Some(machine) = self.machine(connection) {
            machine.send(id, message, end);
        }
        self.wake(connection);
    }

    /// The guest was told of a message of a stream, of that size.
    pub fn told(&mut self, id: u32, size: usize) {
        let Some(connection) = self.calls.get(&id).map(|call| call.connection) else { return };
        if self.machine(connection).is_some_and(|machine| machine.told(id, size)) {
            self.wake(connection);
        }
    }

    /// Gives a call up.
    pub fn cancel(&mut self, id: u32, now: u64) {
        let Some(call) = self.remove(id) else { return };
        self.forget(id, call.connection, now);
        self.wake(call.connection);
    }

    fn remove(&mut self, id: u32) -> Option<Call<O>> {
        let call = self.calls.remove(&id)?;
        if let (Some(entry), Some(at)) = (self.entries.get_mut(&call.connection), call.deadline) {
            entry.deadlines.remove(&(at, id));
        }
        Some(call)
    }

    fn forget(&mut self, id: u32, connection: u32, now: u64) {
        let Some(entry) = self.entries.get_mut(&connection) else { return };
        if let Some(machine) = &mut entry.machine {
            machine.cancel(id);
        }
        entry.waiting.retain(|waiting| *waiting != id);
        entry.idle_since = now;
    }

    fn machine(&mut self, connection: u32) -> Option<&mut Connection> {
        self.entries.get_mut(&connection)?.machine.as_mut()
    }

    /// What the shell is to do next.
    pub fn take_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whether there is anything to do.
    pub fn has_actions(&self) -> bool {
        !self.actions.is_empty()
    }

    /// Where a connection goes to.
    pub fn destination(&self, connection: u32) -> Option<&Arc<Destination>> {
        Some(&self.entries.get(&connection)?.goes_to)
    }

    /// A connection was made, on which TLS is spoken or not.
    pub fn connected(&mut self, connection: u32, tls: Option<Tls>, now: u64) {
        match Connection::new(tls) {
            Ok(machine) => {
                if let Some(entry) = self.entries.get_mut(&connection) {
                    entry.machine = Some(machine);
                    entry.heard = now;
                }
                self.run(connection, now);
            }
            Err(failure) => self.failed(connection, &failure, now),
        }
    }

    /// Takes what was received; `eof` when it was the last.
    pub fn receive(&mut self, connection: u32, data: &[u8], eof: bool, now: u64) {
        if let Some(entry) = self.entries.get_mut(&connection)
            && let Some(machine) = &mut entry.machine
        {
            (entry.heard, entry.asked) = (now, None);
            machine.receive(data, eof);
            self.run(connection, now);
        }
        let lost = Failure::new(FailureKind::Closed, "");
        if eof {
            self.failed(connection, &lost, now);
        }
    }

    /// Fails the calls of a connection when all calls hold too much. `untold`: bytes that the shell has for guests.
    pub fn keep_within(&mut self, connection: u32, untold: usize, now: u64) {
        let held = |entry: &Entry| entry.machine.as_ref().map_or(0, Connection::held);
        if self.entries.values().map(held).sum::<usize>() + untold > limits::CALL_BODIES {
            let details = "with those of all calls under way";
            self.failed(connection, &Failure::new(FailureKind::TooLarge, details), now);
        }
    }

    /// Appends what a connection must send, when there is where to, and says when to look at it again.
    pub fn next(&mut self, connection: u32, out: Option<&mut Vec<u8>>, now: u64) -> Wait {
        let quiet_until = self
            .entries
            .get_mut(&connection)
            .and_then(|entry| if entry.calls() > 0 { entry.ask(now) } else { None });
        if quiet_until.is_some_and(|at| at <= now) {
            let silent = Failure::new(FailureKind::Closed, "the server does not answer");
            self.failed(connection, &silent, now);
        }
        self.run(connection, now);
        let ending = self.ending;
        let Some(entry) = self.entries.get_mut(&connection) else { return Wait::Close };
        entry.woken = false;
        if let (Some(machine), Some(out)) = (&mut entry.machine, out) {
            machine.take_output(out);
        }
        let over = entry.machine.as_mut().is_some_and(Connection::is_over);
        let idle = entry.calls() == 0;
        if idle && (over || ending || now >= entry.idle_since + IDLE_NANOS) {
            self.entries.remove(&connection);
            return Wait::Close;
        }
        let idle_at = entry.idle_since + IDLE_NANOS;
        let deadline = entry.deadlines.first().map(|(at, _)| *at);
        let busy_until = [deadline, quiet_until].into_iter().flatten().min();
        Wait::Until(if idle { idle_at } else { busy_until.unwrap_or(u64::MAX) })
    }

    /// Ends the calls whose time is over.
    pub fn expire(&mut self, connection: u32, now: u64) {
        while let Some(entry) = self.entries.get_mut(&connection)
            && let Some((_, id)) = entry.deadlines.first().copied().filter(|(at, _)| *at <= now)
        {
            entry.deadlines.pop_first();
            if self.calls.get(&id).is_some_and(|call| call.connection == connection) {
                let status = Status::new(Code::DeadlineExceeded, "the deadline passed");
                self.end(id, connection, status, now);
            }
        }
    }

    /// Ends a call from our side.
    fn end(&mut self, id: u32, connection: u32, status: Status, now: u64) {
        let is_call = self.calls.get(&id).is_some_and(|call| call.opening.message.is_some());
        self.forget(id, connection, now);
        if !is_call {
            self.events.push_back((id, Event::TrailingMetadata(Default::default())));
        }
        self.events.push_back((id, Event::Close(status)));
    }

    /// The connection was not made, or is lost, or cannot be spoken to: its calls end with it.
    pub fn failed(&mut self, connection: u32, failure: &Failure, now: u64) {
        let of = |call: &Call<O>| call.connection == connection;
        let ids: Vec<u32> =
            self.calls.iter().filter(|(_, call)| of(call)).map(|(id, _)| *id).collect();
        for id in ids {
            self.end(id, connection, Status::of_failure(failure), now);
        }
        self.entries.remove(&connection);
    }

    /// Lets a connection continue.
    fn run(&mut self, connection: u32, now: u64) {
        self.begin(connection, now);
        let Some(entry) = self.entries.get_mut(&connection) else { return };
        let Some(machine) = &mut entry.machine else { return };
        let before = machine.streams();
        let ran = machine.run(&mut self.events);
        if machine.streams() < before {
            entry.idle_since = now;
        }
        for refused in machine.take_refused() {
            self.begin_again(refused, now);
        }
        match ran {
            Err(failure) => self.failed(connection, &failure, now),
            // What has ended made room, or the server's settings came.
            Ok(()) if self.begin(connection, now) => self.run(connection, now),
            Ok(()) => {}
        }
    }

    /// Begins the calls for which there is room. True when there were any.
    fn begin(&mut self, connection: u32, now: u64) -> bool {
        let mut any = false;
        loop {
            let Some(entry) = self.entries.get_mut(&connection) else { return any };
            let Some(machine) = &mut entry.machine else { return any };
            if entry.waiting.is_empty() {
                return any;
            }
            if machine.is_over() {
                self.move_waiting(connection, now);
                return any;
            }
            if machine.room() == 0 {
                return any;
            }
            let Some(id) = entry.waiting.pop_front() else { return any };
            let Some(call) = self.calls.get_mut(&id) else { continue };
            let left = call.deadline.map(|at| at.saturating_sub(now).div_ceil(NANOS_PER_MS));
            any = true;
            call.begun = true;
            if let Err(failure) = machine.open(id, &call.opening, left) {
                let status = Status::of_failure(&failure);
                self.end(id, connection, status, now);
                continue;
            }
            for (message, end) in call.waiting.drain(..) {
                machine.send(id, message, end);
            }
        }
    }

    /// Begins a call once more that a server refused without looking at it.
    fn begin_again(&mut self, refused: Refused, now: u64) {
        let Refused { id, unsent } = refused;
        let Some(call) = self.calls.get_mut(&id) else { return };
        if std::mem::replace(&mut call.was_refused, true) {
            let status = Status::new(Code::Unavailable, "the server refused it twice");
            let connection = call.connection;
            return self.end(id, connection, status, now);
        }
        call.begun = false;
        if call.opening.message.is_none() {
            call.waiting = unsent;
        }
        let goes_to = call.goes_to.clone();
        self.find_connection(id, &goes_to, now);
    }

    /// Gives the calls that wait for a connection that takes none any more to another one.
    fn move_waiting(&mut self, connection: u32, now: u64) {
        let Some(entry) = self.entries.get_mut(&connection) else { return };
        let waiting = std::mem::take(&mut entry.waiting);
        let goes_to = entry.goes_to.clone();
        for id in waiting {
            self.find_connection(id, &goes_to, now);
        }
    }

    /// What is to be told to the owner of a call: its number, the event.
    pub fn take_event(&mut self) -> Option<(u32, Event)> {
        self.events.pop_front()
    }

    /// The owner of a call; with the call itself when it ends by that event, and is forgotten. What comes after the end is
    /// no call's.
    pub fn owner_of(&mut self, id: u32, event: &Event) -> Option<(O, Option<Opening>)>
    where
        O: Clone,
    {
        let call = self.calls.get(&id)?;
        if matches!(event, Event::Close(_)) || call.opening.message.is_some() {
            return self.remove(id).map(|call| (call.owner, Some(call.opening)));
        }
        Some((call.owner.clone(), None))
    }

    /// The process is to end: connections without calls are closed.
    pub fn end_soon(&mut self) {
        self.ending = true;
        let ids: Vec<u32> = self.entries.keys().copied().collect();
        for id in ids {
            self.wake(id);
        }
    }

    /// A connection is not made, since nothing waits for it.
    pub fn forget_connection(&mut self, connection: u32) {
        self.entries.remove(&connection);
    }

    /// Whom a connection is made for; `None` when nothing waits for it any more.
    pub fn asker(&self, connection: u32) -> Option<&O> {
        let waiting = &self.entries.get(&connection)?.waiting;
        waiting.iter().find_map(|id| self.calls.get(id)).map(|call| &call.owner)
    }

    /// The calls of whom the closure says so.
    pub fn calls_of(&self, is: impl Fn(&O) -> bool) -> Vec<u32> {
        self.calls.iter().filter(|(_, call)| is(&call.owner)).map(|(id, _)| *id).collect()
    }

    /// When the process is to end, ends the streams that belong to no request, and that the closure has no more use for:
    /// nothing else would end them.
    pub fn give_up(&mut self, is_useless: impl Fn(&O) -> bool, now: u64) {
        if !self.ending {
            return;
        }
        let calls = self.calls.iter().filter(|(_, call)| {
            !call.opening.of_request && call.opening.message.is_none() && is_useless(&call.owner)
        });
        let ids: Vec<_> = calls.map(|(id, call)| (*id, call.connection)).collect();
        for (id, connection) in ids {
            let status = Status::new(Code::Unavailable, "the worker is to end");
            self.end(id, connection, status, now);
        }
    }
}
