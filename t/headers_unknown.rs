//! An nginx whose lists of headers the library does not find: ngx_lua's functions do what they can.

use super::support::Nginx;

/// Has the library answer that it does not know the lists.
const UNKNOWN: &str = r#"
    local clib = require("resty.proxy-wasm.clib")
    local real, unknown = clib.lib, {}
    for _, name in ipairs({
        "header_line_add", "response_line_remove", "response_line_clear", "response_line_blank", "request_line_count",
        "response_charset_forget",
    }) do
        unknown["rpw_" .. name] = function() return clib.const.RPW_LINE_UNKNOWN end
    end
    clib.lib = setmetatable(unknown, { __index = real })
"#;

#[test]
fn ngx_lua_does_what_it_can() {
    let script = "request_headers: add_header_map_value 0 x-a 1; request_headers: add_header_map_value 0 via two
                  request_headers: replace_header_map_value 0 x_b 2
                  response_headers: add_header_map_value 2 via two; response_headers: add_header_map_value 2 etag two
                  response_headers: add_header_map_value 2 x_c 1; response_headers: remove_header_map_value 2 server
                  response_headers: replace_header_map_value 2 content-type image/png
                  response_headers: remove_header_map_value 2 x-gone
                  response_headers: add_header_map_value 2 x-empty ''";
    let answer = "request_headers@first: send_local_response 403 '' no 'x_d=1|content-type=text/html|etag=e' max";
    let load = format!(
        "{UNKNOWN}
         local wasm = require('resty.proxy-wasm')
         local plugin = assert(wasm.load('probe', 'probe.wasm'))
         chain = wasm.new_chain({{ assert(wasm.on_configure(plugin, [==[{script}]==])) }})
         deny = wasm.new_chain({{ assert(wasm.on_configure(plugin, [==[{answer}]==])) }})"
    );
    let nginx = Nginx::new()
        .guest("probe")
        .echo()
        .http(&format!("init_by_lua_block {{ {load} }}"))
        .server(
            r#"
            location / {
                access_by_lua_block { chain:access() }
                header_filter_by_lua_block { ngx.header["X-Gone"] = 1 chain:header_filter() }
                proxy_pass http://unix:echo.sock;
            }
            location /deny {
                access_by_lua_block { deny:access() }
                header_filter_by_lua_block { deny:header_filter() }
                body_filter_by_lua_block { deny:body_filter() }
                proxy_pass http://unix:echo.sock;
            }
            "#,
        )
        .start();
    nginx.expect_log("the lists of headers of this nginx are not known");
    for _ in 0..2 {
        let response = nginx.get("/");
        assert_eq!(response.status, 200);
        assert_eq!(response.header("content-type"), Some("image/png"));
        assert_eq!(response.header("etag"), Some("two"));
        assert_eq!(response.header("via"), Some("two"));
        assert_eq!(response.header("x-gone"), None);
        // ngx_lua writes underscores of a response's headers as hyphens.
        assert_eq!(response.header("x-c"), Some("1"));
        let text = response.text().to_lowercase();
        for line in ["x-a: 1", "via: two", "x_b: 2"] {
            assert!(text.contains(&format!("\r\n{line}\r\n")), "{line}: {text}");
        }
        let denied = nginx.get("/deny");
        assert_eq!((denied.status, denied.text().as_str()), (403, "no"));
        assert_eq!(denied.header("content-type"), Some("text/html"));
        assert_eq!(denied.header("etag"), Some("e"));
    }
    assert_eq!(nginx.log_texts("the lists of headers of this nginx are not known").len(), 1);
}
