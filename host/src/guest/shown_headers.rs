//! The headers that are shown to a guest: they lie in a memory of their own, in which WebAssembly looks them up by name, see
//! `vm/shim/look_up.rs`.
//!
//! To call the host for a header takes longer than to find it. To show headers takes a while, too. So they are shown when a
//! callback asks for the second one, and from the beginning where the same callback did so before.
//!
//! | address | |
//! | --- | --- |
//! | [`MAP`] | eight bytes: the number of the map that is shown and 1 more, or [`NONE`] |
//! | [`RUNNING`] | runs of the guest's allocator for values that lie here, which stay as they are meanwhile |
//! | [`LAST_WORD`] | the last address at which the guest's memory has four bytes |
//! | [`LEAST`] | names that are shorter than this are for the host |
//! | [`MISSING`] | what is answered for a name that is not there |
//! | [`USED`] | 1 when something was looked up |
//! | [`PLACES`] | for each hash of a name the address of the first header that has it, 0 for none: a hash table |
//! | [`FIELDS`] | of each header the 40 bytes that [`FIRST`] and those after it divide |
//! | [`BYTES`] | names and values |

use super::cached_memory::CachedMemory;
use crate::abi::MapType;
use crate::snapshot::HeaderMap;

/// Where things are in the memory.
pub const MAP: u32 = 0;
/// See [`MAP`].
pub const RUNNING: u32 = 28;
/// See [`MAP`].
pub const LAST_WORD: u32 = 8;
/// See [`MAP`].
pub const LEAST: u32 = 16;
/// See [`MAP`].
pub const MISSING: u32 = 20;
/// See [`MAP`].
pub const USED: u32 = 24;
/// See [`MAP`]. Each has two bytes.
pub const PLACES: u32 = 32;
/// See [`MAP`].
pub const FIELDS: u32 = PLACES + 2 * (1 << HASH_BITS);
/// See [`MAP`].
pub const BYTES: u32 = FIELDS + MOST as u32 * FIELD as u32;

/// No map is shown. So it is before the host has seen the memory: a guest with a start section may ask by then.
pub const NONE: u32 = 0;

/// Of a header: the first eight bytes of its name. Of a shorter name the first four and the last four.
pub const FIRST: u32 = 0;
/// The last eight, or the same as [`FIRST`].
pub const LAST: u32 = 8;
/// The length of its name.
pub const NAME_SIZE: u32 = 16;
/// Where that begins in [`BYTES`].
pub const NAME_AT: u32 = 20;
/// Where its value begins there.
pub const VALUE_AT: u32 = 24;
/// The length of its value.
pub const VALUE_SIZE: u32 = 28;
/// The address of the next header whose name has the same hash, 0 for none.
pub const NEXT: u32 = 32;
/// The size of all that.
pub const FIELD: usize = 40;

/// A hash is the upper bits of `(first ^ last.rotate_left(HASH_ROTATION)) * HASH_FACTOR`, of what is at [`FIRST`] and [`LAST`].
pub const HASH_BITS: u32 = 6;
/// See [`HASH_BITS`].
pub const HASH_ROTATION: u32 = 5;
/// See [`HASH_BITS`].
pub const HASH_FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;

/// Headers for which there is room.
const MOST: usize = 256;

/// The size of the memory: one page.
const PAGE: usize = 65536;

/// Bytes of names and values for which there is room.
const ROOM: usize = PAGE - BYTES as usize;

/// Maps whose headers are shown: those of the request and those of the response.
const MAPS: [MapType; 2] = [MapType::RequestHeaders, MapType::ResponseHeaders];

/// See the module. Without a memory nothing is shown.
#[derive(Default)]
pub struct ShownHeaders {
    memory: CachedMemory,
    /// Asked for since something was hidden last.
    asked: u32,
    /// What the last callback for the headers of a map asked for: more than one of them.
    expected: [bool; MAPS.len()],
}

impl ShownHeaders {
    /// Shows headers in that memory from now on. It is one page and does not grow.
    pub fn set_memory(&mut self, memory: &mut [u8]) {
        self.memory.keep(memory);
    }

    /// Whether there is a memory: the guest asks for headers.
    #[inline]
    pub fn is_there(&self) -> bool {
        self.memory.is_kept()
    }

