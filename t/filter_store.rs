//! Filters by their references: `load(name, "oci://…")`.

use super::support::{Nginx, poll, root, valgrind};
use std::collections::HashSet;
use std::fs;

const DIGEST: &str = "0a0b0c0d0e0f00010203040506070809ffeeddccbbaa99887766554433221100";

#[test]
fn a_reference_is_looked_for_in_the_store() {
    let nginx = Nginx::new()
        .file(
            &format!("store/sha256/{DIGEST}.wasm"),
            wat::parse_file(root().join("t/guests/wat/bare.wat")).expect("a guest"),
        )
        .http(&format!(
            r#"
            init_by_lua_block {{
                local wasm = require("resty.proxy-wasm")
                local prefix = ngx.config.prefix()
                assert(wasm.setup({{ filter_store = prefix .. "store" }}))
                assert(wasm.load("one", "oci://registry.example.com/team/one@sha256:{DIGEST}"))
                said = {{ prefix }}
                local function fails(path)
                    local plugin, err = wasm.load("other", path)
                    assert(not plugin)
                    said[#said + 1] = err
                end
                fails("oci://registry.example.com/one:1.0")
                fails("oci://registry.example.com/one@sha256:{DIGEST}0")
                fails("oci://registry.example.com/one@sha256:" .. ("0"):rep(64))
            }}
            "#
        ))
        .server(r#"location /t { content_by_lua_block { ngx.print(table.concat(said, "\n")) } }"#)
        .start();
    let zeros = "0".repeat(64);
    let failed = "failed to load wasm plugin: oci://registry.example.com/one";
    let no_digest = "has no digest (@sha256:…): proxy-wasm pull says which it has";
    let text = nginx.get("/t").text();
    let (prefix, said) = text.split_once('\n').expect("two lines");
    assert_eq!(
        said.replace(prefix, "PREFIX/"),
        format!(
            "{failed}:1.0 {no_digest}\n{failed}@sha256:{DIGEST}0 {no_digest}\n\
             {failed}@sha256:{zeros} is not in PREFIX/store: \
             proxy-wasm pull --store PREFIX/store oci://registry.example.com/one@sha256:{zeros}"
        )
    );
}

#[test]
fn a_plugin_is_replaced_by_a_reference_in_all_workers() {
    if valgrind() {
        return;
    }
    let text = fs::read_to_string(root().join("t/guests/wat/bare.wat")).expect("a guest");
    let module = |hello: &str| wat::parse_str(text.replace("world!", hello)).expect("a module");
    let other = DIGEST.replace("0a0b", "1111");
    let nginx = Nginx::new()
        .workers(2)
        .file(&format!("store/sha256/{DIGEST}.wasm"), module("first!"))
        .file(&format!("store/sha256/{other}.wasm"), module("second"))
        .http(&format!(
            r#"
            init_by_lua_block {{
                wasm = require("resty.proxy-wasm")
                assert(wasm.setup({{ filter_store = ngx.config.prefix() .. "store" }}))
                plugin = assert(wasm.load("one", "oci://a.test/one@sha256:{DIGEST}"))
                chain = wasm.new_chain({{ assert(wasm.on_configure(plugin)) }})
            }}
            init_worker_by_lua_block {{ assert(wasm.init_worker()) }}
            "#
        ))
        .server(
            r#"
            location /t {
                access_by_lua_block { chain:access() }
                header_filter_by_lua_block { chain:header_filter() }
                content_by_lua_block { ngx.print(ngx.worker.pid()) }
            }
            location /replace {
                content_by_lua_block {
                    local ok, err = plugin:replace(ngx.var.arg_path)
                    ngx.print(ok and "replaced" or err)
                }
            }
            "#,
        )
        .start();
    let hello = || {
        let response = nginx.get("/t");
        (response.text(), response.header("hello").map(str::to_owned))
    };
    assert_eq!(hello().1.as_deref(), Some("first!"));
    let zeros = "0".repeat(64);
    let said = nginx.get(&format!("/replace?path=oci://a.test/one@sha256:{zeros}")).text();
    assert!(said.starts_with("failed to replace wasm plugin: oci://a.test/one@sha256:0"), "{said}");
    assert!(said.contains("proxy-wasm pull --store"), "{said}");
    let said = nginx.get("/replace?path=oci://a.test/one:1.0").text();
    assert!(said.contains("oci://a.test/one:1.0 has no digest"), "{said}");
    assert_eq!(hello().1.as_deref(), Some("first!"));

    let said = nginx.get(&format!("/replace?path=oci://a.test/one@sha256:{other}")).text();
    assert_eq!(said, "replaced");
    let mut workers = HashSet::new();
    let all = poll(|| {
        let (pid, hello) = hello();
        if hello.as_deref() == Some("second") {
            workers.insert(pid);
        }
        (workers.len() == 2).then_some(())
    });
    assert!(all.is_some(), "not all workers have followed: {workers:?}");
}
