//! Filters by their references: `load(name, "oci://…")`.

use super::support::{Nginx, root};

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
