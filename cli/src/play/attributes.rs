//! Attributes of requests by the variables of nginx that tell them.

use super::request::Request;
use crate::core::abi::Attribute;

/// An attribute. `now` is the time by the monotonic clock.
pub fn read(request: &Request, attribute: Attribute<'_>, now: u64) -> Option<Vec<u8>> {
    let variable = |name: &str| request.variable(name.as_bytes(), now);
    match attribute {
        Attribute::RequestAuthority => return request.authority.clone(),
        Attribute::RequestPath => return Some(request.path_now().to_vec()),
        Attribute::RequestStart => return Some(request.began.0.to_string().into_bytes()),
        Attribute::RequestDuration => {
            return Some(now.saturating_sub(request.began.1).to_string().into_bytes());
        }
        Attribute::ResponseHeader(name) => {
            return request.response_headers.get(name).map(<[u8]>::to_vec);
        }
        Attribute::RequestScheme if request.written_scheme.is_some() => {
            return request.written_scheme.clone();
        }
        _ => {}
    }
    let names = nginx_variables::names(attribute);
    let mut value = names.iter().find_map(|name| variable(name))?;
    nginx_variables::read(attribute, &mut value).then_some(value)
}
