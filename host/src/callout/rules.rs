//! Which upstreams a filter may call.
//!
//! A name is judged twice: as a name, before anything is asked, and by the address that it was resolved to, when an entry is
//! about addresses. The connection is made to the address that was judged.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};

use ipnet::{IpNet, Ipv4Net};

use super::upstream::{Target, is_host};

/// What may be called. Without any rule that is every host, and no unix socket.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    allow: Option<Vec<Entry>>,
    deny: Vec<Entry>,
    /// Upstreams that were registered may be called, unless they are denied by name.
    allows_registered: bool,
    /// Which rules these are; 0 for none.
    number: u64,
    /// Commands of Redis that may be sent, in upper case. `None` for all.
    commands: Option<Vec<String>>,
}

/// What rules say of a call before a name is resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may be made.
    Permitted,
    /// It may not.
    Refused,
    /// The address decides, see [`Rules::permits_address`].
    ByAddress {
        /// The name itself is allowed.
        name_allowed: bool,
    },
}

#[derive(Clone, Debug)]
struct Entry {
    what: What,
    /// `None` for any.
    port: Option<u16>,
}

#[derive(Clone, Debug)]
enum What {
    /// Every host.
    Any,
    /// A registered upstream.
    Registered(Vec<u8>),
    /// This name, in lower case.
    Name(String),
    /// The names that end in this: `.example.com`.
    Below(String),
    Net(IpNet),
    /// The path of a socket.
    Unix(String),
    /// What paths of sockets begin with.
    UnixBelow(String),
}

impl Rules {
    /// Reads entries; the first that is none is the error. `registered` knows the names of registered upstreams.
    pub fn parse(
        allow: Option<&[&[u8]]>,
        deny: &[&[u8]],
        registered: impl Fn(&[u8]) -> bool,
    ) -> Result<Self, Vec<u8>> {
        let parse = |entries: &[&[u8]]| {
            let entry = |text: &&[u8]| {
                if registered(text) {
                    return Ok(Entry { what: What::Registered(text.to_vec()), port: None });
                }
                let parsed = std::str::from_utf8(text).ok().and_then(Entry::parse);
                parsed.ok_or_else(|| text.to_vec())
            };
            entries.iter().map(entry).collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            allow: allow.map(parse).transpose()?,
            deny: parse(deny)?,
            allows_registered: false,
            number: next_number(),
            commands: None,
        })
    }

    /// Whether a text is an entry, whatever names are registered.
    pub fn is_entry(text: &[u8]) -> bool {
        std::str::from_utf8(text).ok().and_then(Entry::parse).is_some()
    }

    /// The same, and no other commands of Redis may be sent.
    #[must_use]
    pub fn with_commands(self, commands: Option<Vec<String>>) -> Self {
        let in_upper_case = |command: String| command.to_ascii_uppercase();
        let commands = commands.map(|list| list.into_iter().map(in_upper_case).collect());
        Self { commands, ..self }
    }

    /// Judges a command of Redis, by its name in upper case.
    pub fn permits_command(&self, command: &str) -> bool {
        self.commands.as_ref().is_none_or(|list| list.iter().any(|this| this == command))
    }

    /// The same, and registered upstreams may be called, unless they are denied by name.
    #[must_use]
    pub fn with_registered(self) -> Self {
        Self { allows_registered: true, ..self }
    }

    /// A number that other rules do not have. Connections whose addresses were judged by them may share it.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Judges a registered upstream, by its name alone.
    pub fn of_registered(&self, name: &[u8]) -> Verdict {
        let is = |entry: &Entry| match &entry.what {
            What::Any => true,
            What::Registered(registered) => registered == name,
            // One that was registered after the entry was read.
            What::Name(this) => entry.port.is_none() && this.as_bytes() == name,
            _ => false,
        };
        let allowed =
            self.allows_registered || self.allow.as_ref().is_none_or(|l| l.iter().any(is));
        if self.deny.iter().any(is) || !allowed { Verdict::Refused } else { Verdict::Permitted }
    }

    /// Judges what a filter named itself.
    pub fn of_target(&self, target: &Target) -> Verdict {
        let (host, port) = match target {
            Target::Unix(path) => return self.of_socket(path),
            Target::Tcp(host, port) => (normal(host), *port),
        };
        if let Ok(address) = host.parse() {
            let permitted = self.permits_address(address, port, false);
            return if permitted { Verdict::Permitted } else { Verdict::Refused };
        }
        let named = |entry: &Entry| entry.is_for(port) && entry.matches_name(&host);
        let net = |entry: &Entry| entry.is_for(port) && matches!(entry.what, What::Net(_));
        let name_allowed = self.allow.as_ref().is_none_or(|list| list.iter().any(named));
        if self.deny.iter().any(named) {
            Verdict::Refused
        } else if name_allowed && !self.deny.iter().any(net) {
            Verdict::Permitted
        } else if name_allowed || self.allow.as_ref().is_some_and(|list| list.iter().any(net)) {
            Verdict::ByAddress { name_allowed }
        } else {
            Verdict::Refused
        }
    }

    /// Judges an address. `name_allowed`: a name that is allowed was resolved to it.
    pub fn permits_address(&self, address: IpAddr, port: u16, name_allowed: bool) -> bool {
        let address = address.to_canonical();
        let same = reached_by(address);
        let is = |entry: &Entry| {
            entry.is_for(port)
                && match &entry.what {
                    What::Any => true,
                    What::Net(net) => net.contains(&address) || net.contains(&same),
                    _ => false,
                }
        };
        let allowed = name_allowed || self.allow.as_ref().is_none_or(|list| list.iter().any(is));
        allowed && !self.deny.iter().any(is)
    }

    fn of_socket(&self, path: &str) -> Verdict {
        let is = |entry: &Entry| match &entry.what {
            What::Unix(this) => this == path,
            What::UnixBelow(start) => path.starts_with(start.as_str()),
            _ => false,
        };
        // Another spelling of a path must not get past an entry.
        let plain = path[1..].split('/').all(|part| !matches!(part, "" | "." | ".."));
        let allowed = plain && self.allow.as_ref().is_some_and(|list| list.iter().any(is));
        if allowed && !self.deny.iter().any(is) { Verdict::Permitted } else { Verdict::Refused }
    }
}

