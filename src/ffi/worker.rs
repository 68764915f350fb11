//! What one worker keeps between calls of the library. An export reaches it once and passes it down.

use super::ending::Endings;
use super::entries::Entries;
use super::outcome::LastOutcome;
use super::request::Requests;

/// See the module.
#[derive(Default)]
pub struct Worker {
    /// The calls of the library that are on the stack.
    pub entries: Entries,
    /// Requests that have streams.
    pub requests: Requests,
    /// Ends of contexts and streams that wait.
    pub endings: Endings,
    /// What the last outcome points to.
    pub outcome: LastOutcome,
}

thread_local! {
    static WORKER: Worker = Worker::default();
}

/// Works with that of this process. nginx has one thread.
pub fn with<R>(f: impl FnOnce(&Worker) -> R) -> R {
    WORKER.with(f)
}
