//! What comes of a guest's gRPC calls and streams.

use super::Vm;
use crate::abi::Callback;
use crate::error::Error;
use crate::grpc::{Code, Event};
use crate::guest::{CallResult, GrpcKind, Token};
use crate::store::Count;

impl Vm {
    /// Tells the guest of an event. One of what has ended for the guest is forgotten.
    pub fn grpc_event(&mut self, token: Token, event: Event) -> Result<(), Error> {
        let Some(kind) = self.state().calls.grpc.kind(token) else { return Ok(()) };
        let ends = kind == GrpcKind::Call || matches!(event, Event::Close(_));
        let of = if ends {
            self.state_mut().end_call(token)
        } else {
            self.state().calls.of(token).cloned()
        };
        let Some(of) = of else { return Ok(()) };
        let (callback, number) = match &event {
            Event::InitialMetadata(map) => (Callback::GrpcInitialMetadata, map.len() as u32),
            Event::Message(message) => (Callback::GrpcReceive, message.len() as u32),
            Event::TrailingMetadata(map) => (Callback::GrpcTrailingMetadata, map.len() as u32),
            Event::Close(status) => {
                if status.code != Code::Ok {
                    self.state().own.count(Count::FailedGrpcCalls);
                }
                (Callback::GrpcClose, status.code as u32)
            }
        };
        if self.exports.grpc(callback).is_none() {
            self.answered(&of);
            return if ends { self.end_when_answered(of.root) } else { Ok(()) };
        }
        self.answers(&of, CallResult::Grpc(event));
        let told = self.call(callback, of.root, |store, exports| {
            exports.grpc(callback).map_or(Ok(()), |f| f.call(store, (of.root, token, number)))
        });
        self.answered(&of);
        told?;
        if ends { self.end_when_answered(of.root) } else { Ok(()) }
    }
}