    /// The headers are about to change, or to be those of another context.
    #[inline]
    pub fn hide(&mut self) {
        self.asked = 0;
        if let Some(memory) = self.memory()
            && get(memory, MAP) != NONE
        {
            let (map, was_used) = (get(memory, MAP), get(memory, USED) != 0);
            put(memory, MAP, NONE);
            if let Some(at) = MAPS.iter().position(|known| *known as u32 + 1 == map) {
                self.expected[at] = was_used;
            }
        }
    }

    /// Whether the headers of a map are best shown when the callback for them begins.
    #[inline]
    pub fn expects(&self, map: MapType) -> bool {
        place(map).is_some_and(|at| self.expected[at])
    }

    /// The host was asked for a header. True when the headers of that map are best shown now.
    #[inline]
    pub fn ask(&mut self, map: MapType) -> bool {
        self.asked += 1;
        self.asked == 2 && place(map).is_some()
    }

    /// Shows headers, if there is room for them. `missing` is what a guest is answered for a name that they do not have,
    /// `memory_size` the number of bytes of its memory.
    pub fn show(&mut self, map: MapType, headers: &HeaderMap, missing: i32, memory_size: usize) {
        let (fields, bytes) = headers.parts();
        if fields.len() > MOST || bytes.len() > ROOM {
            return;
        }
        let Some(memory) = self.memory().filter(|memory| get(memory, RUNNING) == 0) else { return };
        put(memory, MAP, map as u32 + 1);
        // The guest's memory may grow meanwhile, and this stays: for addresses behind it the host is asked.
        put_word(memory, LAST_WORD, (memory_size as u64).saturating_sub(4));
        // `host` is `:authority` under its old name.
        put(memory, LEAST, if map == MapType::RequestHeaders { 5 } else { 4 });
        put(memory, MISSING, missing as u32);
        put(memory, USED, 0);
        let (front, rest) = memory.split_at_mut(FIELDS as usize);
        let (places, _) = front[PLACES as usize..].as_chunks_mut::<2>();
        places.fill([0; 2]);
        let (table, rest) = rest.split_at_mut((BYTES - FIELDS) as usize);
        let (table, _) = table.as_chunks_mut::<FIELD>();
        // From the last one on, so that of those with one name the first is found.
        for (index, (field, out)) in fields.iter().zip(table).enumerate().rev() {
            let (name_at, name_size) = field.name;
            let (first, last) = ends(&bytes[name_at as usize..][..name_size as usize]);
            let place = &mut places[hash(first, last)];
            let next = u16::from_le_bytes(*place);
            *place = (FIELDS as u16 + (index * FIELD) as u16).to_le_bytes();
            let [name, value] = [(name_size, name_at), field.value]
                .map(|(low, high)| u64::from(low) | u64::from(high) << 32);
            let words = [first, last, name, value, next.into()];
            for (out, word) in out.as_chunks_mut::<8>().0.iter_mut().zip(words) {
                *out = word.to_le_bytes();
            }
        }
        rest[..bytes.len()].copy_from_slice(bytes);
    }

    #[inline]
    fn memory(&mut self) -> Option<&mut [u8; PAGE]> {
        // SAFETY: the memory is that of `set_memory`, where it stays, and all references to it come from here.
        unsafe { self.memory.bytes() }?.first_chunk_mut()
    }
}

/// Where a map has its place in a list.
fn place(map: MapType) -> Option<usize> {
    MAPS.iter().position(|known| *known == map)
}

/// See [`FIRST`] and [`LAST`]. Of names that the host is asked for nothing.
fn ends(name: &[u8]) -> (u64, u64) {
    if let (Some(first), Some(last)) = (name.first_chunk(), name.last_chunk()) {
        return (u64::from_le_bytes(*first), u64::from_le_bytes(*last));
    }
    let (Some(first), Some(last)) = (name.first_chunk(), name.last_chunk()) else { return (0, 0) };
    let both = u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32;
    (both, both)
}

fn get(memory: &[u8; PAGE], at: u32) -> u32 {
    let bytes = memory[at as usize..].first_chunk();
    bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn hash(first: u64, last: u64) -> usize {
    let mixed = (first ^ last.rotate_left(HASH_ROTATION)).wrapping_mul(HASH_FACTOR);
    (mixed >> (u64::BITS - HASH_BITS)) as usize
}

fn put_word(memory: &mut [u8], at: u32, number: u64) {
    memory[at as usize..][..8].copy_from_slice(&number.to_le_bytes());
}

fn put(memory: &mut [u8], at: u32, number: u32) {
    memory[at as usize..][..4].copy_from_slice(&number.to_le_bytes());
}
