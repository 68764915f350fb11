//! Authorities (`:authority`, `Host`): read as a strict server reads those of clients.
//!
//! The rules are those of RFC 3986, but `%XX` is not decoded. Some servers let more pass. The name becomes a part of paths where
//! the configuration says so (`root /srv/$host`), so it must not lead out of them.

/// Whether a client could have sent it.
pub fn is_authority(value: &[u8]) -> bool {
    let is_literal = value.first() == Some(&b'[');
    let end = match is_literal {
        true => value.iter().position(|b| *b == b']').map(|at| at + 1),
        false => Some(value.iter().position(|b| *b == b':').unwrap_or(value.len())),
    };
    let Some((name, rest)) = end.map(|end| value.split_at(end)) else { return false };
    let inner = if is_literal { &name[1..name.len() - 1] } else { name };
    let has_place = |b: &u8| match b {
        b':' => is_literal,
        b'%' => !is_literal,
        _ => b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(b),
    };
    inner.iter().all(has_place)
        && !name.windows(2).any(|pair| pair == b"..")
        && !name.strip_suffix(b".").unwrap_or(name).is_empty()
        && is_port(rest)
}

/// Nothing, or a colon with a port that may be left out.
fn is_port(rest: &[u8]) -> bool {
    let Some(digits) = rest.strip_prefix(b":") else { return rest.is_empty() };
    let number = digits.iter().try_fold(0_u32, |number, b| {
        let digit = char::from(*b).to_digit(10)?;
        Some(number * 10 + digit).filter(|number| *number <= u16::MAX.into())
    });
    number.is_some()
}

#[cfg(test)]
mod tests {
    use super::is_authority;

    #[test]
    fn names_literals_and_ports() {
        for good in [
            "a", "A.b", "a.b.", "a:", "a:80", "a:065535", "[::1]", "[::1]:80", "[v1.a~b]", "-",
            "a_b", ".a", "a%2fb",
        ] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ".",
            ":",
            ":80",
            ".:80",
            "..",
            "a..b",
            "a/b",
            "a b",
            "a?b",
            "a@b",
            "a#b",
            "a\\b",
            "é",
            "a:b",
            "a:b:c",
            "a:65536",
            "a:99999999999",
            "a:-1",
            "[::1",
            "[::1]a",
            "[::1]80",
            "[a..b]",
            "[a%b]",
            "a]",
            "a[b]",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }
}
