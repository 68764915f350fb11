//! Decisions out of a fuzzer's bytes. An input that has ended continues with zeros, so every input means something.

use crate::world::player::{FUNCTIONS, Operation, WILD, WILD_ROOM, tape};

/// Bytes, taken from the front.
pub(super) struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or_default()
    }

    pub(super) fn number(&mut self) -> u32 {
        u16::from_le_bytes([self.byte(), self.byte()]).into()
    }

    /// Up to so many bytes.
    pub(super) fn bytes(&mut self, size: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(size.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Bytes behind their length, at most so many.
    pub(super) fn string(&mut self, most: usize) -> &'a [u8] {
        let size = self.byte() as usize;
        // Long ones are rare: a mutated length must not swallow all that follows it.
        let size = if size >= 0xf0 { (size - 0xf0) * 64 } else { size % 64 };
        self.bytes(size.min(most))
    }

    /// Bytes for the arguments of tapes to point to.
    pub(super) fn wild(&mut self) -> Vec<&'a [u8]> {
        let count = u32::from(self.byte()) % (WILD / 2);
        (0..count).map(|_| self.string(WILD_ROOM as usize)).collect()
    }

    /// A tape of at most so many operations.
    pub(super) fn tape(&mut self, most: u8, wild: &[&[u8]]) -> Vec<u8> {
        let answer = u32::from(self.byte() % 4);
        let operations: Vec<Operation> =
            (0..self.byte() % (most + 1)).map(|_| self.operation()).collect();
        tape(answer, &operations, wild)
    }

    fn operation(&mut self) -> Operation {
        match self.byte() {
            255 => Operation::Trap,
            number @ 240..255 => Operation::Allocator(u32::from(number) % 6),
            number => {
                let index = usize::from(number) % FUNCTIONS.len();
                let params = FUNCTIONS[index].params.len();
                Operation::Call(index, (0..params).map(|_| self.number()).collect())
            }
        }
    }
}
