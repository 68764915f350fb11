//! The response's way: headers, then pieces of the body, filter by filter in reverse.

use super::{Access, Cut, Failed, Flow, Outcome, Participation, RESPONSE_BODY, RESPONSE_HEADERS};
use crate::core::abi::Callback;
use crate::core::error::Error;
use crate::core::guest::Output;
use crate::core::ports::Phase;
use crate::play::headers::Headers;
use crate::play::local::{Local, grpc, is_bodiless};

/// What an upstream answers.
#[derive(Clone, Debug, Default)]
pub struct Planned {
    pub status: u16,
    pub headers: Headers,
    /// The body, as it comes.
    pub pieces: Vec<Vec<u8>>,
}

impl Planned {
    /// With the length of the body where the headers do not tell it.
    pub fn new(status: u16, mut headers: Headers, pieces: Vec<Vec<u8>>) -> Self {
        if headers.get(b"content-length").is_none() && !is_bodiless(status) {
            let length: usize = pieces.iter().map(Vec::len).sum();
            headers.add(b"Content-Length", length.to_string().as_bytes());
        }
        Self { status, headers, pieces }
    }
}

impl Flow<'_> {
    /// The whole way of the response to a request that went so far. Returns the body that the client gets.
    pub fn respond(&mut self, access: Access, upstream: &Planned) -> Result<Vec<u8>, Cut> {
        let (planned, from) = match access {
            Access::Forward => (upstream.clone(), Some("127.0.0.1:80")),
            Access::Respond(local) => {
                let (status, headers) = (local.status, local.sent_headers());
                (Planned { status, headers, pieces: vec![local.body] }, None)
            }
            Access::Close => return Err(Cut("a filter closed the connection".into())),
        };
        self.header_filter(planned.status, planned.headers, from)?;
        let mut body = Vec::new();
        for piece in planned.pieces.iter().filter(|piece| !piece.is_empty()) {
            body.extend(self.body_filter(piece, false)?);
        }
        // nginx tells of the end by itself.
        body.extend(self.body_filter(b"", true)?);
        let request = self.request();
        if request.is_head || is_bodiless(request.status) {
            body.clear();
        }
        Ok(body)
    }

    /// The response's headers pass the filters in reverse. `upstream` is where they come from, if they do.
    pub fn header_filter(
        &mut self,
        status: u16,
        headers: Headers,
        upstream: Option<&str>,
    ) -> Result<(), Cut> {
        self.chain.server.with(self.id, |request| {
            request.phase = Phase::ResponseHeaders;
            request.body_is_read = true;
            request.status = status;
            request.response_headers = headers;
            request.upstream = upstream.map(|upstream| upstream.as_bytes().to_vec());
        });
        for index in (0..self.participations.len()).rev() {
            let told = self.tell(index, Callback::ResponseHeaders, b"", false, false);
            let rewrites = told.as_ref().is_ok_and(|told| told.rewrites_body);
            match self.finish(index, told, RESPONSE_HEADERS, None) {
                Outcome::GoOn | Outcome::Held { .. } => {
                    if rewrites {
                        self.chain.server.with(self.id, |request| {
                            request.response_headers.remove(b"content-length");
                        });
                    }
                }
                Outcome::Ended(Some(local)) => {
                    self.leave_out_others(index);
                    self.replace_response(&local);
                    break;
                }
                Outcome::Ended(None) => return Err(Cut("a wasm filter closed the stream".into())),
                Outcome::Failed { cause, .. } => {
                    if !self.skip(index, &cause, true) {
                        let local = if self.is_grpc() {
                            grpc("14", "a filter failed")
                        } else {
                            Local::new(503)
                        };
                        self.replace_response(&local);
                    }
                }
            }
        }
        self.chain.server.with(self.id, |request| {
            request.headers_sent = true;
            request.phase = Phase::ResponseBody;
        });
        Ok(())
    }

    /// The filter of that index answered in place of the response: that goes out as it is.
    fn leave_out_others(&mut self, index: usize) {
        for (other, participation) in self.participations.iter_mut().enumerate() {
            if other == index {
                continue;
            }
            match *participation {
                Participation::Stream(stream) => *participation = Participation::LeftOut(stream),
                Participation::Free => {
                    *participation = Participation::Skipped { drops_body: false }
                }
                _ => {}
            }
        }
    }

    fn replace_response(&mut self, local: &Local) {
        let headers = local.sent_headers();
        self.chain.server.with(self.id, |request| {
            request.status = local.status;
            request.response_headers = headers;
        });
    }

    /// A piece of the response's body passes the filters in reverse. Returns what is passed on of it.
    pub fn body_filter(&mut self, piece: &[u8], is_last: bool) -> Result<Vec<u8>, Cut> {
        let mut piece = piece.to_vec();
        for index in (0..self.participations.len()).rev() {
            let takes = self.chain.plugin(index).module().exports(Callback::ResponseBody);
            let (left, other) =
                self.give_response_piece(index, if takes { &piece } else { b"" }, is_last)?;
            if other {
                piece = left;
                if piece.is_empty() && !is_last {
                    break;
                }
            }
        }
        self.chain.server.with(self.id, |request| {
            let length = request.announced_length();
            let left = length.map_or(usize::MAX, |all| all.saturating_sub(request.response_bytes));
            // What is more than announced would be taken for the next response.
            piece.truncate(left);
            request.response_bytes += piece.len();
            let is_short = is_last && length.is_some_and(|all| request.response_bytes < all);
            if is_short {
                Err(Cut("the body is shorter than its content-length".into()))
            } else {
                Ok(piece)
            }
        })
    }

    /// What is passed on of a piece, and whether that is another one.
    fn give_response_piece(
        &mut self,
        index: usize,
        piece: &[u8],
        is_last: bool,
    ) -> Result<(Vec<u8>, bool), Cut> {
        let told = self.tell(index, Callback::ResponseBody, piece, is_last, false);
        let other = |body: &Output| match body {
            Output::Replace(bytes) | Output::Pass(bytes) => (bytes.clone(), true),
            Output::Hold => (Vec::new(), true),
            Output::Unchanged => (Vec::new(), false),
        };
        match told {
            Ok(told) => {
                let goes_on = other(&told.body);
                match self.finish(index, Ok(told), RESPONSE_BODY, None) {
                    Outcome::GoOn | Outcome::Held { .. } => Ok(goes_on),
                    Outcome::Ended(_) => Err(Cut("a wasm filter closed the stream".into())),
                    Outcome::Failed { cause, .. } => Err(Cut(cause)),
                }
            }
            Err(Failed { error: Error::Cut(cause), .. }) => Err(Cut(cause)),
            Err(Failed { error, rescued }) => {
                let cause = format!("failed to run {RESPONSE_BODY}: {error}");
                let open = self.skip(index, &cause, true);
                match rescued {
                    Some(Output::Replace(bytes)) if open => Ok((bytes, true)),
                    Some(_) if open => Ok((Vec::new(), false)),
                    _ => Err(Cut("a filter failed".into())),
                }
            }
        }
    }
}
