//! Where an answer of a Redis server ends, in RESP2 and RESP3.
//!
//! It looks at each byte once, however the bytes come, and keeps nothing but how deep it is in the answer: a server can make
//! it neither begin again, nor recurse, nor make room for what it only announces.
//!
//! Source: the "Redis serialization protocol specification", and the RESP3 specification for what streams.

use crate::limits;

/// What the bytes up to a place are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A whole answer.
    Answer,
    /// A message that answers nothing (RESP3).
    Push,
}

/// Why no more can be made of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// They are no answer.
    Malformed,
    /// The answer is larger, or deeper, than what is held of one.
    TooLarge,
}

#[derive(Clone, Copy, Debug)]
enum Open {
    /// An aggregate with so many elements to come.
    Items(u64),
    /// Attributes, which come before an element and are none.
    Attributes(u64),
    /// An aggregate that `.` ends.
    Until,
    /// A string in chunks.
    Chunks,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Scanner {
    open: Vec<Open>,
    /// Bytes of the answer that were looked at.
    at: usize,
    /// Bytes of a string that are still to come, with the end of its line.
    skip: usize,
    /// The answer is a push.
    is_push: bool,
}

/// The longest line: a status, an error, a number.
const LINE: usize = 64 * 1024;
/// Aggregates in aggregates.
const DEPTH: usize = 128;
/// The smallest element: `_` and the end of the line.
const SMALLEST: u64 = 3;

impl Scanner {
    /// Looks at what is there of an answer, from its first byte on. `Some` with what it is and its length when it is whole;
    /// the next call is about what comes behind it. The caller keeps the bytes of an answer until it is whole.
    pub fn scan(&mut self, answer: &[u8]) -> Result<Option<(Found, usize)>, Broken> {
        loop {
            if self.skip > 0 {
                let there = answer.len() - self.at;
                if there < self.skip {
                    return Ok(None);
                }
                self.at += self.skip;
                self.skip = 0;
                if answer.get(self.at - 2..self.at) != Some(b"\r\n") {
                    return Err(Broken::Malformed);
                }
                let is_chunk = matches!(self.open.last(), Some(Open::Chunks));
                if !is_chunk && self.end_element() {
                    return Ok(Some(self.begin_next()));
                }
            }
            let rest = &answer[self.at..];
            let Some(end) = memchr::memchr(b'\n', &rest[..rest.len().min(LINE)]) else {
                return if rest.len() >= LINE { Err(Broken::TooLarge) } else { Ok(None) };
            };
            let line = rest[..end].strip_suffix(b"\r").ok_or(Broken::Malformed)?;
            let (kind, text) = line.split_first().ok_or(Broken::Malformed)?;
            self.at += end + 1;
            if self.line(*kind, text)? && self.end_element() {
                return Ok(Some(self.begin_next()));
            }
            if self.at + self.skip > limits::CALL_BODY {
                return Err(Broken::TooLarge);
            }
        }
    }

    /// Takes a line. True when it ends an element.
    fn line(&mut self, kind: u8, text: &[u8]) -> Result<bool, Broken> {
        let in_chunks = matches!(self.open.last(), Some(Open::Chunks));
        match kind {
            b';' if in_chunks => {
                let size = number(text)?.ok_or(Broken::Malformed)?;
                if size == 0 {
                    self.open.pop();
                    return Ok(true);
                }
                self.string(size)?;
                Ok(false)
            }
            _ if in_chunks => Err(Broken::Malformed),
            b'.' if text.is_empty() && matches!(self.open.last(), Some(Open::Until)) => {
                self.open.pop();
                Ok(true)
            }
            b'+' | b'-' | b':' | b',' | b'#' | b'(' | b'_' => Ok(true),
            b'$' | b'!' | b'=' if text == b"?" => self.push(Open::Chunks).map(|()| false),
            b'$' | b'!' | b'=' => match number(text)? {
                None => Ok(true),
                Some(size) => self.string(size).map(|()| false),
            },
            b'*' | b'~' | b'%' | b'>' if text == b"?" => {
                self.note_push(kind)?;
                self.push(Open::Until).map(|()| false)
            }
            b'*' | b'~' | b'%' | b'>' | b'|' => {
                self.note_push(kind)?;
                let Some(count) = number(text)? else { return Ok(true) };
                let of_each = if matches!(kind, b'%' | b'|') { 2 } else { 1 };
                let count = count.saturating_mul(of_each);
                if count.saturating_mul(SMALLEST) > limits::CALL_BODY as u64 {
                    return Err(Broken::TooLarge);
                }
                match (kind, count) {
                    (b'|', 0) => Ok(false),
                    (_, 0) => Ok(true),
                    (b'|', _) => self.push(Open::Attributes(count)).map(|()| false),
                    _ => self.push(Open::Items(count)).map(|()| false),
                }
            }
            _ => Err(Broken::Malformed),
        }
    }

    /// A push is not part of anything.
    fn note_push(&mut self, kind: u8) -> Result<(), Broken> {
        if kind == b'>' {
            if !self.open.is_empty() || self.is_push {
                return Err(Broken::Malformed);
            }
            self.is_push = true;
        }
        Ok(())
    }

