//! Values of the command line: `TEXT` or `@FILE`, `NAME=VALUE`, `Name: value`.

use crate::fail::Fail;
use crate::play::headers::Headers;
use crate::source;

/// `TEXT`, or the bytes of a file for `@FILE`; `@@TEXT` for a text that begins with one `@`.
pub fn or_file(text: &str) -> Result<Vec<u8>, Fail> {
    match text.strip_prefix('@') {
        Some(rest) if rest.starts_with('@') => Ok(rest.into()),
        Some("") => Err(Fail::input(
            "no file is named behind the @; a text that begins with one is written @@TEXT",
        )),
        Some(file) => source::read(file),
        None => Ok(text.into()),
    }
}

/// `NAME=VALUE`, for clap.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("it must be NAME=VALUE".into()),
    }
}

/// The same for an environment variable.
pub fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = pair(text)?;
    is_variable(&name, &value)?;
    Ok((name, value))
}

/// Says whether an environment variable may have that name and value.
pub fn is_variable(name: &str, value: &str) -> Result<(), String> {
    if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
        return Err(format!("{name:?} cannot be an environment variable"));
    }
    Ok(())
}

/// `Name: value`, for clap.
pub fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("it must be \"Name: value\"")?;
    let value = value.trim_matches([' ', '\t']);
    is_header(name, value)?;
    Ok((name.into(), value.into()))
}

/// Says whether a header may have that name and value.
pub fn is_header(name: &str, value: &str) -> Result<(), String> {
    let is_token = |b: u8| b.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(&b);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(format!("{name:?} is no name of a header"));
    }
    if value.bytes().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
        return Err("a value of a header is one line".into());
    }
    Ok(())
}

/// Says whether a request may have that method.
pub fn is_method(method: &str) -> Result<(), String> {
    let is_letter = |b: u8| b.is_ascii_uppercase() || b"_-".contains(&b);
    match !method.is_empty() && method.bytes().all(is_letter) {
        true => Ok(()),
        false => Err(format!("{}: it must be of capital letters", method.escape_debug())),
    }
}

/// Says whether a request may have that path and query.
pub fn is_path(path: &str) -> Result<(), String> {
    match path.starts_with('/') && path.bytes().all(|b| b > b' ' && b != 0x7f) {
        true => Ok(()),
        false => Err(format!("{}: it must begin with / and have no spaces", path.escape_debug())),
    }
}

/// A response as it stands in a file: with its status line and headers when it begins with `HTTP/`, else the body of a 200.
pub fn response(bytes: &[u8]) -> Result<(u16, Headers, Vec<u8>), String> {
    if !bytes.starts_with(b"HTTP/") {
        return Ok((200, Headers::default(), bytes.to_vec()));
    }
    let (head, body) = split_head(bytes);
    let head = std::str::from_utf8(head).map_err(|_| "its head is not UTF-8".to_owned())?;
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default().split_whitespace().nth(1);
    let status = status.and_then(|status| status.parse().ok()).filter(|s| (100..1000).contains(s));
    let status = status.ok_or("its first line has no status from 100 to 999")?;
    let mut headers = Headers::default();
    for line in lines {
        let (name, value) = header(line).map_err(|cause| format!("{line:?}: {cause}"))?;
        headers.add(name.as_bytes(), value.as_bytes());
    }
    Ok((status, headers, body.to_vec()))
}

fn split_head(bytes: &[u8]) -> (&[u8], &[u8]) {
    for end in [&b"\r\n\r\n"[..], b"\n\n"] {
        if let Some(at) = bytes.windows(end.len()).position(|window| window == end) {
            return (&bytes[..at], &bytes[at + end.len()..]);
        }
    }
    (bytes, b"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_lines() {
        assert_eq!(header("X-One: a b "), Ok(("X-One".into(), "a b".into())));
        assert_eq!(header("x:"), Ok(("x".into(), String::new())));
        for bad in ["x", ": y", "a b: c", "x: a\nb"] {
            assert!(header(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn responses_have_a_head_or_none() {
        assert_eq!(response(b"text"), Ok((200, Headers::default(), b"text".to_vec())));
        let headers: Headers = [("A", "b")].iter().copied().collect();
        let whole = response(b"HTTP/1.1 404 Not Found\r\nA: b\r\n\r\nbody\n\n");
        assert_eq!(whole, Ok((404, headers, b"body\n\n".to_vec())));
        assert!(response(b"HTTP/1.1 four\n\n").is_err());
        assert!(response(b"HTTP/1.1").is_err());
    }
}
