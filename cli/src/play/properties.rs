//! Values of properties that the input gives: what nginx would have as variables.

use std::net::{IpAddr, SocketAddr};

use super::request::Request;
use crate::core::abi::{PROPERTIES, Source, ValueType};

/// Gives a property, by its path with points (`source.address`) or as a variable (`remote_addr`), a value. The error says why
/// it has none of its own.
pub fn set(request: &mut Request, path: &str, value: &str) -> Result<(), String> {
    let mut put = |name: &str, value: &str| {
        request.variables.insert(name.as_bytes().to_vec(), value.as_bytes().to_vec());
    };
    let Some(property) = PROPERTIES.iter().find(|property| property.path == path) else {
        let name = path.strip_prefix("ngx.").unwrap_or(path);
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(format!(
                "{path} is neither a property of this host nor a variable of nginx"
            ));
        }
        put(name, value);
        return Ok(());
    };
    let variable = |attribute| nginx_variables::names(attribute).first().copied();
    let given = match property.source {
        Source::Attribute(attribute) | Source::Size(attribute) => {
            let is_number = matches!(property.value, ValueType::Int | ValueType::Uint);
            if is_number && value.parse::<u64>().is_err() {
                return Err(format!("{value:?} is not a whole number"));
            }
            variable(attribute).map(|name| put(name, value))
        }
        Source::Address(address, port) => {
            let (host, number) = host_and_port(value)?;
            variable(address).zip(variable(port)).map(|(address, port)| {
                put(address, &host);
                if let Some(number) = number {
                    put(port, &number.to_string());
                }
            })
        }
        Source::Mtls => {
            let verified = match value {
                "true" => "SUCCESS",
                "false" => "NONE",
                _ => return Err(format!("{value:?} is neither true nor false")),
            };
            put("ssl_client_verify", verified);
            Some(())
        }
        _ => None,
    };
    if given.is_none() {
        return Err(format!("{path} follows from the request or the filter and cannot be given"));
    }
    Ok(())
}

/// An address, and its port if it has one. Sockets of the file system have a name in place of both, as in nginx.
fn host_and_port(value: &str) -> Result<(String, Option<u16>), String> {
    if value.starts_with("unix:") {
        return Ok((value.into(), None));
    }
    if let Ok(address) = value.parse::<SocketAddr>() {
        return Ok((address.ip().to_string(), Some(address.port())));
    }
    let address = value.parse::<IpAddr>().map_err(|_| {
        format!("{value:?} is not an address: write 192.0.2.1, 192.0.2.1:4000, 2001:db8::1 or [2001:db8::1]:4000")
    })?;
    Ok((address.to_string(), None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_variables() {
        let mut request = Request::default();
        set(&mut request, "source.address", "192.0.2.7:4000").unwrap();
        set(&mut request, "limit_zone", "a").unwrap();
        set(&mut request, "ngx.other", "b").unwrap();
        let value = |name: &str| request.variable(name.as_bytes(), 0);
        assert_eq!(value("remote_addr"), Some(b"192.0.2.7".to_vec()));
        assert_eq!(value("remote_port"), Some(b"4000".to_vec()));
        assert_eq!(value("limit_zone"), Some(b"a".to_vec()));
        assert_eq!(value("other"), Some(b"b".to_vec()));
        set(&mut request, "source.address", "::1").unwrap();
        assert_eq!(request.variable(b"remote_addr", 0), Some(b"::1".to_vec()));
        set(&mut request, "source.address", "[2001:db8::1]:80").unwrap();
        assert_eq!(request.variable(b"remote_addr", 0), Some(b"2001:db8::1".to_vec()));
        assert_eq!(request.variable(b"remote_port", 0), Some(b"80".to_vec()));
        for (path, value) in [
            ("source.address", "no"),
            ("source.address", "192.0.2.1:70000"),
            ("request.size", "many"),
            ("source.port", "http"),
            ("connection.mtls", "yes"),
        ] {
            let cause = set(&mut request, path, value).unwrap_err();
            assert!(cause.contains(value), "{path}: {cause}");
        }
        assert!(set(&mut Request::default(), "request.method", "GET").is_err());
        assert!(set(&mut Request::default(), "no.such-thing", "").is_err());
    }
}
