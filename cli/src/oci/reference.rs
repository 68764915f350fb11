//! Names of filters in registries: `oci://REGISTRY/NAME:TAG@sha256:DIGEST`.

use std::fmt;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Host, and port when there is one.
    pub registry: String,
    /// The repository in it.
    pub name: String,
    pub tag: Option<String>,
    /// `sha256:` and 64 hexadecimal digits: of the manifest.
    pub digest: Option<String>,
}

/// How a reference begins where a file could stand as well.
pub const SCHEME: &str = "oci://";

impl Reference {
    /// Reads one, with or without `oci://`. The error completes a sentence that begins with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix(SCHEME).unwrap_or(text);
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (rest, None),
        };
        if digest.is_some_and(|digest| hexadecimal(digest).is_none()) {
            return Err("has no digest as sha256: and 64 hexadecimal digits behind its @".into());
        }
        let (registry, path) = rest.split_once('/').ok_or("has no / behind its registry")?;
        let (name, tag) = match path.rsplit_once(':') {
            Some((name, tag)) => (name, Some(tag)),
            None => (path, None),
        };
        if !is_registry(registry) {
            return Err(format!("has no registry: {registry:?} is no HOST or HOST:PORT"));
        }
        let part = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
        };
        if name.len() > 255 || !name.split('/').all(part) {
            return Err(format!(
                "has a bad name: {name:?} is not of small letters, digits, . _ - and /"
            ));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err("has a bad tag".into());
        }
        Ok(Self {
            registry: registry.into(),
            name: name.into(),
            tag: tag.map(Into::into),
            digest: digest.map(Into::into),
        })
    }

    /// What a registry is asked for: the digest when there is one, else the tag.
    pub fn wanted(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or("latest")
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.registry, self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

/// The digits of a digest.
pub fn hexadecimal(digest: &str) -> Option<&str> {
    let digits = digest.strip_prefix("sha256:")?;
    let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (digits.len() == 64 && digits.bytes().all(is_digit)).then_some(digits)
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_host = |b: u8| b.is_ascii_alphanumeric() || b".-[]:".contains(&b);
    !host.is_empty()
        && host.bytes().all(is_host)
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0))
}

fn is_tag(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&text.len())
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|b| is_word(b) || b".-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let full = format!("oci://localhost:5000/team/auth:1.0@{digest}");
        let read = Reference::parse(&full).expect("a reference");
        assert_eq!((read.registry.as_str(), read.name.as_str()), ("localhost:5000", "team/auth"));
        assert_eq!((read.tag.as_deref(), read.wanted()), (Some("1.0"), digest.as_str()));
        assert_eq!(read.to_string(), full);
        assert_eq!(Reference::parse("ghcr.io/a/b").expect("a reference").wanted(), "latest");
        for bad in [
            "",
            "auth",
            "oci:///a",
            "h/A",
            "h/a:",
            "h/a@sha256:00",
            "h:x/a",
            "h/a//b",
            "h/../b",
            "h/a:b c",
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
    }
}
