//! Lets so many requests of each client through in a window of so many seconds. The count is in Redis, so that all workers of
//! all machines count together.

mod redis;

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel, Status};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root { limit: Rc::default() }));
}}

/// Redis runs this as a whole, so that no two requests are given the same number. The window begins with the first one.
const SCRIPT: &str = "local count = redis.call('INCR', KEYS[1]) \
    if count == 1 then redis.call('EXPIRE', KEYS[1], ARGV[1]) end \
    return { count, redis.call('TTL', KEYS[1]) }";

const TIMEOUT_MS: u32 = 1000;

/// What the filter does, from its configuration.
#[derive(Default)]
struct Limit {
    upstream: String,
    requests: u64,
    seconds: u64,
    /// The header that says who a client is; the address otherwise.
    header: Option<String>,
    /// Requests that cannot be counted are refused.
    closed: bool,
}

impl Limit {
    /// `UPSTREAM LIMIT SECONDS`, and then `header=NAME`, `user=NAME`, `password=TEXT`, `closed`, in any order. Returns the name
    /// and the password, too.
    fn parse(text: &str) -> Option<(Self, String, String)> {
        let mut words = text.split_whitespace();
        let mut limit = Self {
            upstream: words.next()?.into(),
            requests: words.next()?.parse().ok()?,
            seconds: words.next()?.parse().ok().filter(|seconds| *seconds > 0)?,
            ..Self::default()
        };
        let (mut user, mut password) = (String::new(), String::new());
        for word in words {
            match word.split_once('=') {
                Some(("header", name)) => limit.header = Some(name.into()),
                Some(("user", name)) => user = name.into(),
                Some(("password", text)) => password = text.into(),
                None if word == "closed" => limit.closed = true,
                _ => return None,
            }
        }
        Some((limit, user, password))
    }

    /// What calls name: the upstream without its options.
    fn name(&self) -> &str {
        self.upstream.split('?').next().unwrap_or_default()
    }
}

struct Root {
    limit: Rc<Limit>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let bytes = self.get_plugin_configuration().unwrap_or_default();
        let parsed = std::str::from_utf8(&bytes).ok().and_then(Limit::parse);
        let Some((limit, user, password)) = parsed else {
            complain("the configuration must be: UPSTREAM LIMIT SECONDS [header=NAME] [user=NAME] [password=TEXT] [closed]");
            return false;
        };
        if redis::init(&limit.upstream, &user, &password, TIMEOUT_MS) != Status::Ok {
            complain("the upstream is not known: name it in setup");
            return false;
        }
        self.limit = Rc::new(limit);
        true
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { id, limit: self.limit.clone() }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Stream {
    id: u32,
    limit: Rc<Limit>,
}

thread_local! {
    /// The requests that wait, by the tokens of their calls.
    static WAITING: RefCell<HashMap<u32, (u32, Rc<Limit>)>> = RefCell::default();
}

impl Stream {
    fn client(&self) -> String {
        match &self.limit.header {
            Some(name) => self.get_http_request_header(name).unwrap_or_default(),
            None => {
                let address = self.get_property(vec!["source", "address"]).unwrap_or_default();
                let address = String::from_utf8_lossy(&address).into_owned();
                // The port is another one for each connection.
                address.rsplit_once(':').map_or(address.clone(), |(host, _)| host.into())
            }
        }
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let key = format!("limit:{}", self.client());
        let seconds = self.limit.seconds.to_string();
        match redis::call(self.limit.name(), &["EVAL", SCRIPT, "1", &key, &seconds]) {
            Ok(token) => {
                let waiting = (self.id, self.limit.clone());
                WAITING.with(|all| all.borrow_mut().insert(token, waiting));
                Action::Pause
            }
            Err(_) if self.limit.closed => {
                refuse(503, None);
                Action::Pause
            }
            Err(_) => Action::Continue,
        }
    }
}

impl Context for Stream {}

/// What Redis says of a request decides over it. A client that has gone has no context any more, and then nothing is left to do.
#[no_mangle]
pub extern "C" fn proxy_on_redis_call_response(_: u32, token: u32, status: u32, size: usize) {
    let Some((stream, limit)) = WAITING.with(|all| all.borrow_mut().remove(&token)) else { return };
    let answer = if status == 0 { redis::answer(size) } else { None };
    redis::set_effective_context(stream);
    match answer.as_deref().and_then(numbers) {
        Some((count, _)) if count <= limit.requests => go_on(),
        Some((_, left)) => refuse(429, Some(left.max(1))),
        // The host has logged why. What the server said of itself is for the log, too.
        None => {
            if let Some(answer) = answer {
                complain(&format!("Redis says {}", String::from_utf8_lossy(&answer).trim_end()));
            }
            if limit.closed {
                refuse(503, None);
            } else {
                go_on();
            }
        }
    }
}

/// `*2\r\n:COUNT\r\n:SECONDS\r\n`
fn numbers(answer: &[u8]) -> Option<(u64, i64)> {
    let text = std::str::from_utf8(answer).ok()?.strip_prefix("*2\r\n:")?;
    let (count, left) = text.strip_suffix("\r\n")?.split_once("\r\n:")?;
    Some((count.parse().ok()?, left.parse().ok()?))
}

fn go_on() {
    let _ = hostcalls::resume_http_request();
}

fn refuse(status: u32, retry_after: Option<i64>) {
    let seconds = retry_after.map(|seconds| seconds.to_string());
    let headers = seconds.iter().map(|seconds| ("retry-after", seconds.as_str())).collect();
    let _ = hostcalls::send_http_response(status, headers, Some(b"too many requests\n"));
}

fn complain(text: &str) {
    let _ = hostcalls::log(LogLevel::Error, text);
}
