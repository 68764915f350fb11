//! How far a worker is with listening for messages in queues.

use std::cell::{Cell, RefCell};

use super::super::forks;
use crate::ports::Listening;
use crate::store::Address;

/// How far a process is.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing was done.
    #[default]
    Unknown,
    /// The shell was told to listen, and sends this hello.
    Begun(u64),
    /// Its cosocket receives at that address.
    At(Address),
    /// There is no cosocket: queues are polled.
    Polls,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Queue {
    /// Of which process, and how far it is.
    state: Cell<(u64, State)>,
    /// Workers that could not be woken yet.
    unsent: RefCell<Vec<Address>>,
}

impl Queue {
    /// How far this process is.
    pub(crate) fn state(&self) -> State {
        match self.state.get() {
            (of, state) if of == forks::process() => state,
            _ => State::Unknown,
        }
    }

    /// This process is that far.
    pub(crate) fn set_state(&self, state: State) {
        self.state.set((forks::process(), state));
    }

    /// How this process learns of messages.
    pub(crate) fn listening(&self) -> Listening {
        match self.state() {
            State::Unknown | State::Begun(_) => Listening::NotYet,
            State::At(address) => Listening::At(address),
            State::Polls => Listening::Polls,
        }
    }

    /// Whether the shell must begin to listen; true once.
    pub(crate) fn must_begin(&self) -> bool {
        let must = self.state() == State::Unknown;
        if must {
            self.set_state(State::Begun(0));
        }
        must
    }

    /// A worker that could not be woken: it is tried again.
    pub(crate) fn add_unsent(&self, address: Address) {
        let mut unsent = self.unsent.borrow_mut();
        if !unsent.contains(&address) {
            unsent.push(address);
        }
    }

    /// The workers that could not be woken when they should.
    pub(crate) fn take_unsent(&self) -> Vec<Address> {
        self.unsent.take()
    }

    /// Whether there are any.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.unsent.borrow().is_empty()
    }
}
