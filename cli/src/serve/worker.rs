//! How threads ask the one that runs filters.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender, sync_channel};

use crate::core::vm::Code;
use crate::play::chain::FilterSpec;
use crate::play::headers::Headers;
use crate::play::local::Local;
use crate::play::request::Request;

/// Where an answer goes.
pub type Reply<T> = SyncSender<T>;

/// What filters are to do.
pub enum Job {
    /// A request has come.
    Begin { request: Box<Request>, body: Vec<u8>, reply: Reply<Begun> },
    /// Its response begins. `from` is the address of the upstream, if it comes from there.
    Respond {
        number: u64,
        status: u16,
        headers: Headers,
        from: Option<String>,
        reply: Reply<Result<Head, String>>,
    },
    /// A piece of its response's body.
    Piece { number: u64, piece: Vec<u8>, is_last: bool, reply: Reply<Result<Vec<u8>, String>> },
    /// The request is over; `cut` says why the client did not get all.
    End { number: u64, cut: Option<String> },
    /// Filters take the place of those before. `codes` keeps what was compiled for them.
    Replace { specs: Vec<FilterSpec>, codes: Vec<Arc<Code>> },
    /// New filters could not be read or compiled.
    NotReplaced(String),
}

/// What becomes of a request.
pub struct Begun {
    pub number: u64,
    pub way: Way,
}

pub enum Way {
    /// It goes to the upstream, as it is now.
    Forward { request: Box<Request>, body: Vec<u8> },
    /// A filter answered.
    Respond(Local),
    /// A filter closed the connection.
    Close,
}

/// A response's status and headers as they go out.
pub struct Head {
    pub status: u16,
    pub headers: Headers,
}

/// See the module.
#[derive(Clone)]
pub struct Worker {
    jobs: Sender<Job>,
}

/// A worker, and what the thread that runs filters reads.
pub fn channel() -> (Worker, Receiver<Job>) {
    let (jobs, receiver) = mpsc::channel();
    (Worker { jobs }, receiver)
}

/// The thread that runs filters has ended.
const GONE: &str = "the filters are gone";

impl Worker {
    /// Tells it, without an answer.
    pub fn tell(&self, job: Job) {
        // Without anybody who reads it, the process is about to end.
        let _ = self.jobs.send(job);
    }

    /// Asks it, and waits for the answer.
    pub fn ask<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T, String> {
        let (reply, answer) = sync_channel(1);
        self.tell(job(reply));
        answer.recv().map_err(|_| GONE.into())
    }
}

/// A request that filters know, until this is dropped.
pub struct Ticket {
    worker: Worker,
    pub number: u64,
    cut: Option<String>,
    is_whole: bool,
}

impl Ticket {
    pub fn new(worker: Worker, number: u64) -> Self {
        Self { worker, number, cut: None, is_whole: false }
    }

    /// The response's headers on their way through the filters.
    pub fn respond(
        &mut self,
        status: u16,
        headers: Headers,
        from: Option<String>,
    ) -> Result<Head, String> {
        let number = self.number;
        let head = self.worker.ask(|reply| Job::Respond { number, status, headers, from, reply });
        self.note(head)
    }

    /// A piece of its body on its way through the filters.
    pub fn piece(&mut self, piece: Vec<u8>, is_last: bool) -> Result<Vec<u8>, String> {
        let number = self.number;
        let passed = self.worker.ask(|reply| Job::Piece { number, piece, is_last, reply });
        let passed = self.note(passed)?;
        self.is_whole = is_last;
        Ok(passed)
    }

    /// Why the client gets no more.
    pub fn cut(&mut self, cause: String) {
        self.cut.get_or_insert(cause);
    }

    fn note<T>(&mut self, answer: Result<Result<T, String>, String>) -> Result<T, String> {
        answer.and_then(|answer| answer).inspect_err(|cause| self.cut(cause.clone()))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let gone = || (!self.is_whole).then(|| "the client is gone".to_owned());
        let cut = self.cut.take().or_else(gone);
        self.worker.tell(Job::End { number: self.number, cut });
    }
}
