//! A filter as people write them with the Rust SDK: configuration, headers, properties, bodies, a local response.
//! The README beside `build.sh` says what each header makes it do.

use log::info;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, Bytes, ContextType, LogLevel};
use std::rc::Rc;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
}}

/// The property that the filter keeps for itself between two callbacks.
const KEPT_PATH: [&str; 2] = ["rust_filter", "path"];

/// Headers to add to each response.
type Additions = Rc<Vec<(String, String)>>;

#[derive(Default)]
struct Root {
    additions: Additions,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        info!("configure size={size}");
        let text = self.get_plugin_configuration().unwrap_or_default();
        match parse_additions(&text) {
            Some(additions) => {
                self.additions = Rc::new(additions);
                true
            }
            None => false,
        }
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Filter {
            context_id,
            additions: Rc::clone(&self.additions),
            upper: false,
        }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// Lines of `name: value`; `None` when a line is anything else.
fn parse_additions(text: &[u8]) -> Option<Vec<(String, String)>> {
    std::str::from_utf8(text)
        .ok()?
        .lines()
        .map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.trim().to_owned(), value.trim().to_owned()))
        })
        .collect()
}

struct Filter {
    context_id: u32,
    additions: Additions,
    upper: bool,
}

impl Context for Filter {
    fn on_done(&mut self) -> bool {
        info!("done");
        true
    }
}

impl HttpContext for Filter {
    fn on_http_request_headers(&mut self, num_headers: usize, end_of_stream: bool) -> Action {
        let headers = self.get_http_request_headers();
        info!(
            "request headers given={num_headers} read={} end={end_of_stream}",
            headers.len()
        );

        if let Some(reason) = self.get_http_request_header("x-deny") {
            let body = format!("denied: {reason}\n");
            self.send_http_response(
                403,
                vec![
                    ("content-type", "text/plain"),
                    ("x-denied-by", "rust_filter"),
                ],
                Some(body.as_bytes()),
            );
            return Action::Pause;
        }

        self.upper = self.get_http_request_header("x-upper").as_deref() == Some("1");
        let path = self
            .get_property(vec!["request", "path"])
            .unwrap_or_default();
        self.set_property(KEPT_PATH.to_vec(), Some(&path));
        self.add_http_request_header("x-rust-filter", &self.context_id.to_string());
        Action::Continue
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if !self.upper {
            return Action::Continue;
        }
        if !end_of_stream {
            return Action::Pause;
        }
        if let Some(body) = self.get_http_request_body(0, size) {
            self.set_http_request_body(0, size, &body.to_ascii_uppercase());
        }
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _num_headers: usize, _end_of_stream: bool) -> Action {
        for (name, value) in self.additions.iter() {
            self.add_http_response_header(name, value);
        }
        let path = self.get_property(KEPT_PATH.to_vec());
        self.set_http_response_header("x-rust-path", path.map(text).as_deref());
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if !self.upper {
            return Action::Continue;
        }
        if !end_of_stream {
            return Action::Pause;
        }
        if let Some(body) = self.get_http_response_body(0, size) {
            self.set_http_response_body(0, size, &body.to_ascii_uppercase());
        }
        Action::Continue
    }

    fn on_log(&mut self) {
        let method = self.get_http_request_header(":method");
        let status = self.get_http_response_header(":status");
        info!(
            "log {} {}",
            method.as_deref().unwrap_or("-"),
            status.as_deref().unwrap_or("-")
        );
    }
}

fn text(bytes: Bytes) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}
