//! Calls that a guest has under way: HTTP calls, gRPC calls, Redis calls, and functions of the embedder that run later.

use rustc_hash::FxHashMap;

use super::{ContextId, GrpcCalls};
use crate::callout::{Failure, Request, Response, Upstream};
use crate::grpc::{Command, Event};
use crate::limits;
use crate::redis;

/// How a guest knows a call: unique in its VM, from 1.
pub type Token = u32;

/// A call on its way out.
#[derive(Debug)]
pub struct Dispatched {
    /// Its token.
    pub token: Token,
    /// The upstream as the guest named it, for the log.
    pub name: String,
    /// Where to.
    pub upstream: Upstream,
    /// Whose certificate TLS must show.
    pub server_name: String,
    /// What is asked.
    pub request: Request,
    /// Its address must be judged by the plugin's rules before a connection is made; true when its name is allowed.
    pub judged: Option<bool>,
    /// Milliseconds that the whole call may take.
    pub timeout_ms: u32,
}

/// A function of the embedder to be run.
#[derive(Debug)]
pub struct ForeignCall {
    /// Its token, which the guest knows as the function's id.
    pub token: Token,
    /// The function.
    pub name: Vec<u8>,
    /// Its arguments.
    pub arguments: Vec<u8>,
}

/// What a guest's calls come to, to be done by the shell.
#[derive(Debug, Default)]
pub struct Requested {
    /// HTTP calls to be made.
    pub http: Vec<Dispatched>,
    /// Functions to be run.
    pub foreign: Vec<ForeignCall>,
    /// What gRPC calls and streams come to.
    pub grpc: Vec<Command>,
    /// What is asked of Redis servers.
    pub redis: Vec<redis::Command>,
    /// HTTP calls and Redis calls that nothing waits for any more. A function runs all the same.
    pub dropped: Vec<Token>,
}

/// What came of the call whose callback runs.
#[derive(Debug)]
pub enum CallResult {
    /// Of an HTTP call: what its guest is told of, and why that is not the upstream's.
    Http(Option<Response>, Option<Failure>),
    /// Of a function; false when it failed.
    Foreign(Vec<u8>, bool),
    /// Of a gRPC call or stream.
    Grpc(Event),
    /// Of a Redis call: all its answers, as they came.
    Redis(Result<Vec<u8>, Failure>),
}

/// Who made a call.
#[derive(Clone, Debug)]
pub struct CallOf {
    /// The plugin context on which the response arrives.
    pub root: ContextId,
    /// The stream, when it was one: its end drops the call.
    pub stream: Option<ContextId>,
    /// The stream whose request waits until the call is answered, see [`Event::calls_hold`].
    ///
    /// [`Event::calls_hold`]: crate::event::Event::calls_hold
    pub holds: Option<ContextId>,
    /// The upstream as the guest named it, for the log; empty for a function, and for a gRPC stream, which ends with its
    /// request as a rule.
    pub upstream: String,
    /// Bytes of the call's body.
    pub size: usize,
    /// It was made in `proxy_on_done` of that plugin context, which lives on until it is answered.
    pub at_end: bool,
    /// It was made with the last piece of a response: it is its plugin context's when the stream ends.
    pub with_last_piece: bool,
}

/// What a context had under way that nothing waits for any more.
#[derive(Debug, Default)]
pub struct Dropped {
    /// There was a call.
    pub any: bool,
    /// What the calls to other services are called in the log.
    pub names: Vec<String>,
    /// Streams that were held, one for each call that held one.
    pub held: Vec<ContextId>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Calls {
    last: Token,
    /// Bytes of the bodies of what is pending.
    size: usize,
    pending: FxHashMap<Token, CallOf>,
    requested: Requested,
    /// Those of them that are gRPC's.
    pub grpc: GrpcCalls,
    /// What came of the call whose callback runs.
    pub answer: Option<CallResult>,
    /// The stream that this call held.
    pub answers: Option<ContextId>,
}

impl Calls {
    /// Counts a call in; `None` when there are too many.
    pub fn begin(&mut self, of: CallOf) -> Option<Token> {
        let size = self.size + of.size;
        if self.pending.len() >= limits::CALLS || size > limits::CALL_REQUEST_BODIES {
            return None;
        }
        self.size = size;
        loop {
            self.last = if self.last >= i32::MAX as u32 { 1 } else { self.last + 1 };
            if !self.pending.contains_key(&self.last) {
                self.pending.insert(self.last, of);
                return Some(self.last);
            }
        }
    }

