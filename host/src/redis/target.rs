//! Where calls go, and what a connection begins with.

use super::query::encode;
use crate::callout::{self, Upstream};
use crate::limits;

/// What stands behind the `?` of an upstream's name, and beside it in `proxy_redis_init`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Options {
    /// As whom; empty for the default user.
    pub username: Vec<u8>,
    /// Empty for no AUTH.
    pub password: Vec<u8>,
    /// `db`: the number of the database.
    pub database: u32,
}

/// A server, and what a connection to it begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The upstream as the guest named it, for the log.
    pub name: String,
    /// Where to.
    pub upstream: Upstream,
    /// As whom, and what of it.
    pub options: Options,
    /// Milliseconds that a call may take.
    pub timeout_ms: u32,
}

/// A name without its options, and what stands behind it.
pub fn split(name: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'?', name) {
        Some(at) => (&name[..at], &name[at + 1..]),
        None => (name, b""),
    }
}

impl Options {
    /// Reads what stands behind the `?`. What is not known there is left out, as other hosts do. `None` for a database that is
    /// no number.
    pub fn parse(query: &[u8], username: &[u8], password: &[u8]) -> Option<Self> {
        let mut database = 0;
        for option in query.split(|byte| *byte == b'&') {
            if let Some(number) = option.strip_prefix(b"db=") {
                database = std::str::from_utf8(number).ok()?.parse().ok()?;
            }
        }
        Some(Self { username: username.to_vec(), password: password.to_vec(), database })
    }
}

/// What a command at the beginning of a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// To say who asks.
    Auth,
    /// To choose the database.
    Select,
}

impl Target {
    /// The upstream of a name without options. `None` for what names no host.
    pub fn find_upstream(
        name: &[u8],
        registered: impl FnOnce(&[u8]) -> Option<Upstream>,
    ) -> Option<Upstream> {
        if name.len() > limits::UPSTREAM_NAME {
            return None;
        }
        registered(name).or_else(|| Upstream::parse_redis(name)).filter(Upstream::may_be_redis)
    }

    /// Whose certificate TLS must show.
    pub fn server_name(&self) -> String {
        match &self.upstream.target {
            callout::Target::Tcp(host, _) => host.trim_matches(['[', ']']).to_string(),
            callout::Target::Unix(_) => "localhost".into(),
        }
    }

    /// Whether a connection of this one may serve calls of the other.
    pub fn shares_with(&self, other: &Self) -> bool {
        self.upstream == other.upstream && self.options == other.options
    }

    /// What a new connection begins with.
    pub fn beginning(&self) -> Vec<(Beginning, Vec<u8>)> {
        let mut commands = Vec::new();
        let Options { username, password, database } = &self.options;
        if !username.is_empty() {
            commands.push((Beginning::Auth, encode(&[b"AUTH", username, password])));
        } else if !password.is_empty() {
            commands.push((Beginning::Auth, encode(&[b"AUTH", password])));
        }
        if *database != 0 {
            let number = database.to_string();
            commands.push((Beginning::Select, encode(&[b"SELECT", number.as_bytes()])));
        }
        commands
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_behind_the_name() {
        let name = b"outbound|6379||redis.static?db=3&buffer_flush_timeout=3&max_buffer_size_before_flush=1024";
        let (name, query) = split(name);
        assert_eq!(name, b"outbound|6379||redis.static");
        let options = Options::parse(query, b"", b"secret").unwrap();
        assert_eq!((options.database, options.password.as_slice()), (3, b"secret".as_slice()));
        assert_eq!(split(b"redis"), (b"redis".as_slice(), b"".as_slice()));
        assert_eq!(Options::parse(b"db=x", b"", b""), None);
        assert_eq!(Options::parse(b"db=-1", b"", b""), None);
        assert_eq!(Options::parse(b"", b"", b""), Some(Options::default()));
    }
}
