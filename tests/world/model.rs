//! Sequences of events for the [`player`](super::player), and what must be true after each.

use super::player::check_statuses;
use super::{Filter, Request, SimHost, Stream};
use resty_proxy_wasm::abi::Callback;
use resty_proxy_wasm::error::Error;
use resty_proxy_wasm::event::Action;
use resty_proxy_wasm::ports::Phase;
use resty_proxy_wasm::vm::{Context, Vm};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// One event. Streams and contexts are picked by number, counted round.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A new plugin context, which plays the tape whenever it is called.
    Configure,
    /// Lua lets go of a context.
    Drop { context: usize },
    /// A new stream.
    Open { context: usize },
    /// A callback of a stream, with a body chunk of that size.
    Event { stream: usize, callback: usize, size: usize, end: bool },
    /// A pause ends.
    Resume { stream: usize },
    /// A request ends.
    End { stream: usize },
    /// All calls come from another process.
    Fork,
}

/// The streams of the VM that lives, as they must be.
pub(crate) struct Model {
    host: Arc<SimHost>,
    filter: Filter,
    /// The first one plays nothing and is never dropped.
    contexts: Vec<Rc<Context>>,
    streams: Vec<Stream>,
    newest: u32,
}

/// Enough to hold and replace; what there is more of is only slower.
const CONTEXTS: usize = 8;
const STREAMS: usize = 32;

/// Body chunks are parts of it.
static CHUNK: [u8; 4096] = [b'x'; 4096];

impl Model {
    /// Begins in a VM of its own, also when the filter was used before.
    pub(crate) fn new(filter: &Filter) -> Self {
        filter.fork();
        let contexts = vec![filter.context("")];
        let (host, filter) = (filter.host.clone(), filter.clone());
        Self { host, filter, contexts, streams: Vec::new(), newest: 1 }
    }

    /// How many streams live.
    pub(crate) fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Takes a step; what it calls plays the tape.
    pub(crate) fn take(&mut self, step: &Step, tape: &[u8]) {
        // Part of the delay after a start that failed.
        self.host.pass(30);
        let result = match step {
            Step::Configure if self.contexts.len() >= CONTEXTS => Ok(()),
            Step::Configure => {
                self.filter.configure_bytes(tape).map(|context| self.contexts.push(context))
            }
            Step::Drop { context } => match context.checked_rem(self.contexts.len() - 1) {
                Some(at) => self.filter.drop_context(&self.contexts.remove(at + 1)),
                None => Ok(()),
            },
            Step::Open { .. } if self.streams.len() >= STREAMS => Ok(()),
            Step::Open { context } => self.open(context % self.contexts.len(), tape),
            Step::Event { stream, callback, size, end } => match self.pick(*stream) {
                Some(at) => self.event(at, *callback, *size, *end, tape),
                None => Ok(()),
            },
            Step::Resume { stream } => match self.pick(*stream) {
                Some(at) => self.streams[at].resumed().map(|_| ()),
                None => Ok(()),
            },
            Step::End { stream } => match self.pick(*stream) {
                Some(at) => {
                    let stream = self.streams.swap_remove(at);
                    self.set_tape(&stream, tape);
                    stream.end()
                }
                None => Ok(()),
            },
            Step::Fork => {
                self.filter.fork();
                // The next stream makes the new VM; the old ones are lost then.
                let request = self.host.add(Request::default());
                let first = self.filter.try_open(&self.contexts[0], request).expect("a new VM");
                assert_eq!(first.at.id, 2);
                self.lost("it belonged to another process");
                self.newest = 2;
                self.streams.push(first);
                Ok(())
            }
        };
        match result {
            Ok(()) | Err(Error::Waiting { .. }) => self.consistent(),
            // A trap in the proxy_on_delete that follows is not what the user hears of.
            Err(Error::Refused(_)) => match self.loss() {
                Some(why) => self.lost(&why),
                None => self.consistent(),
            },
            // The response ends, and the VM continues.
            Err(Error::Cut(_)) => self.consistent(),
            Err(error @ Error::Trap { .. }) => {
                check_statuses(&error);
                self.lost(&error.to_string());
            }
            Err(other) => panic!("{other}"),
        }
    }

