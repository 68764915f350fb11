//! gRPC calls and streams that a guest has under way.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::Token;
use crate::grpc::{Command, Held};

/// What is remembered of streams that have ended, so that a guest that sends on one is told so.
const ENDED: usize = 1024;

/// What a guest may do with one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrpcKind {
    /// A call: it sent all at its beginning.
    Call,
    /// A stream that takes messages.
    Stream,
    /// A stream whose sending side the guest has ended.
    HalfClosed,
}

/// See the module.
#[derive(Debug, Default)]
pub struct GrpcCalls {
    /// What their messages count towards.
    pub held: Held,
    kinds: FxHashMap<Token, GrpcKind>,
    ended: VecDeque<Token>,
    commands: Vec<Command>,
}

impl GrpcCalls {
    /// Begins a call or a stream.
    pub fn begin(&mut self, token: Token, kind: GrpcKind, command: Command) {
        self.kinds.insert(token, kind);
        self.commands.push(command);
    }

    /// What kind it is, while it is under way.
    pub fn kind(&self, token: Token) -> Option<GrpcKind> {
        self.kinds.get(&token).copied()
    }

    /// Whether it was one, and has ended.
    pub fn has_ended(&self, token: Token) -> bool {
        self.ended.contains(&token)
    }

    /// Has the shell do something.
    pub fn command(&mut self, command: Command) {
        self.commands.push(command);
    }

    /// The guest ends its sending side.
    pub fn half_close(&mut self, token: Token) {
        self.kinds.insert(token, GrpcKind::HalfClosed);
    }

    /// Ends it. False when it was none that was under way.
    pub fn end(&mut self, token: Token) -> bool {
        let was = self.kinds.remove(&token).is_some();
        if was {
            if self.ended.len() == ENDED {
                self.ended.pop_front();
            }
            self.ended.push_back(token);
        }
        was
    }

    /// Whether there is anything for the shell to do.
    pub fn has_commands(&self) -> bool {
        !self.commands.is_empty()
    }

    /// What is to be done, once.
    pub fn take(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.commands)
    }
}
