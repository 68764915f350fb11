//! What a guest callback asks of nginx, in the order in which it asked.

use crate::limits;

/// Kinds of effects. The numbers are part of the C ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum EffectKind {
    /// Request header `name` gets `value` and no other.
    SetRequestHeader = 1,
    /// One more request header line.
    AddRequestHeader = 2,
    /// Every request header of that name goes.
    RemoveRequestHeader = 3,
    /// Response header `name` gets `value` and no other.
    SetResponseHeader = 4,
    /// One more response header line.
    AddResponseHeader = 5,
    /// Every response header of that name goes.
    RemoveResponseHeader = 6,
    /// The request method is the value.
    SetMethod = 7,
    /// Path (name) and query (value) of the request; `number` is 1 when there is a query.
    SetPath = 8,
    /// The response status is `number`.
    SetStatus = 9,
    /// A local response: status in `number`, body in the value. Its headers follow.
    LocalResponse = 10,
    /// A header of the local response.
    LocalResponseHeader = 11,
}

/// One effect, borrowed from the list that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect<'a> {
    /// What to do.
    pub kind: EffectKind,
    /// A number, where the kind has one.
    pub number: i32,
    /// A name, where the kind has one.
    pub name: &'a [u8],
    /// A value, where the kind has one.
    pub value: &'a [u8],
}

/// An ordered list of effects, all bytes in one buffer.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    bytes: Vec<u8>,
    list: Vec<Stored>,
}

#[derive(Clone, Copy, Debug)]
struct Stored {
    kind: EffectKind,
    number: i32,
    at: u32,
    name: u32,
    value: u32,
}

/// The list is full; see [`limits::EFFECTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Effects {
    /// Appends an effect.
    pub fn push(
        &mut self,
        kind: EffectKind,
        number: i32,
        name: &[u8],
        value: &[u8],
    ) -> Result<(), Full> {
        let size = name.len() + value.len();
        if self.list.len() >= limits::EFFECTS || self.bytes.len() + size > limits::EFFECT_BYTES {
            return Err(Full);
        }
        let at = self.bytes.len() as u32;
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.list.push(Stored {
            kind,
            number,
            at,
            name: name.len() as u32,
            value: value.len() as u32,
        });
        Ok(())
    }

    /// The effects in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Effect<'_>> {
        self.list.iter().map(|s| {
            let name_end = (s.at + s.name) as usize;
            Effect {
                kind: s.kind,
                number: s.number,
                name: &self.bytes[s.at as usize..name_end],
                value: &self.bytes[name_end..name_end + s.value as usize],
            }
        })
    }

    /// True when nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Forgets the effects and keeps a moderate amount of memory.
    pub fn clear(&mut self) {
        self.list.clear();
        self.bytes.clear();
        self.bytes.shrink_to(KEEP);
    }
}

/// What a used list keeps for its next use.
const KEEP: usize = 64 * 1024;