    /// Whether any is under way.
    pub fn any(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether a call of that stream is under way.
    pub fn awaited_by(&self, stream: ContextId) -> bool {
        self.pending.values().any(|of| of.stream == Some(stream))
    }

    /// Whether a call of the stream's or of its plugin context is under way.
    pub fn may_answer(&self, stream: ContextId, root: ContextId) -> bool {
        self.pending.values().any(|of| of.root == root && of.stream.is_none_or(|of| of == stream))
    }

    /// Whether a call of a plugin context is under way; `at_end`: one that it made in its `proxy_on_done`.
    pub fn any_of(&self, root: ContextId, at_end: bool) -> bool {
        self.pending.values().any(|of| of.root == root && (of.at_end || !at_end))
    }

    /// Sends a call that was counted in.
    pub fn send(&mut self, call: Dispatched) {
        self.requested.http.push(call);
    }

    /// Asks something of a Redis server; a call was counted in.
    pub fn ask_redis(&mut self, command: redis::Command) {
        self.requested.redis.push(command);
    }

    /// Has a function run that was counted in.
    pub fn run_foreign(&mut self, call: ForeignCall) {
        self.requested.foreign.push(call);
    }

    /// Counts a call out. `None` when nothing waits for it any more.
    pub fn end(&mut self, token: Token) -> Option<CallOf> {
        let of = self.pending.remove(&token)?;
        self.size -= of.size;
        self.grpc.end(token);
        Some(of)
    }

    /// Who made a call that is under way.
    pub fn of(&self, token: Token) -> Option<&CallOf> {
        self.pending.get(&token)
    }

    /// Drops what a context has under way; what others have under way holds it no longer.
    pub fn drop_of(&mut self, context: ContextId) -> Dropped {
        let mut gone = Dropped::default();
        if self.pending.is_empty() {
            return gone;
        }
        let (dropped, size) = (&mut self.requested.dropped, &mut self.size);
        let grpc = &mut self.grpc;
        self.pending.retain(|token, of| {
            of.holds = of.holds.filter(|held| *held != context);
            if of.with_last_piece {
                of.stream = of.stream.filter(|stream| *stream != context);
            }
            let stays = of.stream != Some(context) && of.root != context;
            if !stays {
                let kind = if grpc.end(*token) {
                    grpc.command(Command::Cancel(*token));
                    "gRPC call"
                } else {
                    dropped.push(*token);
                    "HTTP call"
                };
                *size -= of.size;
                gone.any = true;
                gone.held.extend(of.holds);
                if !of.upstream.is_empty() {
                    gone.names.push(format!("{kind} to {}", of.upstream));
                }
            }
            stays
        });
        self.requested.http.retain(|call| self.pending.contains_key(&call.token));
        self.requested.redis.retain(|command| match command {
            redis::Command::Call(call) => self.pending.contains_key(&call.token),
            redis::Command::Renew(_) => true,
        });
        gone
    }

    /// What is to be done, once.
    pub fn take(&mut self) -> Requested {
        self.requested.grpc = self.grpc.take();
        std::mem::take(&mut self.requested)
    }

    /// The event of a gRPC call or stream whose callback runs.
    pub fn grpc_event(&mut self) -> Option<&mut Event> {
        match &mut self.answer {
            Some(CallResult::Grpc(event)) => Some(event),
            _ => None,
        }
    }

    /// The response whose callback runs.
    pub fn response(&self) -> Option<&Response> {
        match &self.answer {
            Some(CallResult::Http(response, _)) => response.as_ref(),
            _ => None,
        }
    }

    /// See [`Calls::response`].
    pub fn response_mut(&mut self) -> Option<&mut Response> {
        match &mut self.answer {
            Some(CallResult::Http(response, _)) => response.as_mut(),
            _ => None,
        }
    }
}
