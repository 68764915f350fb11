//! What comes of a guest's Redis calls.

use super::Vm;
use crate::abi::Callback;
use crate::callout::Failure;
use crate::error::Error;
use crate::guest::{CallResult, Token};
use crate::store::Count;

/// The status that a guest is told of a call that has no answer.
const FAILED: u32 = 1;

impl Vm {
    /// Tells the guest what came of a call. One that nothing waits for any more is forgotten.
    pub fn redis_call_response(
        &mut self,
        token: Token,
        result: Result<Vec<u8>, Failure>,
    ) -> Result<(), Error> {
        let Some(of) = self.state_mut().end_call(token) else { return Ok(()) };
        let (status, size) = match &result {
            Ok(answer) => (0, answer.len() as u32),
            Err(_) => {
                self.state().own.count(Count::FailedRedisCalls);
                (FAILED, 0)
            }
        };
        if self.exports.redis_call_response.is_none() {
            self.answered(&of);
            return self.end_when_answered(of.root);
        }
        self.answers(&of, CallResult::Redis(result));
        let told = self.call(Callback::RedisCallResponse, of.root, |store, exports| {
            let function = exports.redis_call_response.as_ref();
            function.map_or(Ok(()), |f| f.call(store, (of.root, token, status, size)))
        });
        self.answered(&of);
        told?;
        self.end_when_answered(of.root)
    }
}
