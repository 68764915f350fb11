//! The body of one direction, as a guest sees it: the chunk of the event, behind what was held before.

use crate::event::Action;
use crate::limits;

/// See the module.
#[derive(Debug)]
pub struct Body {
    /// What was held, with the event's chunk behind it; meaningful while `owned`.
    held: Vec<u8>,
    /// The event's chunk, lent for the call; meaningful while not `owned`.
    chunk: &'static [u8],
    owned: bool,
    edited: bool,
    /// The guest's callback runs, or the stream is paused in it.
    available: bool,
    /// How much may be held, see [`limits::HELD_BODY`].
    hold_room: usize,
    /// How large it may become, see [`limits::BODY`].
    room: usize,
}

impl Default for Body {
    fn default() -> Self {
        Self {
            held: Vec::new(),
            chunk: &[],
            owned: false,
            edited: false,
            available: false,
            hold_room: limits::HELD_BODY,
            room: limits::BODY,
        }
    }
}

/// What nginx passes on after a body callback.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// The chunk as it came.
    Unchanged,
    /// These bytes in place of the chunk.
    Replace(Vec<u8>),
    /// These bytes, which are what was held and the chunk, with no change. Of piecewise request bodies only: for others
    /// it is a replacement.
    Pass(Vec<u8>),
    /// Nothing: the chunk is held.
    Hold,
}

impl Body {
    /// Says, before an event, what the VM holds for other bodies, and what earlier chunks of this one have become
    /// larger by: both make room scarcer.
    pub fn leave_room(&mut self, held: usize, grown: usize) {
        self.hold_room = limits::HELD_BODY.min(limits::HELD_BODIES.saturating_sub(held));
        self.room = limits::BODY.saturating_sub(grown);
    }

    /// Bytes that the host keeps for the guest between events.
    pub fn held_size(&self) -> usize {
        if self.owned { self.held.len() } else { 0 }
    }

    /// Takes an event's chunk in.
    pub fn begin(&mut self, chunk: &'static [u8]) {
        self.available = true;
        if self.owned {
            self.held.extend_from_slice(chunk);
        } else {
            self.chunk = chunk;
        }
    }

    /// Ends the event. A body past [`limits::HELD_BODY`], or without the room for it, is not held, whatever the guest
    /// asked.
    pub fn end(&mut self, action: Action, end_of_stream: bool) -> Output {
        let hold = action == Action::Pause && !end_of_stream && !self.over_limit();
        self.available = false;
        if hold {
            self.own();
            return Output::Hold;
        }
        self.chunk = &[];
        let replaced = self.owned;
        self.owned = false;
        self.edited = false;
        if replaced { Output::Replace(std::mem::take(&mut self.held)) } else { Output::Unchanged }
    }

    /// All that a guest which failed in an event, or before it, was shown and holds; `None` when that is the event's chunk.
    pub fn rescue(&mut self) -> Option<Vec<u8>> {
        std::mem::take(&mut self.owned).then(|| std::mem::take(&mut self.held))
    }

    /// Lets go of the lent chunk when the event did not come to its end.
    pub fn release(&mut self) {
        self.available = false;
        self.chunk = &[];
    }

    /// The bytes that the guest may read, or `None` outside the body's callbacks.
    pub fn readable(&self) -> Option<&[u8]> {
        self.available.then(|| self.content())
    }

    /// Bytes held from earlier chunks and this one.
    pub fn content(&self) -> &[u8] {
        if self.owned { &self.held } else { self.chunk }
    }

    /// Whether a chunk would have to be passed on although the guest wants it held.
    pub fn over_limit(&self) -> bool {
        self.content().len() > self.hold_room
    }

    /// Replaces `size` bytes at `start` by `value`; both are clamped to the content, so `start` at or past
    /// its end appends. False when the result would pass [`limits::BODY`].
    pub fn splice(&mut self, start: usize, size: usize, value: &[u8]) -> bool {
        let len = self.content().len();
        let start = start.min(len);
        let end = start.saturating_add(size).min(len);
        if len - (end - start) + value.len() > self.room {
            return false;
        }
        self.edited = true;
        if start == 0 && end == len {
            self.held.clear();
            self.held.extend_from_slice(value);
            self.owned = true;
            self.chunk = &[];
        } else {
            self.own();
            self.held.splice(start..end, value.iter().copied());
        }
        true
    }

    /// True when the guest changed what it was shown.
    pub fn edited(&self) -> bool {
        self.edited
    }

    fn own(&mut self) {
        if !self.owned {
            self.held.clear();
            self.held.extend_from_slice(self.chunk);
            self.owned = true;
            self.chunk = &[];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(start: usize, size: usize, value: &[u8]) -> Vec<u8> {
        let mut body = Body::default();
        body.begin(b"hello");
        assert!(body.splice(start, size, value));
        match body.end(Action::Continue, true) {
            Output::Replace(bytes) => bytes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_four_ways_to_write() {
        assert_eq!(edited(0, 0, b"x"), b"xhello");
        assert_eq!(edited(0, 5, b"x"), b"x");
        assert_eq!(edited(0, usize::MAX, b""), b"");
        assert_eq!(edited(5, 0, b"x"), b"hellox");
        assert_eq!(edited(usize::MAX, usize::MAX, b"x"), b"hellox");
        assert_eq!(edited(1, 3, b"ipp"), b"hippo");
        assert_eq!(edited(1, 0, b"--"), b"h--ello");
    }

    #[test]
    fn held_chunks_come_again_with_the_next_one() {
        let mut body = Body::default();
        body.begin(b"ab");
        assert_eq!(body.end(Action::Pause, false), Output::Hold);
        assert_eq!(body.readable(), None);
        body.begin(b"cd");
        assert_eq!(body.readable(), Some(&b"abcd"[..]));
        assert_eq!(body.end(Action::Continue, false), Output::Replace(b"abcd".to_vec()));
        body.begin(b"ef");
        assert_eq!(body.end(Action::Continue, true), Output::Unchanged);
    }

    #[test]
    fn the_end_sends_all_that_is_left_even_when_the_guest_pauses() {
        let mut body = Body::default();
        body.begin(b"ab");
        body.end(Action::Pause, false);
        body.begin(b"");
        assert_eq!(body.end(Action::Pause, true), Output::Replace(b"ab".to_vec()));
    }

    #[test]
    fn no_more_than_the_cap_is_held() {
        let mut body = Body::default();
        body.begin(vec![0; limits::HELD_BODY].leak());
        assert_eq!(body.end(Action::Pause, false), Output::Hold);
        body.begin(b"x");
        assert!(body.over_limit());
        let Output::Replace(all) = body.end(Action::Pause, false) else { panic!() };
        assert_eq!(all.len(), limits::HELD_BODY + 1);
    }
}
