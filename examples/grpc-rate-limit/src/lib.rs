//! Asks a rate limit service of Envoy's API whether a request is one too many, and holds the request until it has answered.

mod api;

use std::rc::Rc;
use std::time::Duration;

use prost::Message as _;
use proxy_wasm::hostcalls::log;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};

use api::{Entry, HeaderValue, RateLimitDescriptor, RateLimitRequest, RateLimitResponse};

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root { settings: Rc::default() }));
}}

/// Envoy's default is 20 ms.
const TIMEOUT: Duration = Duration::from_millis(200);

/// Whom to ask, and what to tell.
#[derive(Default)]
struct Settings {
    upstream: String,
    domain: String,
    entries: Vec<(String, Value)>,
}

/// What the value of an entry is.
enum Value {
    /// The address of the client, without its port.
    RemoteAddress,
    /// That of a header. Requests without it are not counted.
    Header(String),
    Constant(String),
}

impl Settings {
    /// `UPSTREAM DOMAIN ENTRY...`, each entry `remote_address`, `KEY=HEADER` or `KEY:CONSTANT`.
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let (upstream, domain) = (words.next()?.to_string(), words.next()?.to_string());
        let entries = words.map(entry).collect::<Option<Vec<_>>>()?;
        (!entries.is_empty()).then_some(Self { upstream, domain, entries })
    }
}

fn entry(word: &str) -> Option<(String, Value)> {
    if word == "remote_address" {
        return Some((word.into(), Value::RemoteAddress));
    }
    let (key, value) = match word.split_once('=') {
        Some((key, header)) => (key, Value::Header(header.to_lowercase())),
        None => word.split_once(':').map(|(key, text)| (key, Value::Constant(text.into())))?,
    };
    let is_empty = matches!(&value, Value::Header(text) | Value::Constant(text) if text.is_empty());
    (!key.is_empty() && !is_empty).then(|| (key.into(), value))
}

struct Root {
    settings: Rc<Settings>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let bytes = self.get_plugin_configuration().unwrap_or_default();
        let Some(settings) = std::str::from_utf8(&bytes).ok().and_then(Settings::parse) else {
            let _ = log(
                LogLevel::Error,
                "the configuration must be: UPSTREAM DOMAIN ENTRY..., each ENTRY remote_address, KEY=HEADER or KEY:CONSTANT",
            );
            return false;
        };
        self.settings = Rc::new(settings);
        true
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { settings: self.settings.clone(), to_client: Vec::new() }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Stream {
    settings: Rc<Settings>,
    /// Headers that the service wants the client to get.
    to_client: Vec<HeaderValue>,
}

impl Stream {
    /// `None` when a value is missing: then the request is not counted, as in Envoy.
    fn descriptor(&self) -> Option<RateLimitDescriptor> {
        let value = |value: &Value| match value {
            Value::RemoteAddress => {
                let address = self.get_property(vec!["source", "address"])?;
                let address = String::from_utf8_lossy(&address).into_owned();
                // A unix socket has no port.
                Some(address.rsplit_once(':').map_or_else(|| address.clone(), |(host, _)| host.to_string()))
            }
            Value::Header(name) => {
                let value = self.get_http_request_header_bytes(name)?;
                Some(String::from_utf8_lossy(&value).into_owned())
            }
            Value::Constant(text) => Some(text.clone()),
        };
        let entries = self.settings.entries.iter();
        let entries = entries.map(|(key, of)| Some(Entry { key: key.clone(), value: value(of)? }));
        Some(RateLimitDescriptor { entries: entries.collect::<Option<_>>()? })
    }

    fn refuse(&self, answer: &RateLimitResponse) {
        let over = answer.statuses.iter().filter(|status| status.code == api::OVER_LIMIT);
        let until = over.filter_map(|status| status.duration_until_reset.as_ref());
        let wait = until.map(|left| left.seconds + i64::from(left.nanos > 0)).max();
        let wait = wait.map(|seconds| seconds.to_string());
        let mut headers: Vec<_> = answer.response_headers_to_add.iter().filter_map(HeaderValue::parts).collect();
        headers.push(("x-envoy-ratelimited", "true"));
        headers.extend(wait.iter().map(|wait| ("retry-after", wait.as_str())));
        let body = if answer.raw_body.is_empty() { b"too many requests\n" } else { &*answer.raw_body };
        self.send_http_response(429, headers, Some(body));
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let Some(descriptor) = self.descriptor() else { return Action::Continue };
        let Settings { upstream, domain, .. } = &*self.settings;
        let request = RateLimitRequest { domain: domain.clone(), descriptors: vec![descriptor] }.encode_to_vec();
        match self.dispatch_grpc_call(upstream, api::SERVICE, api::METHOD, vec![], Some(&request), TIMEOUT) {
            Ok(_) => Action::Pause,
            // The host has logged why.
            Err(_) => Action::Continue,
        }
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        for (name, value) in self.to_client.iter().filter_map(HeaderValue::parts) {
            self.add_http_response_header(name, value);
        }
        Action::Continue
    }
}

impl Context for Stream {
    fn on_grpc_call_response(&mut self, _: u32, code: u32, size: usize) {
        // A service that fails stops no request, as in Envoy by default.
        if code != 0 {
            let (_, message) = self.get_grpc_status();
            let text = format!("the rate limit service failed: {code} {}", message.unwrap_or_default());
            let _ = log(LogLevel::Warn, &text);
            return self.resume_http_request();
        }
        let message = self.get_grpc_call_response_body(0, size).unwrap_or_default();
        let Ok(answer) = RateLimitResponse::decode(&*message) else {
            let _ = log(LogLevel::Warn, "the rate limit service sent what is no RateLimitResponse");
            return self.resume_http_request();
        };
        if answer.overall_code == api::OVER_LIMIT {
            return self.refuse(&answer);
        }
        for (name, value) in answer.request_headers_to_add.iter().filter_map(HeaderValue::parts) {
            self.add_http_request_header(name, value);
        }
        self.to_client = answer.response_headers_to_add;
        self.resume_http_request();
    }
}
