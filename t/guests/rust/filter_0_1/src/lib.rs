//! The same idea as `rust_filter`, in small, with the last SDK that spoke ABI 0.1.0 and started in `_start`.

use log::info;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};

#[no_mangle]
pub fn _start() {
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| {
        Box::new(Root {
            value: String::new(),
        })
    });
}

struct Root {
    /// What response header `hello` gets.
    value: String,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        let text = self.get_configuration().unwrap_or_default();
        self.value = match text.as_slice() {
            b"" => "world!".to_owned(),
            text => String::from_utf8_lossy(text).into_owned(),
        };
        self.value != "fail"
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Filter {
            value: self.value.clone(),
        }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Filter {
    value: String,
}

impl Context for Filter {}

impl HttpContext for Filter {
    fn on_http_request_headers(&mut self, num_headers: usize) -> Action {
        info!("request headers given={num_headers}");
        if self.get_http_request_header("x-deny").is_some() {
            self.send_http_response(
                403,
                vec![("x-denied-by", "rust_filter_0_1")],
                Some(b"denied\n"),
            );
            return Action::Pause;
        }
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _num_headers: usize) -> Action {
        self.add_http_response_header("hello", &self.value);
        Action::Continue
    }
}