    fn string(&mut self, size: u64) -> Result<(), Broken> {
        if size > limits::CALL_BODY as u64 {
            return Err(Broken::TooLarge);
        }
        self.skip = size as usize + 2;
        Ok(())
    }

    fn push(&mut self, open: Open) -> Result<(), Broken> {
        if self.open.len() >= DEPTH {
            return Err(Broken::TooLarge);
        }
        self.open.push(open);
        Ok(())
    }

    /// An element has ended, and with it the aggregates whose last one it was. True when that was the answer.
    fn end_element(&mut self) -> bool {
        loop {
            match self.open.last_mut() {
                None => return true,
                Some(Open::Until | Open::Chunks) => return false,
                Some(Open::Items(left)) => {
                    *left -= 1;
                    if *left > 0 {
                        return false;
                    }
                    self.open.pop();
                }
                Some(Open::Attributes(left)) => {
                    *left -= 1;
                    if *left == 0 {
                        self.open.pop();
                    }
                    return false;
                }
            }
        }
    }

    fn begin_next(&mut self) -> (Found, usize) {
        let length = std::mem::take(&mut self.at);
        let found = if std::mem::take(&mut self.is_push) { Found::Push } else { Found::Answer };
        (found, length)
    }
}

/// A length. `None` for that of nothing, -1.
fn number(text: &[u8]) -> Result<Option<u64>, Broken> {
    if text == b"-1" {
        return Ok(None);
    }
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(Broken::Malformed);
    }
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    // All digits, so it is a number, and a larger one than fits.
    number.map(Some).ok_or(Broken::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found when the bytes come all at once, and the same when they come one by one.
    fn scan(bytes: &[u8]) -> Result<Option<(Found, usize)>, Broken> {
        let whole = Scanner::default().scan(bytes);
        let mut scanner = Scanner::default();
        let mut last = Ok(None);
        for end in 0..=bytes.len() {
            last = scanner.scan(&bytes[..end]);
            if last != Ok(None) {
                break;
            }
        }
        assert_eq!(whole, last, "{}", bytes.escape_ascii());
        whole
    }

    #[test]
    fn answers() {
        for answer in [
            "+OK\r\n",
            "+\r\n",
            "-ERR no\r\n",
            ":-12\r\n",
            "$0\r\n\r\n",
            "$-1\r\n",
            "*-1\r\n",
            "*0\r\n",
            "$5\r\na\r\nbc\r\n",
            "*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
            "_\r\n",
            "#t\r\n",
            ",1.5\r\n",
            "(123456789012345678901234567890\r\n",
            "!5\r\nERR x\r\n",
            "=6\r\ntxt:ab\r\n",
            "~1\r\n+a\r\n",
            "%1\r\n+a\r\n*1\r\n:1\r\n",
            "|1\r\n+a\r\n+b\r\n:1\r\n",
            "*1\r\n|1\r\n+a\r\n+b\r\n:1\r\n",
            "|0\r\n:1\r\n",
            "$?\r\n;2\r\nab\r\n;1\r\nc\r\n;0\r\n",
            "*?\r\n:1\r\n:2\r\n.\r\n",
            "%?\r\n+a\r\n:2\r\n.\r\n",
        ] {
            let found = Ok(Some((Found::Answer, answer.len())));
            assert_eq!(scan(answer.as_bytes()), found, "{answer:?}");
            assert_eq!(scan(format!("{answer}+x").as_bytes()), found, "{answer:?} and more");
            assert_eq!(scan(&answer.as_bytes()[..answer.len() - 1]), Ok(None), "{answer:?} cut");
        }
        assert_eq!(scan(b">2\r\n+a\r\n+b\r\n"), Ok(Some((Found::Push, 12))));
    }

    #[test]
    fn what_is_no_answer() {
        for bytes in [
            "x\r\n",
            "\r\n",
            "+OK\n",
            "$\r\n",
            "$a\r\n",
            "$-2\r\n",
            "$+1\r\n",
            "$1\r\nabc",
            "*-2\r\n",
            "*1\r\n>1\r\n+a\r\n",
            ".\r\n",
            ";1\r\n",
            "$?\r\n:1\r\n",
            "$?\r\n;-1\r\n",
            "HTTP/1.1 200 OK\r\n",
        ] {
            assert_eq!(scan(bytes.as_bytes()), Err(Broken::Malformed), "{bytes:?}");
        }
    }

    #[test]
    fn lies_about_lengths_are_found_at_once() {
        for bytes in
            ["$99999999999\r\n", "*99999999\r\n", "%9000000\r\n", "$99999999999999999999999999\r\n"]
        {
            assert_eq!(scan(bytes.as_bytes()), Err(Broken::TooLarge), "{bytes:?}");
        }
        assert_eq!(scan("*1\r\n".repeat(1000).as_bytes()), Err(Broken::TooLarge));
        assert_eq!(Scanner::default().scan(&[b'+'; LINE]), Err(Broken::TooLarge));
        let many = format!("*4000000\r\n{}", "$1\r\na\r\n".repeat(3_000_000));
        assert_eq!(Scanner::default().scan(many.as_bytes()), Err(Broken::TooLarge));
    }
}
