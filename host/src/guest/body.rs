//! The body of one direction, as a guest sees it: the chunk of the event, behind what was held before.

use super::lent::Lent;
use crate::event::Action;
use crate::limits;

/// See the module.
#[derive(Debug)]
pub struct Body {
    /// What was held, with the event's chunk behind it; meaningful while `owned`.
    held: Vec<u8>,
    /// The event's chunk, lent for the call; meaningful while not `owned`.
    chunk: Lent,
    owned: bool,
    edited: bool,
    /// It can be changed no more.
    fixed: bool,
    /// Something was done with it, so it is not what [`Body::default`] is.
    used: bool,
    /// The guest's callback runs, or what it was shown there is held.
    available: bool,
    course: Course,
    /// How much may be held, see [`Body::leave_room`].
    hold_room: usize,
    /// How large it may become, see [`limits::BODY`].
    room: usize,
}

/// What happens to the rest of a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Course {
    /// The guest is shown it.
    #[default]
    Shown,
    /// It continues, and the guest is told of it no more.
    PassedOn,
    /// Nothing of it is passed on.
    Dropped,
}

impl Default for Body {
    fn default() -> Self {
        Self {
            held: Vec::new(),
            chunk: Lent::default(),
            owned: false,
            edited: false,
            fixed: false,
            used: false,
            available: false,
            course: Course::Shown,
            hold_room: limits::HELD_BODY,
            room: limits::BODY,
        }
    }
}