fn next_number() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

impl Entry {
    fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            let what = match path.strip_suffix('*') {
                Some(start) if start.is_empty() || start.starts_with('/') => {
                    What::UnixBelow(start.into())
                }
                None if path.starts_with('/') => What::Unix(path.into()),
                _ => return None,
            };
            return Some(Self { what, port: None });
        }
        if let Some(net) = net(text) {
            return Some(Self { what: What::Net(net), port: None });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => {
                let digits = port.bytes().all(|b| b.is_ascii_digit());
                (host, Some(port.parse().ok().filter(|port| *port != 0 && digits)?))
            }
            None => (text, None),
        };
        Some(Self { what: What::parse(host)?, port })
    }

    fn is_for(&self, port: u16) -> bool {
        self.port.is_none_or(|this| this == port)
    }

    fn matches_name(&self, host: &str) -> bool {
        match &self.what {
            What::Any => true,
            What::Name(name) => name == host,
            What::Below(end) => host.ends_with(end.as_str()),
            _ => false,
        }
    }
}

impl What {
    fn parse(host: &str) -> Option<Self> {
        if host == "*" {
            return Some(Self::Any);
        }
        if let Some(net) = net(host) {
            return Some(Self::Net(net));
        }
        let (below, name) = match host.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, host),
        };
        if !is_host(name) || name.starts_with('[') || name.parse::<IpAddr>().is_ok() {
            return None;
        }
        let name = normal(name);
        Some(if below { Self::Below(format!(".{name}")) } else { Self::Name(name) })
    }
}

/// An address, or a block of them, in brackets or not.
fn net(text: &str) -> Option<IpNet> {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let net = match inner.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => inner.parse::<IpNet>().ok()?,
    };
    // Of IPv4 addresses that are written as IPv6.
    Some(match net {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.addr().to_ipv4_mapped() {
            Some(v4) => IpNet::V4(Ipv4Net::new(v4, v6.prefix_len() - 96).ok()?),
            None => net,
        },
        _ => net,
    })
}

