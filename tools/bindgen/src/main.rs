//! Writes the two descriptions of the library's C ABI from `src/ffi`, in one run so that they agree: the header for C
//! programs, and from its text the declarations for LuaJIT. Their number, which both halves compare, comes from these
//! declarations.
//!
//! `--check` writes nothing and fails when a committed file differs.
#![allow(clippy::disallowed_methods, reason = "a build tool reads and writes files")]

mod cdef;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::{env, fs};

use sha2::Digest;

const HEADER: &str = "include/resty_proxy_wasm.h";
const NUMBER: &str = "src/ffi/abi_number.rs";
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
    let (header, number) = numbered(&header(root)?)?;
    let source = fs::read_to_string(root.join(NUMBER))?;
    let source = with_number(&source, "RPW_ABI: i32 = ", ";", number)?;
    let cdef = cdef::from_header(&header, env!("CARGO_PKG_VERSION"))?;
    for (name, content) in [(NUMBER, source), (HEADER, header), (CDEF, cdef)] {
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

/// The header with the number of what it declares, and that number.
fn numbered(header: &str) -> Result<(String, u32), Box<dyn Error>> {
    let with = |number| with_number(header, "#define RPW_ABI ", "\n", number);
    // Without comments, and the same for each release.
    let declared = cdef::from_header(&with(0)?, "")?;
    let words: Vec<&str> = declared.split_whitespace().collect();
    let digest = sha2::Sha256::digest(words.join(" "));
    let first = digest.first_chunk().ok_or("a digest of less than four bytes")?;
    // C and Lua have it as a positive `int`.
    let number = u32::from_be_bytes(*first) >> 1;
    Ok((with(number)?, number))
}

/// A text with another number between these two texts.
fn with_number(
    text: &str,
    before: &str,
    behind: &str,
    number: u32,
) -> Result<String, Box<dyn Error>> {
    let (front, rest) = text.split_once(before).ok_or_else(|| format!("no `{before}`"))?;
    let (_, rest) = rest.split_once(behind).ok_or("a number without an end")?;
    Ok(format!("{front}{before}{number}{behind}{rest}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "#define RPW_ABI 7\n#define RPW_A 1\nint rpw_x(int a);\n";

    #[test]
    fn the_number_changes_with_declarations_and_constants_only() {
        let number = |header: &str| numbered(header).expect("a header").1;
        let one = number(HEADER);
        let (renewed, _) = numbered(HEADER).expect("a header");
        assert!(renewed.starts_with(&format!("#define RPW_ABI {one}\n#define RPW_A 1\n")));
        assert!(one < 1 << 31);
        for same in [renewed.as_str(), &HEADER.replace("int rpw_x", "/* other words */ int rpw_x")]
        {
            assert_eq!(number(same), one, "{same}");
        }
        for other in [HEADER.replace("int a", "long a"), HEADER.replace("A 1", "A 2")] {
            assert_ne!(number(&other), one, "{other}");
        }
    }
}
