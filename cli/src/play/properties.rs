//! Values of properties that the input gives: what nginx would have as variables.

use super::request::Request;
use crate::core::abi::{PROPERTIES, Source};

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
            variable(attribute).map(|name| put(name, value))
        }
        Source::Address(address, port) => {
            variable(address).zip(variable(port)).map(|(address, port)| {
                match value.rsplit_once(':') {
                    Some((host, number)) if number.bytes().all(|b| b.is_ascii_digit()) => {
                        put(address, host.trim_start_matches('[').trim_end_matches(']'));
                        put(port, number);
                    }
                    _ => put(address, value),
                }
            })
        }
        Source::Mtls => {
            put("ssl_client_verify", if value == "true" { "SUCCESS" } else { "NONE" });
            Some(())
        }
        _ => None,
    };
    if given.is_none() {
        return Err(format!("{path} follows from the request or the filter and cannot be given"));
    }
    Ok(())
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
        assert!(set(&mut Request::default(), "request.method", "GET").is_err());
        assert!(set(&mut Request::default(), "no.such-thing", "").is_err());
    }
}
