//! Limits the requests of each client in a window of time. All workers count together, in shared data.

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, Status};
use std::time::UNIX_EPOCH;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root { rule: Rule::default() }));
}}

/// So many requests in so many seconds, for each value of a header or for each address.
#[derive(Clone)]
struct Rule {
    limit: u64,
    seconds: u64,
    header: Option<String>,
}

impl Default for Rule {
    fn default() -> Self {
        Self { limit: 100, seconds: 60, header: None }
    }
}

impl Rule {
    /// `LIMIT SECONDS [HEADER]`
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let limit = words.next()?.parse().ok()?;
        let seconds = words.next()?.parse().ok().filter(|seconds| *seconds > 0)?;
        let header = words.next().map(str::to_owned);
        words.next().is_none().then_some(Self { limit, seconds, header })
    }
}

struct Root {
    rule: Rule,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let Some(bytes) = self.get_plugin_configuration() else { return true };
        match std::str::from_utf8(&bytes).ok().and_then(Rule::parse) {
            Some(rule) => {
                self.rule = rule;
                true
            }
            None => false,
        }
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { rule: self.rule.clone() }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Stream {
    rule: Rule,
}

/// What is known of a client: when its window began, and the requests in it.
#[derive(Clone, Copy)]
struct Window {
    start: u64,
    count: u64,
}

impl Window {
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (start, count) = bytes.split_at_checked(8)?;
        Some(Self {
            start: u64::from_le_bytes(start.try_into().ok()?),
            count: u64::from_le_bytes(count.try_into().ok()?),
        })
    }

    fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.start.to_le_bytes());
        bytes[8..].copy_from_slice(&self.count.to_le_bytes());
        bytes
    }
}

/// No version that a value has: with it a value is set only if there is none. Versions begin at 1 and grow.
const NEW: u32 = u32::MAX;

/// Another worker may be faster again and again, but not for ever.
const TRIES: u32 = 1000;

impl Stream {
    fn client(&self) -> String {
        match &self.rule.header {
            Some(header) => self.get_http_request_header(header).unwrap_or_default(),
            None => {
                let address = self.get_property(vec!["source", "address"]).unwrap_or_default();
                let address = String::from_utf8_lossy(&address);
                // Without the port, which is another one for each connection.
                address.rsplit_once(':').map_or(&*address, |(host, _)| host).to_owned()
            }
        }
    }

    /// Counts a request of a client. The seconds to wait when it is one too many.
    fn count(&self, client: &str, now: u64) -> Result<(), u64> {
        let key = format!("rate-limit {client}");
        for _ in 0..TRIES {
            let (value, version) = self.get_shared_data(&key);
            let known = value.as_deref().and_then(Window::from_bytes);
            let window = known.filter(|window| now < window.start + self.rule.seconds);
            let window = window.unwrap_or(Window { start: now, count: 0 });
            if window.count >= self.rule.limit {
                return Err(window.start + self.rule.seconds - now);
            }
            let next = Window { count: window.count + 1, ..window }.to_bytes();
            match self.set_shared_data(&key, Some(&next), Some(version.unwrap_or(NEW))) {
                Ok(()) => return Ok(()),
                Err(Status::CasMismatch) => {}
                // The memory is full: rather refuse than let everybody through.
                Err(_) => return Err(1),
            }
        }
        Err(1)
    }
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let now = self.get_current_time().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        match self.count(&self.client(), now) {
            Ok(()) => Action::Continue,
            Err(seconds) => {
                let wait = seconds.to_string();
                let headers = vec![("retry-after", wait.as_str())];
                self.send_http_response(429, headers, Some(b"too many requests\n"));
                Action::Pause
            }
        }
    }
}
