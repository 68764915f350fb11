//! The module where there is no http {}: a hook that http {} and stream {} share loads it in both.

use super::support::{Nginx, Running, nginx_takes};
use std::io::Read as _;
use std::os::unix::net::UnixStream;

/// Calls each function of the module and says what it answers, in order of the names.
const CALL_ALL: &str = r#"
return function(wasm)
    local lines = {}
    for name, call in pairs(wasm) do
        if type(call) == "function" then
            local result, err = call("x", "bare.wasm", {})
            lines[#lines + 1] = name .. ": " .. tostring(result) .. " " .. tostring(err) .. "\n"
        end
    end
    table.sort(lines)
    return wasm._NAME .. " " .. wasm._VERSION .. "\n" .. table.concat(lines)
end
"#;

/// That `answered` has a line for each function that the module has in http {}, and each is refused.
fn all_refused(nginx: &Running, answered: &str) {
    let names = nginx.get("/names").text();
    let names: Vec<&str> = names.lines().collect();
    assert!(names.len() > 10, "{names:?}");
    let mut expected = format!("lua-resty-proxy-wasm {}\n", env!("CARGO_PKG_VERSION"));
    for name in names {
        expected += name;
        expected += ": nil bad request: Proxy-Wasm filters run in http {}, and this is stream {}\n";
    }
    assert_eq!(answered, expected);
}

fn nginx() -> Nginx {
    Nginx::new().wat("bare").file("hook.lua", CALL_ALL).server(
        r#"
        location /names {
            content_by_lua_block {
                local names = {}
                for name, value in pairs(require("resty.proxy-wasm")) do
                    if type(value) == "function" then
                        names[#names + 1] = name .. "\n"
                    end
                end
                table.sort(names)
                ngx.print(names)
            }
        }
        location /as_in_stream {
            content_by_lua_block {
                local call_all = dofile("hook.lua")
                local config = setmetatable({ subsystem = "stream" }, { __index = ngx.config })
                local other = setmetatable({ config = config }, { __index = ngx })
                local file = assert(package.searchpath("resty.proxy-wasm", package.path))
                local load = setfenv(assert(loadfile(file)), setmetatable({ ngx = other }, { __index = _G }))
                ngx.print(call_all(load()))
            }
        }
        "#,
    )
}

#[test]
fn where_there_is_no_http_each_call_is_refused() {
    let nginx = nginx().start();
    all_refused(&nginx, &nginx.get("/as_in_stream").text());
}

#[test]
fn a_hook_of_http_and_stream() {
    let directive = "stream { init_by_lua_block { require(\"resty.core\") } }";
    if !nginx_takes(directive) {
        eprintln!("this nginx has no Lua in stream {{}}");
        return;
    }
    let hook = r#"call_all = dofile("hook.lua") wasm = require("resty.proxy-wasm")"#;
    let nginx = nginx()
        .main(&format!(
            r#"stream {{
                {}
                init_by_lua_block {{ {hook} }}
                init_worker_by_lua_block {{ assert(not wasm.init_worker()) }}
                server {{
                    listen unix:stream.sock;
                    content_by_lua_block {{ ngx.print(call_all(wasm)) }}
                }}
            }}"#,
            super::support::lua_paths()
                .map(|(directive, value)| format!("{directive} \"{value}\";"))
                .join("\n")
        ))
        .http(&format!(
            r#"
            init_by_lua_block {{
                {hook}
                ctx = assert(wasm.on_configure(assert(wasm.load("bare", "bare.wasm"))))
            }}
            init_worker_by_lua_block {{ assert(wasm.init_worker()) }}
            "#
        ))
        .server(
            "location /t {
                return 200;
                header_filter_by_lua_block { assert(wasm.on_http_response_headers(ctx)) }
            }",
        )
        .start();
    assert_eq!(nginx.get("/t").header_all("hello"), ["world!"]);
    let mut stream = UnixStream::connect(nginx.path("stream.sock")).expect("a connection");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("text");
    all_refused(&nginx, &text);
}
