//! What stands in for the client in a build without it.

use std::collections::VecDeque;

use super::{Event, Message, Opening, Refused};
use crate::callout::{Failure, FailureKind, Tls};

/// See the module.
#[derive(Debug)]
pub struct Connection;

impl Connection {
    /// There is none.
    pub fn new(_: Option<Tls>) -> Result<Self, Failure> {
        Err(Failure::new(FailureKind::Connect, "this build has no gRPC (feature \"grpc\")"))
    }

    pub fn room(&mut self) -> usize {
        0
    }

    pub fn ping(&mut self) {}

    pub fn is_settled(&self) -> bool {
        false
    }

    pub fn open(&mut self, _: u32, _: &Opening, _: Option<u64>) -> Result<(), Failure> {
        Ok(())
    }

    pub fn send(&mut self, _: u32, _: Option<Message>, _: bool) {}

    pub fn cancel(&mut self, _: u32) {}

    pub fn told(&mut self, _: u32, _: usize) -> bool {
        false
    }

    pub fn take_refused(&mut self) -> Vec<Refused> {
        Vec::new()
    }

    pub fn streams(&self) -> usize {
        0
    }

    pub fn held(&self) -> usize {
        0
    }

    pub fn receive(&mut self, _: &[u8], _: bool) {}

    pub fn run(&mut self, _: &mut VecDeque<(u32, Event)>) -> Result<(), Failure> {
        Ok(())
    }

    pub fn take_output(&mut self, _: &mut Vec<u8>) {}

    pub fn is_over(&mut self) -> bool {
        true
    }
}