/// A host as entries are compared with it: in lower case, without a dot at its end or brackets.
fn normal(host: &str) -> String {
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// Where a connection to an address ends: that to no address is one to the machine itself.
fn reached_by(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::callout::Upstream;

    fn rules(allow: Option<&[&str]>, deny: &[&str]) -> Rules {
        let bytes = |list: &[&'static str]| -> Vec<&'static [u8]> {
            list.iter().map(|text| text.as_bytes()).collect()
        };
        let own = |list: &[&str]| -> Vec<&'static str> {
            list.iter().map(|text| &*text.to_string().leak()).collect()
        };
        let allow = allow.map(|list| bytes(&own(list)));
        let deny = bytes(&own(deny));
        Rules::parse(allow.as_deref(), &deny, |name| name == b"auth").expect("entries")
    }

    /// What comes of a call: `yes`, `no`, or by address, for a name that is allowed (`name`) or not (`address`).
    fn says(rules: &Rules, upstream: &str) -> &'static str {
        let Some(upstream) = Upstream::parse(upstream.as_bytes(), false) else { return "none" };
        match rules.of_target(&upstream.target) {
            Verdict::Permitted => "yes",
            Verdict::Refused => "no",
            Verdict::ByAddress { name_allowed: true } => "name",
            Verdict::ByAddress { name_allowed: false } => "address",
        }
    }

    #[test]
    fn without_rules_every_host_and_no_socket() {
        let none = Rules::default();
        for (upstream, said) in [
            ("example.com", "yes"),
            ("127.0.0.1", "yes"),
            ("[::1]:80", "yes"),
            ("unix:/run/a.sock", "no"),
        ] {
            assert_eq!(says(&none, upstream), said, "{upstream}");
        }
        assert_eq!(none.of_registered(b"auth"), Verdict::Permitted);
    }

    #[test]
    fn an_allow_list_is_all_that_may_be_called() {
        let list = rules(
            Some(&[
                "api.example.com",
                "*.internal:8080",
                "10.0.0.0/8",
                "[fd00::/8]:443",
                "192.0.2.1:80",
                "unix:/run/app/*",
                "unix:/run/one.sock",
            ]),
            &["10.1.0.0/16", "unix:/run/app/secret.sock"],
        );
        for (upstream, said) in [
            ("api.example.com", "name"),
            ("https://API.example.com.", "name"),
            ("example.com", "address"),
            ("a.internal:8080", "name"),
            ("a.b.INTERNAL:8080", "name"),
            ("a.internal", "address"),
            ("internal:8080", "address"),
            ("10.2.3.4:99", "yes"),
            ("10.1.2.3", "no"),
            ("11.0.0.1", "no"),
            ("[::ffff:10.2.3.4]", "yes"),
            ("[::ffff:10.1.2.3]", "no"),
            ("[fd00::1]:443", "yes"),
            ("https://[fd00::1]", "yes"),
            ("[fd00::1]", "no"),
            ("192.0.2.1", "yes"),
            ("192.0.2.1:81", "no"),
            ("unix:/run/app/a.sock", "yes"),
            ("unix:/run/app/secret.sock", "no"),
            ("unix:/run/app/./secret.sock", "no"),
            ("unix:/run/app//secret.sock", "no"),
            ("unix:/run/app/../docker.sock", "no"),
            ("unix:/run/one.sock", "yes"),
            ("unix:/run/other.sock", "no"),
        ] {
            assert_eq!(says(&list, upstream), said, "{upstream}");
        }
        let permits = |address: &str, named| {
            list.permits_address(address.parse().expect("an address"), 80, named)
        };
        assert!(permits("10.2.3.4", false) && permits("203.0.113.1", true));
        assert!(!permits("203.0.113.1", false) && !permits("10.1.2.3", true));
        assert!(!permits("::ffff:10.1.2.3", true));
        assert_eq!(list.of_registered(b"auth"), Verdict::Refused);
        assert_eq!(says(&rules(Some(&[]), &[]), "example.com"), "no");
    }

    #[test]
    fn no_spelling_of_an_address_gets_past_a_deny_list() {
        let list = rules(None, &["127.0.0.0/8", "::1", "169.254.0.0/16", "localhost"]);
        for (upstream, said) in [
            ("127.0.0.1", "no"),
            ("127.1.2.3:8080", "no"),
            ("127.0.0.1.", "no"),
            ("0.0.0.0", "no"),
            ("[::]", "no"),
            ("[::1]", "no"),
            ("[0:0:0:0:0:0:0:1]:80", "no"),
            ("[::ffff:127.0.0.1]", "no"),
            ("[::ffff:7f00:1]", "no"),
            ("[::ffff:0.0.0.0]", "no"),
            ("169.254.169.254", "no"),
            ("LOCALHOST", "no"),
            ("localhost.", "no"),
            ("127.1", "none"),
            ("2130706433", "none"),
            ("0177.0.0.1", "none"),
            // Not read as addresses: names.
            ("0x7f000001", "name"),
            ("0x7f.0.0.1", "name"),
            ("example.com", "name"),
            ("192.0.2.1", "yes"),
        ] {
            assert_eq!(says(&list, upstream), said, "{upstream}");
        }
    }

    #[test]
    fn registered_upstreams_are_judged_by_their_names() {
        let judged = |rules: Rules| rules.of_registered(b"auth");
        assert_eq!(judged(rules(Some(&["auth"]), &["127.0.0.0/8"])), Verdict::Permitted);
        assert_eq!(judged(rules(Some(&["*"]), &[])), Verdict::Permitted);
        assert_eq!(judged(rules(Some(&["example.com"]), &[])), Verdict::Refused);
        assert_eq!(judged(rules(None, &["auth"])), Verdict::Refused);
        let of_setup = rules(Some(&["example.com"]), &[]).with_registered();
        assert_eq!(judged(of_setup), Verdict::Permitted);
    }

    #[test]
    fn what_is_no_entry() {
        for entry in [
            "",
            ":80",
            "a b",
            "a:0",
            "a:65536",
            "a:x",
            "a:+1",
            "http://a",
            "10.0.0.0/33",
            "10.0.0/8",
            "256.0.0.1",
            "*a",
            "*.",
            "a.*",
            "unix:",
            "unix:a",
            "unix:a*",
            "[::1",
            "::1]",
            "[a]",
            "[10.0.0.0]:x",
            "a/b",
            "1.2.3",
        ] {
            let parsed = Rules::parse(None, &[entry.as_bytes()], |_| false);
            assert_eq!(parsed.err().as_deref(), Some(entry.as_bytes()), "{entry}");
        }
    }
}
