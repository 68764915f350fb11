//! Header lines in their order, with their names as they were written.

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(Vec<u8>, Vec<u8>)>);

impl Headers {
    /// The lines in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The first value of that name.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// One more line.
    pub fn add(&mut self, name: &[u8], value: &[u8]) {
        self.0.push((name.to_vec(), value.to_vec()));
    }

    /// The first line of that name gets this value and the others go; without one a line is added.
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        match self.0.iter().position(|(n, _)| n.eq_ignore_ascii_case(name)) {
            None => self.add(name, value),
            Some(first) => {
                self.0[first] = (name.to_vec(), value.to_vec());
                let mut index = 0;
                self.0.retain(|(n, _)| {
                    index += 1;
                    index <= first + 1 || !n.eq_ignore_ascii_case(name)
                });
            }
        }
    }

    /// Every line of that name goes.
    pub fn remove(&mut self, name: &[u8]) {
        self.0.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
    }

    /// All lines go.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(lines: I) -> Self {
        Self(lines.into_iter().map(|(n, v)| (n.as_ref().to_vec(), v.as_ref().to_vec())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_keeps_the_place_of_the_first_line() {
        let mut headers: Headers =
            [("A", "1"), ("b", "2"), ("a", "3"), ("c", "4")].iter().copied().collect();
        headers.set(b"a", b"5");
        assert_eq!(headers, [("a", "5"), ("b", "2"), ("c", "4")].iter().copied().collect());
        headers.set(b"d", b"6");
        headers.remove(b"B");
        assert_eq!(headers, [("a", "5"), ("c", "4"), ("d", "6")].iter().copied().collect());
        assert_eq!((headers.get(b"C"), headers.get(b"b")), (Some(&b"4"[..]), None));
    }
}
