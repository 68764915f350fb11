//! What guests are told of their jobs.

use std::rc::Rc;

use crate::callout::{Failure, Response};
use crate::error::Error;
use crate::grpc;
use crate::vm::{CallRef, Plugin};

/// What a guest is to be told.
pub(crate) enum Answer {
    Call(Rc<Plugin>, CallRef, Result<Response, Failure>),
    Function(Rc<Plugin>, CallRef, Vec<u8>, bool),
    /// An event of a gRPC call or stream, with its number in the pool.
    Grpc(Rc<Plugin>, CallRef, u32, grpc::Event),
    Redis(Rc<Plugin>, CallRef, Result<Vec<u8>, Failure>),
}

impl Answer {
    pub(crate) fn plugin(&self) -> &Rc<Plugin> {
        match self {
            Self::Call(plugin, ..)
            | Self::Function(plugin, ..)
            | Self::Grpc(plugin, ..)
            | Self::Redis(plugin, ..) => plugin,
        }
    }

    /// Tells the guest.
    pub(crate) fn tell(self) -> Result<(), Error> {
        match self {
            Self::Call(plugin, of, result) => plugin.answer(of, result),
            Self::Function(plugin, of, result, ok) => plugin.foreign_result(of, result, ok),
            Self::Grpc(plugin, of, _, event) => plugin.grpc_event(of, event),
            Self::Redis(plugin, of, result) => plugin.redis_answer(of, result),
        }
    }

    /// Bytes that it holds.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Call(_, _, Ok(response)) => response.body.len(),
            Self::Grpc(_, _, _, grpc::Event::Message(message)) => message.len(),
            Self::Redis(_, _, Ok(answer)) => answer.len(),
            _ => 0,
        }
    }

    /// A message of a gRPC stream: the stream's number in the pool, and the message's size.
    pub(crate) fn grpc_message(&self) -> Option<(u32, usize)> {
        match self {
            Self::Grpc(_, _, id, grpc::Event::Message(message)) => Some((*id, message.len())),
            _ => None,
        }
    }
}
