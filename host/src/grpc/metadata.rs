//! Metadata: headers of HTTP/2 whose names end in `-bin` when their values are bytes.

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD_NO_PAD};
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::callout::{Malformed, Pairs};
use crate::snapshot;

/// Values with padding and without are taken.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Headers that the host writes, or that a connection has and no stream.
const RESERVED: [HeaderName; 9] = [
    CONNECTION,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    EXPECT,
    HOST,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];
const RESERVED_OTHERS: [&str; 2] = ["keep-alive", "proxy-connection"];

/// A guest's metadata as headers.
pub(super) fn from_guest(pairs: &Pairs<'_>) -> Result<HeaderMap, Malformed> {
    let mut fields = HeaderMap::new();
    for (name, value) in pairs {
        append(&mut fields, name, value)?;
    }
    Ok(fields)
}

fn append(fields: &mut HeaderMap, name: &[u8], value: &[u8]) -> Result<(), Malformed> {
    let name = HeaderName::from_bytes(name).map_err(|_| Malformed("bad name of metadata"))?;
    let reserved = name.as_str().starts_with("grpc-")
        || RESERVED.contains(&name)
        || RESERVED_OTHERS.contains(&name.as_str());
    if reserved {
        return Err(Malformed("metadata whose name is reserved"));
    }
    let value = if is_binary(&name) {
        HeaderValue::try_from(STANDARD_NO_PAD.encode(value))
    } else {
        HeaderValue::from_bytes(value)
    };
    fields.append(name, value.map_err(|_| Malformed("bad value of metadata"))?);
    Ok(())
}

fn is_binary(name: &HeaderName) -> bool {
    name.as_str().ends_with("-bin")
}

/// Appends received headers as a guest sees them.
pub fn to_guest(fields: &HeaderMap, to: &mut snapshot::HeaderMap) {
    for (name, value) in fields {
        let (key, value) = (name.as_str().as_bytes(), value.as_bytes());
        if !is_binary(name) {
            to.push(key, value);
            continue;
        }
        // Values of one name may have been joined on their way.
        for part in value.split(|byte| *byte == b',') {
            let part = part.trim_ascii();
            match LENIENT.decode(part) {
                Ok(bytes) => to.push(key, &bytes),
                Err(_) => to.push(key, part),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_values_are_encoded_on_the_wire_only() {
        let fields = from_guest(&[(b"K-bin", b"\0\xff\n"), (b"a", b"1"), (b"A", b"2")]).unwrap();
        assert_eq!(fields["k-bin"], "AP8K");
        let mut seen = snapshot::HeaderMap::new();
        to_guest(&fields, &mut seen);
        let pairs: Vec<_> = seen.iter().collect();
        assert_eq!(pairs, [(&b"k-bin"[..], &b"\0\xff\n"[..]), (b"a", b"1"), (b"a", b"2")]);
    }

    #[test]
    fn joined_padded_and_broken_binary_values() {
        let mut fields = HeaderMap::new();
        fields.append("k-bin", HeaderValue::from_static("YQ==, YWI,*"));
        let mut seen = snapshot::HeaderMap::new();
        to_guest(&fields, &mut seen);
        let values: Vec<_> = seen.iter().map(|(_, value)| value).collect();
        assert_eq!(values, [&b"a"[..], b"ab", b"*"]);
    }

    #[test]
    fn what_is_refused() {
        for (name, value) in [
            (&b":path"[..], &b"/"[..]),
            (b"", b""),
            (b"a b", b""),
            (b"grpc-timeout", b"1S"),
            (b"GRPC-encoding", b"gzip"),
            (b"content-type", b"text/plain"),
            (b"te", b"trailers"),
            (b"host", b"a"),
            (b"connection", b"close"),
            (b"keep-alive", b""),
            (b"a", b"b\r\nc: d"),
            (b"a", b"\0"),
        ] {
            assert!(from_guest(&[(name, value)]).is_err(), "{}", name.escape_ascii());
        }
        assert!(from_guest(&[(b"a", b"\xe9"), (b"user-agent", b"mine")]).is_ok());
    }
}
