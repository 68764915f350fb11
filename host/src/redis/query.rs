//! What a guest asks a Redis server: one command or several, each an array of strings.

/// A query that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// As it is sent.
    pub bytes: Vec<u8>,
    /// How many answers it has.
    pub answers: usize,
}

/// Why a query is not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is no list of commands.
    Malformed,
    /// A command after which answers do not follow commands any more. The connection is used by others, too.
    Unsafe(String),
    /// A command that the filter may not use.
    NotAllowed(String),
}

/// Commands that are answered by more or less than one answer, now or later.
const UNSAFE: [&str; 11] = [
    "SUBSCRIBE",
    "PSUBSCRIBE",
    "SSUBSCRIBE",
    "UNSUBSCRIBE",
    "PUNSUBSCRIBE",
    "SUNSUBSCRIBE",
    "MONITOR",
    "SYNC",
    "PSYNC",
    "QUIT",
    "RESET",
];

/// Bytes of a command that a warning repeats.
const SHOWN: usize = 32;

impl Query {
    /// Checks a query. `allows` is asked for the name of each command, in upper case.
    pub fn parse(bytes: &[u8], allows: impl Fn(&str) -> bool) -> Result<Self, Refusal> {
        let (mut rest, mut answers, mut open) = (bytes, 0, false);
        while !rest.is_empty() {
            let (name, argument) = command(&mut rest).ok_or(Refusal::Malformed)?;
            let shown = |name: &str| name[..name.floor_char_boundary(SHOWN)].to_string();
            let name = String::from_utf8_lossy(name).to_ascii_uppercase();
            let first = argument.unwrap_or_default();
            let mutes = name == "CLIENT" && first.eq_ignore_ascii_case(b"REPLY");
            if UNSAFE.contains(&name.as_str()) || mutes {
                return Err(Refusal::Unsafe(shown(&name)));
            }
            if !allows(&name) {
                return Err(Refusal::NotAllowed(shown(&name)));
            }
            match name.as_str() {
                "MULTI" => open = true,
                "EXEC" | "DISCARD" => open = false,
                _ => {}
            }
            answers += 1;
        }
        if open {
            return Err(Refusal::Unsafe("MULTI without EXEC".into()));
        }
        if answers == 0 {
            return Err(Refusal::Malformed);
        }
        Ok(Self { bytes: bytes.to_vec(), answers })
    }
}

/// Takes a command off: its name and its first argument.
fn command<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    let count = length(rest, b'*')?;
    let name = string(rest)?;
    let mut first = None;
    for index in 1..count {
        let argument = string(rest)?;
        if index == 1 {
            first = Some(argument);
        }
    }
    (count > 0).then_some((name, first))
}

fn string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let size = length(rest, b'$')?;
    let string = rest.get(..size)?;
    *rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    Some(string)
}

/// Takes a line of that kind off, with the number in it.
fn length(rest: &mut &[u8], kind: u8) -> Option<usize> {
    const DIGITS: usize = 10;
    let line = rest.strip_prefix(&[kind])?;
    let end = line.iter().take(DIGITS + 1).position(|byte| *byte == b'\r')?;
    let digits = &line[..end];
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    *rest = line[end..].strip_prefix(b"\r\n")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A command of ours.
pub(super) fn encode(command: &[&[u8]]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", command.len()).into_bytes();
    for part in command {
        out.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(commands: &[&[&str]]) -> Result<usize, Refusal> {
        let bytes: Vec<u8> = commands
            .iter()
            .flat_map(|c| encode(&c.iter().map(|part| part.as_bytes()).collect::<Vec<_>>()))
            .collect();
        Query::parse(&bytes, |name| name != "EVAL").map(|query| {
            assert_eq!(query.bytes, bytes);
            query.answers
        })
    }

    #[test]
    fn commands_are_counted() {
        assert_eq!(parse(&[&["GET", "a"]]), Ok(1));
        assert_eq!(parse(&[&["set", "a", "\r\n*1"], &["ping"], &["get", ""]]), Ok(3));
        assert_eq!(parse(&[&["MULTI"], &["INCR", "a"], &["EXEC"]]), Ok(3));
    }

    #[test]
    fn some_are_refused() {
        assert_eq!(
            parse(&[&["PING"], &["subscribe", "a"]]),
            Err(Refusal::Unsafe("SUBSCRIBE".into()))
        );
        assert_eq!(parse(&[&["client", "reply", "off"]]), Err(Refusal::Unsafe("CLIENT".into())));
        assert_eq!(parse(&[&["client", "id"]]), Ok(1));
        assert_eq!(parse(&[&["eval", "x"]]), Err(Refusal::NotAllowed("EVAL".into())));
        assert!(matches!(parse(&[&["MULTI"]]), Err(Refusal::Unsafe(_))));
    }

    #[test]
    fn what_is_no_query() {
        for bytes in [
            "",
            "PING\r\n",
            "*0\r\n",
            "*1\r\n",
            "*1\r\n$4\r\nPIN",
            "*1\r\n$4\r\nPINGxx",
            "*1\r\n:1\r\n",
            "*-1\r\n",
            "*1\r\n$-1\r\n",
            "*2\r\n$4\r\nPING\r\n",
            "*99999999999\r\n$1\r\na\r\n",
            "*1\n$1\na\n",
        ] {
            assert_eq!(
                Query::parse(bytes.as_bytes(), |_| true),
                Err(Refusal::Malformed),
                "{bytes:?}"
            );
        }
    }
}
