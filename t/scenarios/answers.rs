//! The answers that a scenario has for the calls of filters: which call gets which, and when.

use super::values::{Message, number};
use crate::support::clock::Clock;
use crate::support::poll;
use serde_json::Value;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// What all servers of a service have in common.
pub(super) struct Desk {
    clock: Arc<Clock>,
    calls: Mutex<Vec<Message>>,
    /// When the answers that are on their way are due.
    due: Mutex<Vec<u64>>,
    over: AtomicBool,
}

/// The answers of one upstream.
pub(super) struct Answers {
    desk: Arc<Desk>,
    all: Vec<Value>,
    given: Mutex<Vec<bool>>,
}

/// An answer that is due. It counts as on its way until it is dropped.
pub(super) struct Due<'a> {
    pub answer: &'a Value,
    desk: &'a Desk,
    at: u64,
}

impl Desk {
    pub(super) fn new(clock: &Arc<Clock>) -> Self {
        Self {
            clock: clock.clone(),
            calls: Mutex::default(),
            due: Mutex::default(),
            over: AtomicBool::new(false),
        }
    }

    /// What was called.
    pub(super) fn calls(&self) -> Vec<Message> {
        self.calls.lock().expect("a lock").clone()
    }

    /// When the next answer is due that is on its way.
    pub(super) fn due(&self) -> Option<u64> {
        let now = self.clock.now();
        self.due.lock().expect("a lock").iter().copied().filter(|at| *at > now).min()
    }

    /// Waits until all answers were given that are due by now.
    pub(super) fn settle(&self) {
        let now = self.clock.now();
        let settled = poll(|| {
            let due = self.due.lock().expect("a lock");
            due.iter().all(|at| *at > now).then_some(())
        });
        assert!(settled.is_some(), "an answer to a call is not given");
    }

    /// The test is over: no call that waits is answered.
    pub(super) fn close(&self) {
        self.clock.remove_file();
        self.over.store(true, Ordering::SeqCst);
    }
}

impl Answers {
    pub(super) fn new(desk: &Arc<Desk>, all: &[Value]) -> Self {
        let given = Mutex::new(vec![false; all.len()]);
        Self { desk: desk.clone(), all: all.to_vec(), given }
    }

    /// Whether all of them fail in that way.
    pub(super) fn fail_by(&self, kind: &str) -> bool {
        self.all.iter().all(|answer| answer["fails"] == kind)
    }

    /// The answer to a call, when it is due; `None` when the call gets none, and the test is over.
    pub(super) fn to(&self, call: Message) -> Option<Due<'_>> {
        let desk = &*self.desk;
        let answer = &self.all[self.choose(&call.0)];
        let never = answer["fails"] == "timeout";
        let at = desk.clock.now() + number(&answer["after_ms"]);
        if !never {
            desk.due.lock().expect("a lock").push(at);
        }
        desk.calls.lock().expect("a lock").push(call);
        while never || desk.clock.now() < at {
            if desk.over.load(Ordering::SeqCst) {
                return None;
            }
            thread::sleep(Duration::from_millis(1));
        }
        Some(Due { answer, desk, at })
    }

    /// The next answer that is for such a call; the last one stays.
    fn choose(&self, line: &str) -> usize {
        let (method, path) = line.split_once(' ').expect("a request");
        let is_for =
            |answer: &Value, key: &str, is: &str| answer[key].as_str().is_none_or(|v| v == is);
        let fits = |index: &usize| {
            let answer = &self.all[*index];
            is_for(answer, "method", method) && is_for(answer, "path", path)
        };
        let fitting = || (0..self.all.len()).filter(fits);
        let mut given = self.given.lock().expect("a lock");
        let next = fitting().find(|index| !given[*index]);
        let index = next.or_else(|| fitting().next_back()).expect("an answer");
        given[index] = true;
        index
    }
}

impl Drop for Due<'_> {
    fn drop(&mut self) {
        let mut due = self.desk.due.lock().expect("a lock");
        let index = due.iter().position(|at| *at == self.at).expect("it is there");
        due.swap_remove(index);
    }
}
