//! Finding the library: where it is looked for, and what is said when it is not there or not the right one.

use super::support::{Nginx, Running, library};
use std::fs;
use std::process::Command;

const FILE: &str = "libresty_proxy_wasm.so";

/// An nginx with a copy of the Lua files below `lua`, whose library is looked for in `cpath`.
fn copied(cpath: &str) -> Nginx {
    Nginx::new()
        .wat("bare")
        .lua_files("lua")
        .http(&format!("lua_package_path 'lua/?.lua;;';\nlua_package_cpath '{cpath}';\n"))
        .http(
            r#"init_by_lua_block {
                wasm = require("resty.proxy-wasm")
                ctx = assert(wasm.on_configure(assert(wasm.load("bare", "bare.wasm"))))
            }"#,
        )
        .server(
            "location /t { return 200; header_filter_by_lua_block { assert(wasm.on_http_response_headers(ctx)) } }
             location /path { content_by_lua_block { ngx.print(require('resty.proxy-wasm.clib').path) } }",
        )
}

fn works(nginx: &Running) -> String {
    assert_eq!(nginx.get("/t").header_all("hello"), ["world!"]);
    nginx.get("/path").text()
}

#[test]
fn in_the_folders_of_cpath() {
    for (cpath, path) in [
        ("native/?.so", "native/"),
        ("./native/?.so;/nowhere/?.so", "./native/"),
        ("/nowhere/?.so;native/lib?.so;;", "native/"),
        ("native/?/init.so", "native/"),
        // A template without a folder is one below the working directory, and one without a name is none.
        ("native/all.so;?.so", "./"),
    ] {
        let folder = if path == "./" { "" } else { "native/" };
        let nginx = copied(cpath).file(&format!("{folder}{FILE}"), library()).start();
        assert_eq!(works(&nginx), format!("{path}{FILE}"), "{cpath}");
    }
}

#[test]
fn beside_the_lua_files() {
    for (folder, path) in [
        ("lua/resty/proxy-wasm/", "lua/resty/proxy-wasm/"),
        ("lua/resty/", "lua/resty/proxy-wasm/../"),
        ("lua/", "lua/resty/proxy-wasm/../../"),
    ] {
        let nginx = copied("/nowhere/?.so").file(&format!("{folder}{FILE}"), library()).start();
        assert_eq!(works(&nginx), format!("{path}{FILE}"), "{folder}");
    }
}

#[test]
fn where_packages_put_it() {
    let multiarch = format!("usr/lib/{}-linux-gnu/lua/5.1", std::env::consts::ARCH);
    for folder in ["usr/lib/lua/5.1", "usr/lib64/lua/5.1", &multiarch] {
        let nginx = Nginx::new()
            .wat("bare")
            .lua_files("usr/share/lua/5.1")
            .file(&format!("{folder}/{FILE}"), library())
            .http("lua_package_path 'usr/share/lua/5.1/?.lua;;';\nlua_package_cpath '/nowhere/?.so';\n")
            .http("init_by_lua_block { require('resty.proxy-wasm') }")
            .server(
                "location /path { content_by_lua_block { ngx.print(require('resty.proxy-wasm').build().path) } }",
            )
            .start();
        assert_eq!(nginx.get("/path").text(), format!("{folder}/{FILE}"));
    }
}

#[test]
fn what_the_library_was_built_from() {
    let nginx = copied("native/?.so")
        .file(&format!("native/{FILE}"), library())
        .server(
            "location /build { content_by_lua_block {
                local built = wasm.build()
                ngx.print(built.version, ' ', built.wasmtime, ' ', built.target, ' ', built.commit, ' ', built.path)
            } }",
        )
        .start();
    use resty_proxy_wasm::version::{COMMIT, TARGET, VERSION, WASMTIME};
    let expected = format!("{VERSION} {WASMTIME} {TARGET} {COMMIT} native/{FILE}");
    assert_eq!(nginx.get("/build").text(), expected);
    assert!(WASMTIME.split('.').count() == 3 && TARGET.contains("-linux-"), "{expected}");
}

#[test]
fn cpath_comes_first() {
    let nginx = copied("native/?.so")
        .file(&format!("native/{FILE}"), library())
        .file(&format!("lua/{FILE}"), "no library")
        .start();
    assert_eq!(works(&nginx), format!("native/{FILE}"));
}

