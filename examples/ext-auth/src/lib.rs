//! Asks an authorization service of Envoy's API whether a request may pass, and holds the request until it has answered.

mod api;

use std::collections::HashMap;
use std::time::Duration;

use prost::Message as _;
use proxy_wasm::hostcalls::log;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};

use api::{
    Address, AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, HeaderValueOption, HttpRequest,
    HttpResponse, OkHttpResponse, Peer, Request, SocketAddress,
};

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root { service: Service::default() }));
}}

/// Whom to ask, and how long to wait.
#[derive(Clone, Default)]
struct Service {
    upstream: String,
    timeout: Duration,
}

impl Service {
    /// `UPSTREAM` or `UPSTREAM MILLISECONDS`
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let upstream = words.next()?.to_string();
        let timeout = words.next().map_or(Some(200), |word| word.parse().ok().filter(|ms| *ms > 0))?;
        words.next().is_none().then(|| Self { upstream, timeout: Duration::from_millis(timeout) })
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
            let _ = log(LogLevel::Error, "the configuration must be: UPSTREAM [MILLISECONDS]");
            return false;
        };
        self.service = service;
        true
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { service: self.service.clone(), to_client: Vec::new() }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Stream {
    service: Service,
    /// Headers that the service wants the client to get.
    to_client: Vec<HeaderValueOption>,
}

impl Stream {
    fn check_request(&self) -> CheckRequest {
        // Headers of one name are joined, as Envoy does it; pseudo headers are among them.
        let mut headers = HashMap::<String, String>::new();
        for (name, value) in self.get_http_request_headers_bytes() {
            let value = String::from_utf8_lossy(&value);
            headers
                .entry(name)
                .and_modify(|values| {
                    values.push(',');
                    values.push_str(&value);
                })
                .or_insert_with(|| value.to_string());
        }
        let read = |name: &str| headers.get(name).cloned().unwrap_or_default();
        let http = HttpRequest {
            id: read("x-request-id"),
            method: read(":method"),
            path: read(":path"),
            host: read(":authority"),
            scheme: read(":scheme"),
            size: read("content-length").parse().unwrap_or(-1),
            protocol: self.property("request", "protocol").map(lossy).unwrap_or_default(),
            headers,
        };
        CheckRequest {
            attributes: Some(AttributeContext {
                source: self.peer("source"),
                destination: self.peer("destination"),
                request: Some(Request { http: Some(http) }),
            }),
        }
    }

    /// One end of the client's connection; `None` where it has no address.
    fn peer(&self, side: &str) -> Option<Peer> {
        let address = lossy(self.property(side, "address")?);
        let (host, port) = address.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_string();
        let socket_address = SocketAddress { address: host, port_value: port.parse().ok()? };
        Some(Peer { address: Some(Address { socket_address: Some(socket_address) }) })
    }

    fn property(&self, of: &str, name: &str) -> Option<Vec<u8>> {
        self.get_property(vec![of, name])
    }

    fn pass(&mut self, changes: OkHttpResponse) {
        for name in &changes.headers_to_remove {
            if !name.is_empty() && !name.starts_with(':') && !name.eq_ignore_ascii_case("host") {
                self.set_http_request_header(name, None);
            }
        }
        for (name, value, append) in changes.headers.iter().filter_map(HeaderValueOption::parts) {
            if append {
                self.add_http_request_header(name, value);
            } else {
                self.set_http_request_header(name, Some(value));
            }
        }
        self.to_client = changes.response_headers_to_add;
        self.resume_http_request();
    }

    fn deny(&self, answer: DeniedHttpResponse) {
        let status = answer.status.map_or(403, |status| status.code);
        let status = u32::try_from(status).ok().filter(|code| (200..600).contains(code)).unwrap_or(403);
        let headers = answer.headers.iter().filter_map(HeaderValueOption::parts);
        let headers = headers.map(|(name, value, _)| (name, value)).collect();
        self.send_http_response(status, headers, Some(answer.body.as_bytes()));
    }

    fn cannot_check(&self) {
        self.send_http_response(503, vec![], Some(b"the request cannot be checked\n"));
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let request = self.check_request().encode_to_vec();
        let Service { upstream, timeout } = &self.service;
        if self.dispatch_grpc_call(upstream, api::SERVICE, api::METHOD, vec![], Some(&request), *timeout).is_err() {
            self.cannot_check();
        }
        Action::Pause
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        for (name, value, append) in self.to_client.iter().filter_map(HeaderValueOption::parts) {
            if append {
                self.add_http_response_header(name, value);
            } else {
                self.set_http_response_header(name, Some(value));
            }
        }
        Action::Continue
    }
}

impl Context for Stream {
    fn on_grpc_call_response(&mut self, _: u32, code: u32, size: usize) {
        // The host has logged what failed on the way; what the server says of an error is for us to log.
        if code != 0 {
            let (_, message) = self.get_grpc_status();
            let text = format!("the authorization service failed: {code} {}", message.unwrap_or_default());
            let _ = log(LogLevel::Warn, &text);
            return self.cannot_check();
        }
        let message = self.get_grpc_call_response_body(0, size).unwrap_or_default();
        let Ok(CheckResponse { status, http_response }) = CheckResponse::decode(&*message) else {
            let _ = log(LogLevel::Warn, "the authorization service sent what is no CheckResponse");
            return self.cannot_check();
        };
        // Without a status it is OK, as the default of its code is.
        match (status.map_or(0, |status| status.code), http_response) {
            (0, Some(HttpResponse::Ok(changes))) => self.pass(changes),
            (0, _) => self.pass(OkHttpResponse::default()),
            (_, Some(HttpResponse::Denied(answer))) => self.deny(answer),
            (_, _) => self.deny(DeniedHttpResponse::default()),
        }
    }
}

fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}
