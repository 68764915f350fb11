//! The request's way: its headers, then its body, filter by filter.

use super::{Access, Flow, Outcome, Participation, REQUEST_BODY, REQUEST_HEADERS, Told};
use crate::core::abi::Callback;
use crate::core::event::Action;
use crate::play::body::RequestBody;
use crate::play::local::{Local, grpc};

/// Bytes of a piece of a request's body that a filter is shown at once.
const PIECE: usize = 1024 * 1024;

impl Flow<'_> {
    /// The way of the request, filter by filter.
    pub fn access(&mut self) -> Access {
        self.go_through().err().unwrap_or(Access::Forward)
    }

    fn go_through(&mut self) -> Result<(), Access> {
        let takes = self.takers();
        let mut next_with_body = 0;
        for index in 0..self.participations.len() {
            let takes_body = takes[index];
            match self.tell_request_headers(index, takes_body) {
                Outcome::Held { expects_body } => {
                    self.give_body_to_held(&takes, next_with_body, index, expects_body)?;
                    next_with_body = index + 1;
                }
                outcome => self.proceed(index, outcome)?,
            }
        }
        self.give_body(&takes, next_with_body, self.participations.len())?;
        Ok(())
    }

    pub(super) fn is_grpc(&self) -> bool {
        self.chain.server.with(self.id, |request| {
            let content_type = request.headers.get(b"content-type");
            content_type.is_some_and(|value| value.starts_with(b"application/grpc"))
        })
    }

    fn takers(&self) -> Vec<bool> {
        let is_grpc = self.is_grpc();
        let takes = |index| {
            let module = self.chain.plugin(index).module();
            module.exports(Callback::RequestBody) && (!is_grpc || module.rewrites_bodies())
        };
        (0..self.participations.len()).map(takes).collect()
    }

    /// What comes after a request callback of a filter.
    fn proceed(&mut self, index: usize, outcome: Outcome) -> Result<(), Access> {
        match outcome {
            Outcome::GoOn | Outcome::Held { .. } => Ok(()),
            Outcome::Ended(local) => {
                self.leave_out_behind(index);
                Err(local.map_or(Access::Close, Access::Respond))
            }
            Outcome::Failed { cause, status } => {
                if self.skip(index, &cause, false) {
                    return Ok(());
                }
                self.leave_out_behind(index);
                Err(Access::Respond(self.refusal(status)))
            }
        }
    }

    /// What a client gets whose request a filter failed on.
    fn refusal(&self, status: Option<u16>) -> Local {
        if self.is_grpc() {
            return match status {
                Some(_) => grpc("8", "a filter holds the request body, and it is too large"),
                None => grpc("14", "a filter failed"),
            };
        }
        Local::page(status.unwrap_or(503))
    }

    /// Gives the body to the filters of this range that take it. False when there is none.
    fn give_body(&mut self, takes: &[bool], first: usize, end: usize) -> Result<bool, Access> {
        for index in (first..end).filter(|index| takes[*index]) {
            if self.body.is_empty() {
                return Ok(false);
            }
            self.chain.server.with(self.id, |request| request.body_is_read = true);
            let outcome = self.give_pieces(index);
            self.proceed(index, outcome)?;
        }
        Ok(true)
    }

    fn give_body_to_held(
        &mut self,
        takes: &[bool],
        first: usize,
        index: usize,
        expects_body: bool,
    ) -> Result<(), Access> {
        if self.give_body(takes, first, index + 1)? {
            return Ok(());
        }
        let outcome = if expects_body {
            self.give_end(index)
        } else {
            let waited = self.wait(index, false, REQUEST_HEADERS);
            self.finish_waited(index, waited, REQUEST_HEADERS, None)
        };
        self.proceed(index, outcome)
    }

    fn give_pieces(&mut self, index: usize) -> Outcome {
        let mut work = RequestBody::new(std::mem::take(&mut self.body));
        let outcome = loop {
            let piece = work.next_piece(PIECE);
            let told = self.tell(index, Callback::RequestBody, &piece, work.is_at_end(), true);
            let outcome = self.finish(index, told, REQUEST_BODY, Some(&mut work));
            if !matches!(outcome, Outcome::GoOn) || work.is_at_end() {
                break outcome;
            }
        };
        self.body = work.complete();
        self.set_body_length();
        outcome
    }

    /// The end of a body that turned out to be empty.
    fn give_end(&mut self, index: usize) -> Outcome {
        let mut work = RequestBody::new(Vec::new());
        let told = self.tell(index, Callback::RequestBody, b"", true, true);
        let outcome = self.finish(index, told, REQUEST_BODY, Some(&mut work));
        self.body = work.complete();
        self.set_body_length();
        outcome
    }

    /// nginx writes the length again when a body was changed.
    fn set_body_length(&mut self) {
        let length = self.body.len();
        self.chain.server.with(self.id, |request| {
            if request.body_bytes != length {
                request.body_bytes = length;
                request.headers.set(b"Content-Length", length.to_string().as_bytes());
            }
        });
    }

    fn tell_request_headers(&mut self, index: usize, takes_body: bool) -> Outcome {
        let told = self.tell(index, Callback::RequestHeaders, b"", false, false);
        if takes_body
            && let Ok(Told { action: Action::Pause, awaits_call: false, expects_body, .. }) = &told
        {
            let expects_body = *expects_body;
            if let Ok(told) = told {
                self.apply(&told.effects);
            }
            return Outcome::Held { expects_body };
        }
        self.finish(index, told, REQUEST_HEADERS, None)
    }

    /// The filters behind one that answered are told of nothing, unless they know the request already.
    fn leave_out_behind(&mut self, index: usize) {
        for participation in &mut self.participations[index + 1..] {
            if matches!(participation, Participation::Free) {
                *participation = Participation::Skipped { drops_body: false };
            }
        }
    }
}