/// The first line of what is said without a library, and what ends it.
fn not_found(end: &str) -> String {
    let (version, cpu) = (env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    let libc = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
    format!(
        "resty.proxy-wasm: {FILE} was not found. Install the package of version {version} for \
         {cpu}-unknown-linux-{libc}, or put the library of its tarball into a folder of lua_package_cpath \
         (docs/install.md){end}"
    )
}

#[test]
fn missing() {
    let log = copied("/nowhere/?.so;/no/where/all.so;native/x?.so;/nowhere/?/x.so").start_fails();
    let expected = format!(
        "{}Looked at: /nowhere/{FILE}: no such file; native/{FILE}: no such file; \
         lua/resty/proxy-wasm/{FILE}: no such file; lua/resty/proxy-wasm/../{FILE}: no such file; \
         lua/resty/proxy-wasm/../../{FILE}: no such file\n",
        not_found("\n"),
    );
    assert!(log.contains(&expected), "{log}");
}

/// A gateway that continues without the module and does not say why.
fn swallowed(nginx: Nginx) -> String {
    let nginx = nginx
        .http("lua_package_path 'lua/?.lua;;';\nlua_package_cpath 'native/?.so';\n")
        .http(
            r#"init_by_lua_block { found, wasm = pcall(require, "resty.proxy-wasm") }
            init_worker_by_lua_block { pcall(require, "resty.proxy-wasm") }"#,
        )
        .server("location /found { content_by_lua_block { ngx.print(tostring(found)) } }")
        .start();
    nginx.expect_log("resty.proxy-wasm cannot be loaded: ");
    assert_eq!(nginx.get("/found").text(), "false");
    let log = nginx.error_log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("resty.proxy-wasm")).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains(" [error] "), "{lines:?}");
    lines[0].to_string()
}

#[test]
fn a_cause_that_the_caller_swallows_is_in_the_error_log() {
    let line = swallowed(Nginx::new().lua_files("lua"));
    let cause = format!(
        "{}Looked at: native/{FILE}: no such file; lua/resty/proxy-wasm/{FILE}: no such file; ",
        not_found("; "),
    );
    assert!(line.contains(&cause), "{line}");

    let other = compiled("int rpw_abi(void) { return 4711; }");
    let line = swallowed(Nginx::new().lua_files("lua").file(&format!("native/{FILE}"), other));
    assert!(line.contains(&format!("native/{FILE} has ABI 4711")), "{line}");

    // A part of another release, or none.
    for content in ["error('not this one')", "is no Lua"] {
        let parts =
            Nginx::new().lua_files("lua").file("lua/resty/proxy-wasm/http/chain.lua", content);
        let line = swallowed(parts.file(&format!("native/{FILE}"), library()));
        assert!(line.contains("resty/proxy-wasm/http/chain.lua"), "{line}");
    }
    let main = fs::read("lib/resty/proxy-wasm.lua").expect("a file");
    let line = swallowed(Nginx::new().file("lua/resty/proxy-wasm.lua", main));
    assert!(line.contains("module 'resty.proxy-wasm.cdef' not found"), "{line}");
}

#[test]
fn the_module_tells_its_name_and_version() {
    let nginx = copied("native/?.so")
        .file(&format!("native/{FILE}"), library())
        .server(
            "location /name { content_by_lua_block { ngx.print(wasm._NAME, ' ', wasm._VERSION) } }",
        )
        .start();
    let expected = concat!("lua-resty-proxy-wasm ", env!("CARGO_PKG_VERSION"));
    assert_eq!(nginx.get("/name").text(), expected);
}

#[test]
fn a_file_that_is_no_library() {
    let log = copied("native/?.so")
        .file(&format!("native/{FILE}"), "this is no shared library, whatever its name says")
        .start_fails();
    let expected = format!("Looked at: native/{FILE}: native/{FILE}: ");
    assert!(log.contains(&expected), "{log}");
}

#[test]
fn a_broken_library_is_passed_over() {
    let nginx = copied("broken/?.so;native/?.so")
        .file(&format!("broken/{FILE}"), "no library")
        .file(&format!("native/{FILE}"), library())
        .start();
    assert_eq!(works(&nginx), format!("native/{FILE}"));
}

/// A shared library made of these lines of C.
fn compiled(code: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a directory");
    let (source, output) = (dir.path().join("x.c"), dir.path().join("x.so"));
    fs::write(&source, code).expect("a file");
    let status =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&output).arg(&source).status();
    assert!(status.expect("a C compiler").success());
    fs::read(&output).expect("a library")
}

#[test]
fn a_library_of_another_release() {
    let log = copied("native/?.so")
        .file(&format!("native/{FILE}"), compiled("int rpw_abi(void) { return 4711; }"))
        .start_fails();
    let cdef = fs::read_to_string("lib/resty/proxy-wasm/cdef.lua").expect("a file");
    let (_, rest) = cdef.split_once("RPW_ABI = ").expect("a number");
    let (wanted, _) = rest.split_once(',').expect("a number");
    let expected = format!(
        "resty.proxy-wasm: native/{FILE} has ABI 4711, and these Lua files (lua/resty/proxy-wasm/clib.lua) need ABI \
         {wanted}: install both from one release"
    );
    assert!(log.contains(&expected), "{log}");
}

#[test]
fn another_library_of_that_name() {
    let log = copied("native/?.so")
        .file(&format!("native/{FILE}"), compiled("int other(void) { return 0; }"))
        .start_fails();
    let expected = format!("resty.proxy-wasm: native/{FILE} is not this library: ");
    assert!(log.contains(&expected), "{log}");
}
