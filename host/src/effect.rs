//! Effects: the changes that a guest callback asks the host to make, in order.

use crate::limits;

/// Kinds of effects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EffectKind {
    /// Request header `name` gets `value` and no other.
    SetRequestHeader,
    /// One more request header line; `number` as of [`EffectKind::AddResponseHeader`].
    AddRequestHeader,
    /// Every request header of that name goes.
    RemoveRequestHeader,
    /// Response header `name` gets `value` and no other.
    SetResponseHeader,
    /// One more response header line; `number` may be 1 when it is [plain](crate::codec::header::is_plain).
    AddResponseHeader,
    /// Every response header of that name goes.
    RemoveResponseHeader,
    /// The request method is the value; `number` is 1 when the request is to be passed on by that
    /// name, and handled as the client's method otherwise.
    SetMethod,
    /// Path (name) of the request, decoded, and the target as it is to stand in the request line (value). `number` says
    /// where the query begins in that, 0 that there is none; it ends before a `#`.
    SetPath,
    /// The response status is `number`.
    SetStatus,
    /// A local response: status in `number`, body in the value. Its headers follow.
    LocalResponse,
    /// A header of the local response.
    LocalResponseHeader,
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
    size: Size,
}

/// What the caps count of effects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Their number.
    pub effects: usize,
    /// Bytes of their names and values, without the body of a local response, which has a cap of its own.
    pub bytes: usize,
    /// Headers that were set or added.
    pub lines: usize,
    /// See [`limits::COMPARED_BYTES`].
    pub compared: usize,
}

impl Size {
    /// Adds an effect to what is there.
    pub fn add(&mut self, kind: EffectKind, name: &[u8], value: &[u8]) {
        const LINES_OF_OTHERS: usize = 128;
        self.effects += 1;
        let search = name.len() * (self.lines + LINES_OF_OTHERS);
        match kind {
            EffectKind::LocalResponse => return,
            EffectKind::SetMethod | EffectKind::SetPath | EffectKind::SetStatus => {}
            EffectKind::RemoveRequestHeader | EffectKind::RemoveResponseHeader => {
                self.compared += search;
            }
            EffectKind::SetRequestHeader
            | EffectKind::SetResponseHeader
            | EffectKind::LocalResponseHeader => {
                self.compared += search;
                self.lines += 1;
            }
            EffectKind::AddRequestHeader | EffectKind::AddResponseHeader => self.lines += 1,
        }
        self.bytes += name.len() + value.len();
    }

    /// Whether no cap is passed.
    pub fn fits(&self) -> bool {
        self.effects <= limits::EFFECTS
            && self.bytes <= limits::EFFECT_BYTES
            && self.compared <= limits::COMPARED_BYTES
    }
}

#[derive(Clone, Copy, Debug)]
struct Stored {
    kind: EffectKind,
    number: i32,
    at: u32,
    name: u32,
    value: u32,
}

/// The list is full; see [`limits::EFFECTS`] and those after it.
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
        let mut size = self.size;
        size.add(kind, name, value);
        if !size.fits() {
            return Err(Full);
        }
        self.push_counted(size, kind, number, name, value);
        Ok(())
    }

    /// The same for one with which the caps count that, and which fits.
    #[inline(always)]
    pub fn push_counted(
        &mut self,
        size: Size,
        kind: EffectKind,
        number: i32,
        name: &[u8],
        value: &[u8],
    ) {
        self.size = size;
        let at = self.bytes.len() as u32;
        self.bytes.reserve(name.len() + value.len());
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.list.push(Stored {
            kind,
            number,
            at,
            name: name.len() as u32,
            value: value.len() as u32,
        });
    }

    /// What the caps count so far.
    pub fn size(&self) -> Size {
        self.size
    }

    /// Takes all effects out. Their cost still counts towards the caps.
    pub fn take_into(&mut self, taken: &mut Self) {
        let size = Size { effects: 0, bytes: 0, ..self.size };
        std::mem::swap(self, taken);
        self.clear();
        self.size = size;
    }

    /// Forgets the effects. Their cost still counts towards the caps.
    #[inline]
    pub fn drop_waiting(&mut self) {
        let size = Size { effects: 0, bytes: 0, ..self.size };
        self.clear();
        self.size = size;
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
    #[inline]
    pub fn clear(&mut self) {
        self.list.clear();
        self.bytes.clear();
        self.size = Size::default();
        self.bytes.shrink_to(KEEP);
        self.list.shrink_to(KEEP / size_of::<Stored>());
    }
}

/// What a used list keeps for its next use.
const KEEP: usize = 64 * 1024;
