//! Header maps as a guest sees them.

/// An ordered list of headers with repeats, names in lower case.
///
/// All bytes lie in one buffer: a request's worth of headers is two allocations, and none once the map
/// has been used before.
#[derive(Clone, Debug, Default)]
pub struct HeaderMap {
    bytes: Vec<u8>,
    fields: Vec<Field>,
    /// Bytes of the names and values that are still there; the others lie about until [`HeaderMap::compact`].
    used: usize,
    given: (usize, usize),
}

/// Where a header is in the bytes of a map.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Where its name begins in the bytes of the map, and how long that is.
    pub name: (u32, u32),
    /// The same of its value.
    pub value: (u32, u32),
}

impl HeaderMap {
    /// An empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the headers and keeps a moderate amount of memory.
    #[inline]
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.fields.clear();
        self.used = 0;
        self.given = (0, 0);
        self.bytes.shrink_to(KEEP);
        self.fields.shrink_to(KEEP / size_of::<Field>());
    }

    /// Number of headers, repeats counted.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Bytes of all names and values, without separators.
    pub fn byte_size(&self) -> usize {
        self.used
    }

    /// Says that what is in it now is what the host gave.
    pub fn mark_given(&mut self) {
        let headers = self.fields.iter().filter(|f| !self.slice(f.name).starts_with(b":"));
        self.given = headers
            .fold((0, 0), |(count, bytes), f| (count + 1, bytes + (f.name.1 + f.value.1) as usize));
    }

    /// How many headers the host gave, without pseudo headers, and how many bytes: no cap on what a guest makes of a map
    /// counts them.
    pub fn given(&self) -> (usize, usize) {
        self.given
    }

    /// So many were given before.
    pub fn set_given(&mut self, given: (usize, usize)) {
        self.given = given;
    }

    /// Appends a header; the name is stored in lower case.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let at = self.bytes.len();
        self.push_lower(name, value);
        make_lower_case(&mut self.bytes[at..at + name.len()]);
    }

    /// The same for a name that is in lower case.
    pub fn push_lower(&mut self, name: &[u8], value: &[u8]) {
        let at = self.bytes.len() as u32;
        let (name_size, value_size) = (name.len() as u32, value.len() as u32);
        self.bytes.reserve(name.len() + value.len());
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.fields.push(Field { name: (at, name_size), value: (at + name_size, value_size) });
        self.used += name.len() + value.len();
    }

    /// Where the headers are in its bytes, in order, and these bytes.
    pub fn parts(&self) -> (&[Field], &[u8]) {
        (&self.fields, &self.bytes)
    }

    /// The headers in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|f| (self.slice(f.name), self.slice(f.value)))
    }

    /// The first value of that name, compared without case.
    #[inline]
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let has_name = |f: &&Field| {
            // Most names are told apart by their length, and most others are the same bytes: they are in lower case here.
            f.name.1 as usize == name.len() && {
                let known = self.slice(f.name);
                known == name || is_same(known, name)
            }
        };
        self.fields.iter().find(has_name).map(|f| self.slice(f.value))
    }

    /// Removes every header of that name; returns how many there were.
    pub fn remove(&mut self, name: &[u8]) -> usize {
        let before = self.fields.len();
        self.retain(|_, n| !n.eq_ignore_ascii_case(name));
        before - self.fields.len()
    }

    /// Gives the first header of that name this value and removes its repeats, or appends one.
    pub fn replace(&mut self, name: &[u8], value: &[u8]) {
        let Some(first) = self.iter().position(|(n, _)| n.eq_ignore_ascii_case(name)) else {
            self.push(name, value);
            return;
        };
        let value_at = self.store(value);
        let old = std::mem::replace(&mut self.fields[first].value, value_at);
        self.used = self.used - old.1 as usize + value.len();
        self.retain(|index, n| index <= first || !n.eq_ignore_ascii_case(name));
        if self.bytes.len() > 2 * self.used + KEEP {
            self.compact();
        }
    }

    /// Keeps the headers that the function, which gets their place and name, wants.
    fn retain(&mut self, mut keeps: impl FnMut(usize, &[u8]) -> bool) {
        let (bytes, used) = (&self.bytes, &mut self.used);
        let mut index = 0;
        self.fields.retain(|f| {
            let kept = keeps(index, slice_of(bytes, f.name));
            index += 1;
            if !kept {
                *used -= (f.name.1 + f.value.1) as usize;
            }
            kept
        });
    }

    /// A guest that replaces one header over and over would fill the memory with values that are no more.
    fn compact(&mut self) {
        let old = std::mem::take(self);
        self.given = old.given;
        self.bytes.reserve(old.used);
        for (name, value) in old.iter() {
            self.push(name, value);
        }
    }

    fn store(&mut self, part: &[u8]) -> (u32, u32) {
        let at = self.bytes.len() as u32;
        self.bytes.extend_from_slice(part);
        (at, part.len() as u32)
    }

    fn slice(&self, range: (u32, u32)) -> &[u8] {
        slice_of(&self.bytes, range)
    }
}