/// What the host passes on after a body callback.
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
    /// Whether anything was done with it.
    pub fn is_used(&self) -> bool {
        self.used
    }

    /// Says, before an event, how much may be held, and what earlier chunks of this body have become larger by, which
    /// makes room scarcer.
    pub fn leave_room(&mut self, hold_room: usize, grown: usize) {
        self.used = true;
        self.hold_room = hold_room;
        self.room = limits::BODY.saturating_sub(grown);
    }

    /// The same for a change between events: what is held may become so large.
    pub fn leave_room_between(&mut self, room: usize, grown: usize) {
        self.used = true;
        self.room = limits::BODY.saturating_sub(grown).min(room);
    }

    /// The guest can change it no more: what of it has passed is not there to be written before a change.
    pub fn fix(&mut self) {
        self.used = true;
        self.fixed = true;
    }

    /// Bytes that the host keeps for the guest between events.
    pub fn held_size(&self) -> usize {
        if self.owned { self.held.len() } else { 0 }
    }

    /// What happens to the rest of it.
    pub fn course(&self) -> Course {
        self.course
    }

    /// Takes an event's chunk in.
    ///
    /// # Safety
    /// [`Body::return_chunk`] is called before the chunk is gone.
    #[allow(unsafe_code, reason = "the chunk is kept by its address")]
    pub unsafe fn begin(&mut self, chunk: &[u8]) {
        self.used = true;
        self.available = true;
        if self.owned {
            self.held.extend_from_slice(chunk);
        } else {
            // SAFETY: as promised by the caller.
            self.chunk = unsafe { Lent::new(chunk) };
        }
    }

    /// Ends the event. The end of a body is held by [`Body::hold`] only.
    pub fn end(&mut self, action: Action, end_of_stream: bool) -> Output {
        if action == Action::Pause && !end_of_stream {
            return self.hold();
        }
        self.available = false;
        self.chunk = Lent::default();
        let replaced = self.owned;
        self.owned = false;
        self.edited = false;
        if replaced { Output::Replace(std::mem::take(&mut self.held)) } else { Output::Unchanged }
    }

    /// Ends the event by holding all of the body so far.
    pub fn hold(&mut self) -> Output {
        self.used = true;
        self.own();
        Output::Hold
    }

    /// The guest is told no more of this body. With `goes_on` the rest continues, and what is held is there for
    /// [`Body::rescue`]; else all of it is dropped.
    pub fn give_up(&mut self, goes_on: bool) {
        self.used = true;
        self.available = false;
        if goes_on {
            self.course = Course::PassedOn;
            // The event's chunk as it came is what is passed on by itself.
            self.chunk = Lent::default();
        } else {
            self.course = Course::Dropped;
            self.forget();
        }
    }

    /// Drops what the guest was shown and holds: nothing of that is passed on. False after [`Body::fix`].
    pub fn drop_content(&mut self) -> bool {
        if !self.fixed {
            self.held.clear();
            self.chunk = Lent::default();
            (self.owned, self.edited) = (true, true);
        }
        !self.fixed
    }

    /// Lets go of all that it keeps.
    pub fn forget(&mut self) {
        self.release();
        self.owned = false;
        self.edited = false;
        self.held = Vec::new();
    }

    /// What is passed on of a body whose event failed: all that the guest was shown and holds.
    pub fn rescue(&mut self) -> Output {
        if self.course == Course::Dropped {
            Output::Hold
        } else if std::mem::take(&mut self.owned) {
            Output::Replace(std::mem::take(&mut self.held))
        } else {
            Output::Unchanged
        }
    }

    /// Ends the loan of the event's chunk. What is held stays.
    pub fn return_chunk(&mut self) {
        self.chunk = Lent::default();
    }

    /// Ends the loan of the chunk when the event did not come to its end.
    pub fn release(&mut self) {
        self.available = false;
        self.chunk = Lent::default();
    }

    /// The bytes that the guest may read: in the body's callbacks, and while they are held. Else `None`.
    pub fn readable(&self) -> Option<&[u8]> {
        self.available.then(|| self.content())
    }

    /// Bytes held from earlier chunks and this one.
    pub fn content(&self) -> &[u8] {
        if self.owned { &self.held } else { self.chunk.bytes() }
    }

    /// Whether it is more than may be held.
    pub fn over_limit(&self) -> bool {
        self.content().len() > self.hold_room
    }

    /// Replaces `size` bytes at `start` by `value`; both are clamped to the content, so `start` at or past
    /// its end appends. False when the result would pass [`limits::BODY`], or after [`Body::fix`].
    pub fn splice(&mut self, start: usize, size: usize, value: &[u8]) -> bool {
        self.used = true;
        let len = self.content().len();
        let start = start.min(len);
        let end = start.saturating_add(size).min(len);
        if self.fixed || len - (end - start) + value.len() > self.room {
            return false;
        }
        self.edited = true;
        if start == 0 && end == len {
            self.held.clear();
            self.held.extend_from_slice(value);
            self.owned = true;
            self.chunk = Lent::default();
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
            self.held.extend_from_slice(self.chunk.bytes());
            self.owned = true;
            self.chunk = Lent::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(unsafe_code, reason = "the bytes live for ever")]
    fn begin(body: &mut Body, chunk: &'static [u8]) {
        // SAFETY: as said.
        unsafe { body.begin(chunk) }
    }

    fn edited(start: usize, size: usize, value: &[u8]) -> Vec<u8> {
        let mut body = Body::default();
        begin(&mut body, b"hello");
        assert!(body.splice(start, size, value));
        match body.end(Action::Continue, false) {
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
        begin(&mut body, b"ab");
        assert_eq!(body.hold(), Output::Hold);
        assert_eq!(body.readable(), Some(&b"ab"[..]), "also between events");
        begin(&mut body, b"cd");
        assert_eq!(body.readable(), Some(&b"abcd"[..]));
        assert_eq!(body.end(Action::Continue, false), Output::Replace(b"abcd".to_vec()));
        assert_eq!(body.readable(), None);
        begin(&mut body, b"ef");
        assert_eq!(body.end(Action::Continue, false), Output::Unchanged);
    }

    #[test]
    fn room_is_counted_with_what_is_held() {
        let mut body = Body::default();
        body.leave_room(3, 0);
        begin(&mut body, b"ab");
        assert!(!body.over_limit());
        body.hold();
        begin(&mut body, b"cd");
        assert!(body.over_limit());
    }

    #[test]
    fn a_body_that_is_given_up() {
        for (goes_on, course, output) in [
            (true, Course::PassedOn, Output::Replace(b"abcd".to_vec())),
            (false, Course::Dropped, Output::Hold),
        ] {
            let mut body = Body::default();
            begin(&mut body, b"ab");
            body.hold();
            begin(&mut body, b"cd");
            body.give_up(goes_on);
            assert_eq!((body.course(), body.readable()), (course, None));
            assert_eq!(body.rescue(), output);
            assert_eq!(body.held_size(), 0);
        }
    }
}
