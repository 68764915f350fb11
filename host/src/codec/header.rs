//! Which header names and values may be sent.

/// True for a name that is a token of RFC 9110 (section 5.6.2).
#[inline]
pub fn is_token(name: &[u8]) -> bool {
    token(name).is_some()
}

/// `None` for a name that is no token; true for one that has neither capital letters nor underscores.
#[inline(always)]
pub fn token(name: &[u8]) -> Option<bool> {
    if of_words(name, has_common_only) == Some(true) {
        return Some(true);
    }
    let (all, any) = name.iter().fold((ALLOWED, 0), |(all, any), &b| {
        let class = CLASS[usize::from(b)];
        (all & class, any | class)
    });
    (all != 0 && !name.is_empty()).then_some(any & ODD == 0)
}

/// A token may hold it.
const ALLOWED: u8 = 1;
/// It is a capital letter or an underscore.
const ODD: u8 = 2;

/// By byte: what it is to a token.
static CLASS: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = match byte as u8 {
            b'A'..=b'Z' | b'_' => ALLOWED | ODD,
            b'0'..=b'9' | b'a'..=b'z' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' => {
                ALLOWED
            }
            b'-' | b'.' | b'^' | b'`' | b'|' | b'~' => ALLOWED,
            _ => 0,
        };
        byte += 1;
    }
    table
};

/// True for a value that cannot end its line: no CR, LF or NUL.
#[inline]
pub fn is_value(value: &[u8]) -> bool {
    // Most values have no control character at all, which takes less to see.
    !has_control(value) || !ends_line(value)
}

/// True when a header of that name and value may be sent, and nothing of it needs a closer look: the name is in lower case and
/// without underscores, and the value is not empty and without control characters. `None` when it may not.
#[inline(always)]
pub fn is_plain(name: &[u8], value: &[u8]) -> Option<bool> {
    let plain = token(name)?;
    if has_control(value) {
        return (!ends_line(value)).then_some(false);
    }
    Some(plain && !value.is_empty())
}

fn ends_line(value: &[u8]) -> bool {
    value.iter().any(|&b| matches!(b, b'\r' | b'\n' | 0))
}

/// True when some byte is a control character: one below a space, or DEL.
#[inline(always)]
pub fn has_control(text: &[u8]) -> bool {
    of_words(text, |word| !word_has_control(word))
        .map_or_else(|| text.iter().any(u8::is_ascii_control), |has_none| !has_none)
}

/// Whether all words of a text are so. Eight bytes at a time: the last ones may be among those before, of a text of less than
/// eight the first four and the last four. `None` for a shorter one.
#[inline(always)]
fn of_words(text: &[u8], is_so: impl Fn(u64) -> bool) -> Option<bool> {
    if let Some(last) = text.last_chunk() {
        let (words, _) = text.as_chunks();
        return Some(words.iter().chain([last]).all(|word| is_so(u64::from_le_bytes(*word))));
    }
    let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) else { return None };
    let [first, last] = [first, last].map(|half| u64::from(u32::from_le_bytes(*half)));
    Some(is_so(first | last << 32))
}

/// True when all of it are lower-case letters, digits and hyphens: of most names.
#[inline]
fn has_common_only(word: u64) -> bool {
    const HIGH: u64 = EACH << 7;
    // Where no byte has its highest bit, the sum of each has it only when the byte is at least that, or past that.
    let is_in = |from: u8, to: u8| {
        let (at_least, past) = (0x80 - u64::from(from), 0x7f - u64::from(to));
        (word & !HIGH).wrapping_add(EACH * at_least) & !(word & !HIGH).wrapping_add(EACH * past)
    };
    (is_in(b'a', b'z') | is_in(b'0', b'9') | is_in(b'-', b'-')) & !word & HIGH == HIGH
}

const EACH: u64 = u64::MAX / 255;

#[inline]
fn word_has_control(word: u64) -> bool {
    // With no byte below `least`, which is 128 at the most, the difference of each has its highest bit only when the byte has.
    let has_below = |word: u64, least: u64| word.wrapping_sub(EACH * least) & !word & (EACH << 7);
    has_below(word, b' '.into()) | has_below(word ^ (EACH * 0x7f), 1) != 0
}

/// True for a request target: not empty, no white space and no control characters.
pub fn is_path(path: &[u8]) -> bool {
    path.first() == Some(&b'/') && path.iter().all(|&b| b > b' ' && b != 0x7f)
}

/// True for a name that starts like a pseudo header.
#[inline]
pub fn is_pseudo(name: &[u8]) -> bool {
    name.first() == Some(&b':')
}

/// True for a header of one connection that frames nothing. Clients and servers of HTTP/2 take a message with one of them for
/// malformed (RFC 9113, section 8.2.2).
#[inline]
pub fn is_of_connection(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"keep-alive") || name.eq_ignore_ascii_case(b"proxy-connection")
}

/// True for a response header that HTTP/1 has and HTTP/2 has not.
#[inline]
pub fn is_of_http1(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"upgrade") || name.eq_ignore_ascii_case(b"te")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_seen_wherever_they_stand() {
        for length in 0..20 {
            for other in [b' ', b'a', b'~', 0x80, 0xff] {
                assert!(!has_control(&vec![other; length]), "{other} {length}");
                for at in 0..length {
                    for byte in 0..=u8::MAX {
                        let mut text = vec![other; length];
                        text[at] = byte;
                        assert_eq!(has_control(&text), byte.is_ascii_control(), "{text:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn names_of_all_characters_are_judged_by_each() {
        for length in 1..20 {
            for at in 0..length {
                for byte in 0..=u8::MAX {
                    let mut name = vec![b'a'; length];
                    name[at] = byte;
                    let class = CLASS[usize::from(byte)];
                    let expected = (class & ALLOWED != 0).then_some(class & ODD == 0);
                    assert_eq!(token(&name), expected, "{name:?}");
                }
            }
        }
        assert_eq!(token(b""), None);
    }

    #[test]
    fn nothing_that_splits_a_response_passes() {
        assert!(is_token(b"X-Forwarded-For") && is_token(b"a_b"));
        for name in [&b""[..], b"a b", b"a:", b"a\r\nb", b"a\0", "\u{e4}".as_bytes()] {
            assert!(!is_token(name) && is_plain(name, b"v").is_none(), "{name:?}");
        }
        for name in [&b"X"[..], b"a_b", b"aB"] {
            assert_eq!(is_plain(name, b"v"), Some(false), "{name:?}");
        }
        for value in [&b""[..], b"\t", b"a\x7f"] {
            assert_eq!(is_plain(b"a-1", value), Some(false), "{value:?}");
        }
        assert_eq!(is_plain(b"a-1", "caf\u{e9}".as_bytes()), Some(true));
        assert_eq!(is_plain(b"a", b"\n"), None);
        assert!(is_value(b"") && is_value("caf\u{e9}\t".as_bytes()));
        for value in [&b"a\r\nSet-Cookie: x"[..], b"\n", b"\0"] {
            assert!(!is_value(value), "{value:?}");
        }
        assert!(is_path(b"/a?b=c") && !is_path(b"/a b") && !is_path(b"/a\nb") && !is_path(b""));
    }
}