/// `make_ascii_lowercase`, eight bytes at a time: names are short.
#[inline]
fn make_lower_case(name: &mut [u8]) {
    let convert = |word: &mut [u8; 8]| *word = lower_case(u64::from_le_bytes(*word)).to_le_bytes();
    if name.len() < 8 {
        return name.make_ascii_lowercase();
    }
    name.as_chunks_mut().0.iter_mut().for_each(convert);
    // Some of it a second time, which changes nothing.
    if let Some(end) = name.last_chunk_mut() {
        convert(end);
    }
}

/// Eight bytes in lower case.
const fn lower_case(word: u64) -> u64 {
    const fn each(byte: u8) -> u64 {
        u64::from_le_bytes([byte; 8])
    }
    let high = each(0x80);
    let low_bits = word & !high;
    // The highest bit of each byte says whether it is at least that, or past it.
    let at_least_a = low_bits + each(0x80 - b'A');
    let past_z = low_bits + each(0x7f - b'Z');
    let is_capital = (at_least_a ^ past_z) & !word & high;
    word | is_capital >> 2
}

#[inline(never)]
fn is_same(known: &[u8], name: &[u8]) -> bool {
    known.eq_ignore_ascii_case(name)
}

/// What a used map keeps for its next use.
const KEEP: usize = 64 * 1024;

fn slice_of(bytes: &[u8], (at, len): (u32, u32)) -> &[u8] {
    &bytes[at as usize..(at + len) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(map: &HeaderMap) -> Vec<(String, String)> {
        map.iter()
            .map(|(n, v)| {
                (String::from_utf8_lossy(n).into_owned(), String::from_utf8_lossy(v).into_owned())
            })
            .collect()
    }

    #[test]
    fn names_compare_without_case_and_keep_order() {
        let mut map = HeaderMap::new();
        map.push(b"Accept", b"a");
        map.push(b"X-One", b"1");
        map.push(b"accept", b"b");
        assert_eq!(map.get(b"ACCEPT"), Some(&b"a"[..]));
        map.replace(b"Accept", b"c");
        assert_eq!(pairs(&map), [("accept".into(), "c".into()), ("x-one".into(), "1".into())]);
        assert_eq!(map.remove(b"X-ONE"), 1);
        assert_eq!(map.remove(b"x-one"), 0);
        assert_eq!(map.byte_size(), 7);
    }

    #[test]
    fn names_are_kept_in_lower_case() {
        let all: Vec<u8> = (0..=255).collect();
        for size in [1, 7, 8, 9, 15, 16, 17, 256] {
            for from in 0..=256 - size {
                let name = &all[from..from + size];
                let mut ours = name.to_vec();
                make_lower_case(&mut ours);
                assert_eq!(ours, name.to_ascii_lowercase());
            }
        }
    }

    #[test]
    fn replaced_values_do_not_pile_up() {
        let mut map = HeaderMap::new();
        map.push(b"a", b"kept");
        for _ in 0..1000 {
            map.replace(b"B", &[b'x'; 10_000]);
        }
        assert!(map.bytes.len() <= 2 * map.byte_size() + KEEP + 10_000, "{}", map.bytes.len());
        assert_eq!((map.len(), map.byte_size()), (2, 10_006));
        assert_eq!(map.get(b"a"), Some(&b"kept"[..]));
        assert_eq!(map.remove(b"b"), 1);
        assert_eq!(map.byte_size(), 5);
        map.clear();
        assert_eq!(map.byte_size(), 0);
        assert!(map.bytes.capacity() <= KEEP);
    }

    #[test]
    fn replace_of_a_missing_name_appends() {
        let mut map = HeaderMap::new();
        map.replace(b"A", b"");
        assert_eq!(map.get(b"a"), Some(&b""[..]));
        assert_eq!(map.get(b"b"), None);
    }
}
