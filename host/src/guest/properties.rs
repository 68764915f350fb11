//! What guests keep under property paths that the host does not know.

use crate::limits;

/// Values by path, in the order in which they came; few enough for a linear search.
#[derive(Debug, Default)]
pub struct Properties {
    list: Vec<(Vec<u8>, Vec<u8>)>,
    bytes: usize,
}

impl Properties {
    /// The value kept under that path.
    pub fn get(&self, path: &[u8]) -> Option<&[u8]> {
        self.list.iter().find(|(p, _)| p == path).map(|(_, v)| v.as_slice())
    }

    /// Keeps a value; false when [`limits::PROPERTIES`] or [`limits::PROPERTY_BYTES`] would be passed.
    pub fn set(&mut self, path: &[u8], value: &[u8]) -> bool {
        let known = self.list.iter().position(|(p, _)| p == path);
        let freed = known.map_or(0, |at| path.len() + self.list[at].1.len());
        let bytes = self.bytes - freed + path.len() + value.len();
        if bytes > limits::PROPERTY_BYTES
            || (known.is_none() && self.list.len() >= limits::PROPERTIES)
        {
            return false;
        }
        self.bytes = bytes;
        match known {
            Some(at) => self.list[at].1 = value.to_vec(),
            None => self.list.push((path.to_vec(), value.to_vec())),
        }
        true
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.list.clear();
        self.bytes = 0;
    }

    /// What they count towards [`limits::ALL_PROPERTY_BYTES`].
    pub fn size(&self) -> usize {
        self.bytes + self.list.len() * OVERHEAD
    }

    /// What keeping a value would add to [`Properties::size`] at the most.
    pub fn size_of_one(path: &[u8], value: &[u8]) -> usize {
        path.len() + value.len() + OVERHEAD
    }
}

/// What the lists and the allocator add to one.
const OVERHEAD: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_replaced_and_capped() {
        let mut kept = Properties::default();
        assert!(kept.set(b"a", b"1") && kept.set(b"a", b"22"));
        assert_eq!(kept.get(b"a"), Some(&b"22"[..]));
        assert!(!kept.set(b"b", &vec![0; limits::PROPERTY_BYTES]));
        assert!(kept.set(b"a", &vec![0; limits::PROPERTY_BYTES - 1]));
        assert!(kept.set(b"a", b""));
        for i in 1..limits::PROPERTIES {
            assert!(kept.set(&i.to_le_bytes(), b""), "{i}");
        }
        assert!(!kept.set(b"one more", b""));
        assert!(kept.set(b"a", b"known paths still change"));
    }
}
