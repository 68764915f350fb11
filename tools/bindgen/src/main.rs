//! Writes the two descriptions of the library's C ABI from `src/ffi`, in one run so that they agree: the header for C
//! programs, and from its text the declarations for LuaJIT.
//!
//! `--check` writes nothing and fails when a committed file differs.
#![allow(clippy::disallowed_methods, reason = "a build tool reads and writes files")]

mod cdef;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::{env, fs};

const HEADER: &str = "include/resty_proxy_wasm.h";
const CDEF: &str = "lib/resty/proxy-wasm/cdef.lua";
const RENEW: &str = "./build.sh generate";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let check = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--check"] => true,
        _ => {
            eprintln!("usage: rpw-bindgen [--check]");
            return ExitCode::FAILURE;
        }
    };
    // Asked at run time: checkouts that share a target directory share this program.
    let manifest = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| "tools/bindgen".into());
    match run(&Path::new(&manifest).join("../.."), check) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rpw-bindgen: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(root: &Path, check: bool) -> Result<(), Box<dyn Error>> {
    let header = header(root)?;
    let cdef = cdef::from_header(&header, env!("CARGO_PKG_VERSION"))?;
    for (name, content) in [(HEADER, header), (CDEF, cdef)] {
        let path = root.join(name);
        let current = fs::read_to_string(&path).unwrap_or_default();
        if current == content {
            continue;
        }
        if check {
            return Err(format!("{name} is stale: renew it with `{RENEW}`").into());
        }
        fs::create_dir_all(path.parent().unwrap_or(root))?;
        fs::write(&path, content)?;
        println!("{name} renewed");
    }
    Ok(())
}

/// The C header of everything in `src/ffi` that is public and has a name of ours. cbindgen follows the module's files
/// and reads no others: constants of the core are no part of the C ABI.
fn header(root: &Path) -> Result<String, Box<dyn Error>> {
    let mut config = cbindgen::Config::from_file(root.join("cbindgen.toml"))?;
    let all = header_with(root, config.clone())?;
    // cbindgen looks at the visibility of a constant, but not of the module around it.
    config.export.exclude.extend(cdef::constants(&all).filter(|name| !name.starts_with("RPW_")));
    header_with(root, config)
}

fn header_with(root: &Path, config: cbindgen::Config) -> Result<String, Box<dyn Error>> {
    let bindings = cbindgen::Builder::new()
        .with_config(config)
        .with_src(root.join("src/ffi/mod.rs"))
        .generate()?;
    let mut text = Vec::new();
    bindings.write(&mut text);
    Ok(String::from_utf8(text)?)
}
