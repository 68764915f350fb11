//! The headers of a response that filters see, read by the library from nginx's list and from nginx's fields, and by ngx_lua
//! where it does not know these.

use super::ops::of;
use super::support::Nginx;

/// With `X-Lend: 1` the library does not know the list.
const LENDS: &str = r#"
    local clib = require("resty.proxy-wasm.clib")
    local real, const = clib.lib, clib.const
    local function run(ctx, r, event, outcome, err)
        if ngx.var.http_x_lend == "1" and event.callback == const.RPW_RESPONSE_HEADERS and event.headers == nil then
            ngx.log(ngx.NOTICE, "lent")
            return const.RPW_NEED_RESPONSE_HEADERS
        end
        return real.rpw_stream_run(ctx, r, event, outcome, err)
    end
    clib.lib = setmetatable({ rpw_stream_run = run }, { __index = real })
"#;

/// More than `ENOUGH` of `src/ffi/response_fields.rs`.
const LEARNED: usize = 12;

const LOCATIONS: &str = r#"
    location / {
        header_filter_by_lua_block { wasm.on_http_response_headers(ctx) }

        location /said { return 200 "text"; }
        location /nothing { return 204; }
        location /moved { return 302 /elsewhere; }
        location /missing { return 404; }
        location /file { root .; }
        location /type { types { } default_type ""; root .; }
        location /proxied { proxy_pass http://unix:echo.sock; }
        location /dir/ { proxy_pass http://unix:echo.sock; }
        location /expires { expires 1h; add_header X-Added 1 always; return 200 "text"; }
        location /lua {
            content_by_lua_block {
                ngx.header["X-Two"] = { "2", "1" }
                ngx.header["X-Gone"] = "1"
                ngx.header["X-Gone"] = nil
                ngx.header["Set-Cookie"] = { "a=1", "b=2" }
                ngx.header["Cache-Control"] = { "no-cache", "private" }
                ngx.header["Content-Length"] = 2
                ngx.header["Last-Modified"] = ngx.http_time(1)
                ngx.print("ok")
            }
        }
        location /chunked { content_by_lua_block { ngx.header["Content-Type"] = "a/b; charset=c" ngx.print("ok") } }
    }
"#;

#[test]
fn they_are_those_that_ngx_lua_gives() {
    let script = "response_headers: args; response_headers: get_header_map_pairs 2";
    let load = format!(
        "{LENDS}
         wasm = require('resty.proxy-wasm')
         ctx = assert(wasm.on_configure(assert(wasm.load('probe', 'probe.wasm')), [==[{script}]==]))"
    );
    let nginx = Nginx::new()
        .guest("probe")
        .echo()
        .file("file", "a file")
        .file("type", "another")
        .http(&format!("init_by_lua_block {{ {load} }}"))
        .server(LOCATIONS)
        .start();
    let paths = [
        "said", "nothing", "moved", "missing", "file", "type", "proxied", "dir", "expires", "lua",
        "chunked",
    ];
    let send_all = || {
        for path in paths {
            for method in ["GET", "HEAD"] {
                // Of one length: the upstream answers with what it got.
                for lend in ["0", "1"] {
                    nginx.request(method, &format!("/{path}")).header("X-Lend", lend).send();
                }
            }
        }
    };
    send_all();
    // The library asks ngx_lua for some headers until so many responses had them in fields of nginx's.
    for _ in 0..LEARNED {
        nginx.get("/said");
    }
    send_all();
    nginx.stop();
    assert_eq!(nginx.log_texts("lent").len(), 4 * paths.len());
    let mut lines = of(&nginx, "response_headers");
    let one_round = 8 * paths.len();
    lines.drain(one_round..one_round + 2 * LEARNED);
    assert_eq!(lines.len(), 2 * one_round, "{lines:?}");
    let of_lines = || paths.iter().flat_map(|path| [path, path]);
    for (four, path) in lines.chunks(4).zip(of_lines().chain(of_lines())) {
        assert_eq!(four[0], four[2], "{path}: the number of headers");
        assert_eq!(sorted(&four[1]), sorted(&four[3]), "{path}");
    }
}

/// The order of names in ngx_lua's table is that of its hash; that of repeats is kept.
fn sorted(line: &str) -> Vec<&str> {
    let mut pairs: Vec<&str> = line.split('|').collect();
    pairs.sort_by_key(|pair| pair.split('=').next());
    pairs
}