    /// Ends all that lives, and sees that nothing is left of it.
    pub(crate) fn finish(mut self) {
        // A context that was dropped ends with its last stream, and then plays its own tape.
        while self.streams() > 0 {
            self.take(&Step::End { stream: 0 }, b"");
        }
        self.take(&Step::Open { context: 0 }, b"");
        assert_eq!(self.streams(), 1, "a stream that plays nothing");
        assert_eq!(self.streams[0].end(), Ok(()));
        self.host.warned();
    }

    /// The VM is gone: so are its streams, each is told why, and ids begin again.
    fn lost(&mut self, why: &str) {
        for stream in self.streams.drain(..) {
            let told = stream.run(Callback::RequestHeaders, b"", false).map(|_| ());
            assert_eq!(told, Err(Error::Lost(why.into())));
            assert_eq!(stream.end(), Ok(()));
        }
        self.newest = 0;
    }

    /// Why the VM has ended, if it has; unknown where there is no stream to ask.
    fn loss(&self) -> Option<String> {
        let Some(any) = self.streams.first() else { return Some(String::new()) };
        match any.context.with_stream(any.at, |_| Ok(())) {
            Err(Error::Lost(why)) => Some(why),
            _ => None,
        }
    }

    fn pick(&self, number: usize) -> Option<usize> {
        number.checked_rem(self.streams.len())
    }

    fn set_tape(&self, stream: &Stream, tape: &[u8]) {
        self.host.with(stream.request, |r| r.set_property("tape", tape, false));
    }

    fn open(&mut self, context: usize, tape: &[u8]) -> Result<(), Error> {
        let request =
            Request::default().header("a", "1").writable("free", "").property("tape", tape);
        let request = self.host.add(request);
        let stream = self.filter.try_open(&self.contexts[context], request)?;
        assert!(stream.at.id > self.newest, "{} is not new", stream.at.id);
        self.newest = stream.at.id;
        self.streams.push(stream);
        Ok(())
    }

    fn event(
        &self,
        at: usize,
        callback: usize,
        size: usize,
        end: bool,
        tape: &[u8],
    ) -> Result<(), Error> {
        let stream = &self.streams[at];
        self.set_tape(stream, tape);
        let phases = [Phase::Request, Phase::Request, Phase::ResponseHeaders, Phase::ResponseBody];
        self.host.with(stream.request, |r| {
            r.phase = phases[callback];
            r.headers_sent = r.phase == Phase::ResponseBody;
        });
        let chunk = &CHUNK[..size.min(CHUNK.len())];
        let answer = match callback {
            0 => stream.run(Callback::RequestHeaders, b"", false)?,
            1 => stream.run(Callback::RequestBody, chunk, end)?,
            2 => stream.try_response_headers(&[("a", "1"), ("content-length", "5")])?,
            _ => stream.run(Callback::ResponseBody, chunk, end)?,
        };
        let paused = |vm: &mut Vm| {
            Ok(vm.state().contexts.streams.get(&stream.at.id).is_some_and(|s| s.paused))
        };
        if answer.action == Action::Pause {
            assert_eq!(stream.context.with_stream(stream.at, paused), Ok(true));
        }
        Ok(())
    }

    /// The VM knows the streams that we know, each with its root, and counts them right.
    fn consistent(&self) {
        let Some(any) = self.streams.first() else { return };
        let looked = any.context.with_stream(any.at, |vm| {
            let contexts = &vm.state().contexts;
            let mut known: Vec<u32> = contexts.streams.values().map(|s| s.id).collect();
            known.sort_unstable();
            let mut ours: Vec<u32> = self.streams.iter().map(|s| s.at.id).collect();
            ours.sort_unstable();
            assert_eq!(known, ours);
            let mut of_root: BTreeMap<u32, u32> = BTreeMap::new();
            for stream in contexts.streams.values() {
                let id = stream.id;
                assert!(!contexts.roots.contains_key(&id), "{id} is a root and a stream");
                *of_root.entry(stream.root).or_default() += 1;
            }
            for root in contexts.roots.values() {
                assert_eq!(root.streams, of_root.remove(&root.id).unwrap_or_default());
            }
            assert_eq!(of_root, BTreeMap::new(), "streams without a root");
            Ok(())
        });
        assert_eq!(looked, Ok(()));
    }
}
