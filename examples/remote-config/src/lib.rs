//! Fetches its rules from an HTTP service by a tick, and keeps them: no request waits for them.

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
}}

const TIMEOUT: Duration = Duration::from_secs(5);

/// Paths that are closed, as the last good answer said.
type Rules = Rc<RefCell<Vec<String>>>;

#[derive(Default)]
struct Root {
    upstream: String,
    path: String,
    period: Duration,
    rules: Rules,
    /// The version of the rules, as the service names it.
    tag: Option<String>,
    asked: bool,
}

impl Root {
    /// `UPSTREAM /PATH SECONDS`
    fn parse(&mut self, text: &str) -> Option<()> {
        let mut words = text.split_whitespace();
        self.upstream = words.next()?.into();
        self.path = words.next().filter(|path| path.starts_with('/'))?.into();
        let seconds: f64 = words.next()?.parse().ok().filter(|seconds| *seconds > 0.0)?;
        self.period = Duration::try_from_secs_f64(seconds).ok()?;
        words.next().is_none().then_some(())
    }

    fn say(&self, level: LogLevel, text: &str) {
        let _ = proxy_wasm::hostcalls::log(level, text);
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let bytes = self.get_plugin_configuration().unwrap_or_default();
        if std::str::from_utf8(&bytes).ok().and_then(|text| self.parse(text)).is_none() {
            self.say(LogLevel::Error, "the configuration must be: UPSTREAM /PATH SECONDS");
            return false;
        }
        // The first time at once.
        self.set_tick_period(Duration::from_millis(1));
        true
    }

    fn on_tick(&mut self) {
        self.set_tick_period(self.period);
        if self.asked {
            // The last answer is still to come.
            return;
        }
        let mut headers = vec![(":method", "GET"), (":path", &self.path), (":authority", "config")];
        if let Some(tag) = &self.tag {
            headers.push(("if-none-match", tag));
        }
        self.asked = self.dispatch_http_call(&self.upstream, headers, None, vec![], TIMEOUT).is_ok();
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { rules: self.rules.clone() }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, _: u32, headers: usize, body: usize, _: usize) {
        self.asked = false;
        let status = if headers == 0 { None } else { self.get_http_call_response_header(":status") };
        match status.as_deref() {
            Some("200") => {
                let body = self.get_http_call_response_body(0, body).unwrap_or_default();
                let rules: Vec<String> = String::from_utf8_lossy(&body)
                    .lines()
                    .map(str::trim)
                    .filter(|line| line.starts_with('/'))
                    .map(Into::into)
                    .collect();
                self.say(LogLevel::Info, &format!("{} rules", rules.len()));
                self.tag = self.get_http_call_response_header("etag");
                *self.rules.borrow_mut() = rules;
            }
            Some("304") => {}
            // The host has logged why there is none.
            None => {}
            Some(other) => {
                self.say(LogLevel::Warn, &format!("no rules: status {other}; those of before stay"));
            }
        }
    }
}

struct Stream {
    rules: Rules,
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let path = self.get_http_request_header(":path").unwrap_or_default();
        let path = path.split('?').next().unwrap_or_default();
        let closed = self.rules.borrow().iter().any(|rule| path.starts_with(rule.as_str()));
        if closed {
            self.send_http_response(403, vec![], Some(b"closed\n"));
            return Action::Pause;
        }
        Action::Continue
    }
}
