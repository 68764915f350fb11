//! Asks an HTTP service whether a request may pass, and holds the request until it has answered.

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};
use std::time::Duration;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root { service: Service::default() }));
}}

const TIMEOUT: Duration = Duration::from_secs(5);

/// What a request says of itself, and the service is told.
const TOLD: [&str; 2] = ["authorization", "cookie"];
/// What the service says of the client, and the upstream is told.
const FOUND: [&str; 2] = ["x-user", "x-groups"];
/// What the service says to a client that is refused.
const REFUSAL: [&str; 2] = ["www-authenticate", "location"];

/// Whom to ask, and for what.
#[derive(Clone, Default)]
struct Service {
    upstream: String,
    path: String,
}

impl Service {
    /// `UPSTREAM PATH`
    fn parse(text: &str) -> Option<Self> {
        let (upstream, path) = text.trim().split_once(' ')?;
        path.starts_with('/').then(|| Self { upstream: upstream.into(), path: path.into() })
    }
}

struct Root {
    service: Service,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let bytes = self.get_plugin_configuration().unwrap_or_default();
        let Some(service) = std::str::from_utf8(&bytes).ok().and_then(Service::parse) else {
            let _ = proxy_wasm::hostcalls::log(LogLevel::Error, "the configuration must be: UPSTREAM /PATH");
            return false;
        };
        self.service = service;
        true
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { service: self.service.clone() }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Stream {
    service: Service,
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        // Only the service says these, not the client.
        for name in FOUND {
            self.set_http_request_header(name, None);
        }
        let read = |name: &str| self.get_http_request_header(name).unwrap_or_default();
        let (method, path, authority) = (read(":method"), read(":path"), read(":authority"));
        let told: Vec<(&str, String)> =
            TOLD.iter().filter_map(|name| Some((*name, self.get_http_request_header(name)?))).collect();
        let mut headers = vec![
            (":method", "GET"),
            (":path", self.service.path.as_str()),
            (":authority", authority.as_str()),
            ("x-original-method", method.as_str()),
            ("x-original-uri", path.as_str()),
        ];
        headers.extend(told.iter().map(|(name, value)| (*name, value.as_str())));
        if self.dispatch_http_call(&self.service.upstream, headers, None, vec![], TIMEOUT).is_err() {
            self.send_http_response(503, vec![], Some(b"the request cannot be checked\n"));
        }
        Action::Pause
    }
}

impl Context for Stream {
    fn on_http_call_response(&mut self, _: u32, headers: usize, _: usize, _: usize) {
        // Without headers there is no answer; the host has logged why.
        let status = if headers == 0 { None } else { self.get_http_call_response_header(":status") };
        match status.as_deref().and_then(|status| status.parse().ok()) {
            Some(200..=299) => {
                for name in FOUND {
                    if let Some(value) = self.get_http_call_response_header(name) {
                        self.set_http_request_header(name, Some(&value));
                    }
                }
                self.resume_http_request();
            }
            Some(status @ (300..=399 | 401 | 403)) => {
                let found: Vec<(&str, String)> = REFUSAL
                    .iter()
                    .filter_map(|name| Some((*name, self.get_http_call_response_header(name)?)))
                    .collect();
                let headers = found.iter().map(|(name, value)| (*name, value.as_str())).collect();
                self.send_http_response(status, headers, Some(b"no entry\n"));
            }
            _ => self.send_http_response(503, vec![], Some(b"the request cannot be checked\n")),
        }
    }
}
