//! Each configuration for nginx that the documentation shows starts, with the filters of `examples/`.

use super::support::tls::self_signed;
use super::support::{Nginx, listen_http2, root};
use std::fs;
use std::path::PathBuf;

/// The digest that `docs/cli.md` leaves out.
const DIGEST: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// README.md, and the pages of `docs/` and of the examples.
fn pages() -> Vec<PathBuf> {
    let files = |folder: PathBuf| {
        let entries = fs::read_dir(folder).expect("a folder");
        entries.map(|entry| entry.expect("an entry").path()).collect::<Vec<_>>()
    };
    let mut pages = vec![root().join("README.md")];
    pages.extend(files(root().join("docs")).into_iter().filter(|path| path.extension().is_some()));
    let examples = files(root().join("examples")).into_iter().map(|path| path.join("README.md"));
    pages.extend(examples.filter(|path| path.exists()));
    pages.sort();
    pages.retain(|path| path.extension().is_some_and(|end| end == "md"));
    pages
}

/// The blocks of a page that are marked as nginx's.
fn blocks(page: &str) -> Vec<&str> {
    let starts = page.match_indices("```nginx\n");
    starts
        .map(|(at, mark)| {
            let rest = &page[at + mark.len()..];
            &rest[..rest.find("```").expect("its end")]
        })
        .collect()
}

/// What the blocks take from the machine that they would run on, put into the test's folder.
fn nginx(certificate: &[u8]) -> Nginx {
    let mut nginx = Nginx::new()
        .file("cache/.keep", "")
        .file("ca.pem", certificate)
        .wat("bare")
        .http("lua_socket_log_errors off;\nupstream backend { server unix:nothing.sock; }\n");
    for entry in fs::read_dir(root().join("examples")).expect("a folder") {
        let path = entry.expect("an entry").path().join("build/release.wasm");
        if let Ok(module) = fs::read(&path) {
            let name = path.strip_prefix(root()).expect("below it").display().to_string();
            nginx = nginx.file(&name, &module).file(&format!("store/sha256/{DIGEST}.wasm"), module);
        }
    }
    nginx
}

/// The block in the words of this test: paths, ports and names of the machine are other ones.
fn adapted(block: &str) -> String {
    let mut text: String = block
        .lines()
        .filter(|line| !line.trim_start().starts_with("lua_package_"))
        .map(|line| format!("{line}\n"))
        .collect();
    let http2 = text.lines().find(|line| line.contains("http2;")).map(str::to_owned);
    if let Some(line) = http2 {
        text = text.replace(&line, &listen_http2("unix:h2.sock"));
    }
    for (what, by) in [
        ("listen 127.0.0.1:8080;", "listen unix:block.sock;"),
        ("/etc/nginx/my_filter.wasm", "bare.wasm"),
        (r#"trusted_certificate = "/etc/nginx/auth-ca.pem""#, "verify = false"),
        ("/etc/nginx/filters/waf.wasm", "bare.wasm"),
        (r#""/etc/nginx/filters/" .. name .. ".wasm""#, r#""bare.wasm""#),
        ("\"/var/cache/nginx-wasm\"", "ngx.config.prefix() .. \"cache\""),
        ("\"/var/lib/filters\"", "ngx.config.prefix() .. \"store\""),
        ("/etc/nginx/auth-ca.pem", "ca.pem"),
        ("unix:/run/nginx/origin.sock", "unix:origin.sock"),
        // Which are asked at once.
        ("{ \"10.0.0.7:8000\", \"10.0.0.8:8000\" }", "{ \"127.0.0.1:1\" }"),
        ("sha256:…", &format!("sha256:{DIGEST}")),
    ] {
        text = text.replace(what, by);
    }
    // A server without `listen` would listen on a port of the machine.
    if text.contains("server {") && !text.contains("listen ") {
        text = text.replace("server {", "server {\nlisten unix:block.sock;");
    }
    text
}

#[test]
fn every_block_starts() {
    let keys = tempfile::tempdir().expect("a folder");
    self_signed(keys.path(), "ca", "/CN=auth");
    let certificate = fs::read(keys.path().join("ca.pem")).expect("a certificate");
    let mut tried = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).expect("a page");
        for block in blocks(&text) {
            let mut block = adapted(block);
            if let Some(inner) = block.strip_prefix("http {\n") {
                block = inner.trim_end().strip_suffix('}').expect("its end").to_owned();
            }
            let mut nginx = nginx(&certificate);
            if !block.contains("init_by_lua_block") {
                nginx = nginx.http("init_by_lua_block { wasm = require(\"resty.proxy-wasm\") }\n");
            }
            let of_server = block.starts_with("location ");
            nginx = if of_server { nginx.server(&block) } else { nginx.http(&block) };
            println!("{}:\n{block}", page.display());
            let running = nginx.start();
            // Filters that ask services which are not there say so.
            if block.contains("remote-config/") {
                running.expect_log("HTTP call to config failed");
                running.expect_log("no rules: status 503");
            }
            // It comes with OpenResty only.
            if block.contains("require(\"cjson\")") {
                running.may_log("module 'cjson' not found");
            }
            tried += 1;
        }
    }
    assert!(tried >= 12, "{tried} blocks were found");
}
