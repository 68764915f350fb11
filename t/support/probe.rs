//! The scriptable guest of `t/guests/README.md` in one call: a script goes in as its configuration, a request runs
//! through all callbacks, and what the guest logged comes out.
//!
//! ```ignore
//! let run = Probe::new("request_headers: get_header_map_value 0 :path").run();
//! assert_eq!(run.of("request_headers"), ["get_header_map_value 0 :path -> 0 /"]);
//! ```

use super::{Nginx, Request, Response, Running};

/// What is about to run. Requests to `/` go through all callbacks and then to a server that answers with the request
/// that it got, so that the body of the answer shows what the guest made of the request.
pub(crate) struct Probe {
    nginx: Nginx,
    guest: String,
    options: String,
    init: String,
    content: String,
    script: String,
}

/// What came of it. nginx has ended, so that the log holds what the guest did after the answer, too.
pub(crate) struct Outcome {
    pub nginx: Running,
    pub response: Response,
}

impl Probe {
    pub(crate) fn new(script: &str) -> Probe {
        Probe {
            nginx: Nginx::new().echo(),
            guest: "probe".into(),
            options: String::new(),
            init: String::new(),
            // A location that sets headers of its own inherits none.
            content: "proxy_pass http://unix:echo.sock;\n\
                      proxy_set_header Host $http_host;\nproxy_set_header Connection close;"
                .into(),
            script: script.into(),
        }
    }

    /// Another build of the guest, say `probe_0_1_0`.
    pub(crate) fn guest(mut self, name: &str) -> Probe {
        self.guest = name.into();
        self
    }

    /// Options of `load`, as the inside of a Lua table.
    pub(crate) fn options(mut self, options: &str) -> Probe {
        self.options = options.into();
        self
    }

    /// Lua that runs in init_by_lua before the guest is loaded, with the module as `wasm`.
    pub(crate) fn init(mut self, lua: &str) -> Probe {
        self.init = lua.into();
        self
    }

    /// What produces the answer, instead of the echo.
    pub(crate) fn content(mut self, directives: &str) -> Probe {
        self.content = directives.into();
        self
    }

    /// Anything else about nginx: `|nginx| nginx.log_level("debug")`.
    pub(crate) fn nginx(mut self, change: impl FnOnce(Nginx) -> Nginx) -> Probe {
        self.nginx = change(self.nginx);
        self
    }

    /// Starts nginx; for tests that send several requests or none.
    pub(crate) fn start(self) -> Running {
        let Probe { nginx, guest, options, init, content, script } = self;
        nginx
            .guest(&guest)
            .file("probe.script", script)
            .http(
                &HTTP.replace("GUEST", &guest).replace("OPTIONS", &options).replace("INIT", &init),
            )
            .server(&SERVER.replace("CONTENT", &content))
            .start()
    }

    /// Runs `GET /`.
    pub(crate) fn run(self) -> Outcome {
        self.request("GET", |request| request)
    }

    /// Runs a request to `/` that the closure completes.
    pub(crate) fn request(
        self,
        method: &str,
        complete: impl FnOnce(Request) -> Request,
    ) -> Outcome {
        let nginx = self.start();
        let response = complete(nginx.request(method, "/")).send();
        nginx.stop();
        Outcome { nginx, response }
    }
}

impl Outcome {
    /// All that the guest logged, in order: `CALLBACK OP ARGS -> STATUS VALUE`. The lines of the check
    /// in the master are not among them: nginx logs at notice before its own log is open.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.nginx.guest_log("probe")
    }

    /// What it logged in one callback, without the callback's name: `OP ARGS -> STATUS VALUE`.
    pub(crate) fn of(&self, callback: &str) -> Vec<String> {
        let lines = self.lines();
        let of_callback =
            lines.iter().filter_map(|line| line.strip_prefix(callback)?.strip_prefix(' '));
        of_callback.map(Into::into).collect()
    }

    /// The failures that calls of the Lua API returned, as `FUNCTION: MESSAGE`.
    pub(crate) fn failures(&self) -> Vec<String> {
        self.nginx.log_texts("lua call failed: ")
    }
}

/// Failed calls are logged and not raised: what a request does after one is what the tests look at.
const HTTP: &str = r#"
init_by_lua_block {
    local wasm = require("resty.proxy-wasm")
    INIT

    local function call(name, ...)
        local result, err = wasm[name](...)
        if not result then
            ngx.log(ngx.NOTICE, "lua call failed: ", name, ": ", err)
        end
        return result
    end

    local file = assert(io.open("probe.script"))
    local script = file:read("*a"):gsub("@PREFIX@", ngx.config.prefix())
    file:close()
    local plugin = call("load", "probe", "GUEST.wasm", { calls = { allow = { "*", "unix:*" } }, OPTIONS })
    local ctx = plugin and call("on_configure", plugin, script ~= "" and script or nil)

    probe = { call = call, ctx = ctx }
}
"#;

const SERVER: &str = r#"
location / {
    rewrite_by_lua_block {
        probe.call("on_http_request_headers", probe.ctx)
    }
    access_by_lua_block {
        ngx.req.read_body()
        local body = ngx.req.get_body_data()
        if body or ngx.req.get_body_file() then
            probe.call("on_http_request_body", probe.ctx, body, true)
        end
    }
    header_filter_by_lua_block {
        probe.call("on_http_response_headers", probe.ctx)
    }
    body_filter_by_lua_block {
        probe.call("on_http_response_body", probe.ctx)
    }
    CONTENT
}
"#;
