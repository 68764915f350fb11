//! From the text of a C header to a Lua module that declares the same to LuaJIT.
//!
//! LuaJIT's C parser takes no preprocessor lines, so comments, includes and the C++ branches go, and each constant
//! becomes a field of the table that the module returns.

/// The Lua module for a header as cbindgen writes it, of this release.
pub(crate) fn from_header(header: &str, version: &str) -> Result<String, String> {
    let mut declarations = String::new();
    let mut constants = String::new();
    // For each open conditional: is its present branch the one that a C compiler sees?
    let mut branches: Vec<bool> = Vec::new();
    let code = without_comments(header);
    for line in code.lines().map(str::trim_end) {
        let mut words = line.split_whitespace();
        match words.next() {
            None => {}
            Some("#ifdef") => branches.push(false),
            Some("#ifndef") => branches.push(true),
            // LuaJIT knows the C of 1999, and no enum with a type.
            Some("#if") if line.contains("__cplusplus") || line.contains("202311L") => {
                branches.push(false);
            }
            Some("#else") => {
                let branch = branches.last_mut().ok_or("an #else without an #if")?;
                *branch = !*branch;
            }
            Some("#endif") => {
                branches.pop().ok_or("an #endif without an #if")?;
            }
            _ if branches.contains(&false) => {}
            Some("#include") => {}
            Some("#define") => {
                let name = words.next().ok_or("a #define without a name")?;
                let value = words.collect::<Vec<_>>().join(" ");
                // The include guard has no value.
                if !value.is_empty() {
                    constants += &format!("    {name} = {},\n", lua_value(name, &value)?);
                }
            }
            Some(word) if word.starts_with('#') => {
                return Err(format!("a preprocessor line that LuaJIT has no equal of: {line}"));
            }
            Some(_) => {
                declarations += line;
                declarations += "\n";
            }
        }
    }
    if declarations.contains("]]") {
        return Err("a declaration that holds the end of a Lua string".into());
    }
    Ok(format!(
        "-- Generated from src/ffi by ./build.sh generate: do not edit.\n\
         local ffi = require(\"ffi\")\n\
         \n\
         ffi.cdef([[\n{declarations}]])\n\
         \n\
         return {{\n    RPW_VERSION = \"{version}\",\n{constants}}}\n"
    ))
}

/// The names of a header's constants; the include guard has no value and is none.
pub(crate) fn constants(header: &str) -> impl Iterator<Item = String> {
    header.lines().filter_map(|line| {
        let mut words = line.strip_prefix("#define ")?.split_whitespace();
        let name = words.next()?;
        words.next().map(|_| name.into())
    })
}

/// The constants that Lua can hold as C writes them: whole numbers of at most 53 bits, and plain strings.
fn lua_value(name: &str, value: &str) -> Result<String, String> {
    let number = value.trim_end_matches(['u', 'U', 'l', 'L']);
    let exact = match number.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16),
        None => number.parse(),
    };
    let string = value.len() >= 2 && value.starts_with('"') && value.ends_with('"');
    match exact {
        Ok(exact) if exact.unsigned_abs() < 1 << 53 => Ok(number.into()),
        _ if string && !value.contains('\\') => Ok(value.into()),
        _ => Err(format!("constant {name}: {value} has no equal in Lua")),
    }
}

fn without_comments(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    loop {
        let block = rest.find("/*");
        let line = rest.find("//");
        let (start, end) = match (block, line) {
            (None, None) => break,
            (Some(block), line) if line.is_none_or(|line| block < line) => {
                (block, rest[block..].find("*/").map(|length| block + length + 2))
            }
            (_, line) => {
                let line = line.unwrap_or(rest.len());
                (line, rest[line..].find('\n').map(|length| line + length))
            }
        };
        code += &rest[..start];
        rest = &rest[end.unwrap_or(rest.len())..];
    }
    code + rest
}

#[cfg(test)]
mod tests {
    use super::from_header;

    #[test]
    fn declarations_and_constants() {
        let header = r#"
#ifndef GUARD_H
#define GUARD_H
/* Generated */
#include <stdint.h>
// a line
#define RPW_ABI 3
#define RPW_MASK 0xff
#define RPW_NAME "x"
enum rpw_action
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  RPW_CONTINUE = 0,
};
#ifndef __cplusplus
typedef int32_t rpw_action;
#else
nonsense
#endif
#ifdef __cplusplus
extern "C" {
#endif
/**
 * Doc // with both.
 */
int rpw_x(const char *a /* here */, size_t n);
#endif
"#;
        let expected = r#"-- Generated from src/ffi by ./build.sh generate: do not edit.
local ffi = require("ffi")

ffi.cdef([[
enum rpw_action
 {
  RPW_CONTINUE = 0,
};
typedef int32_t rpw_action;
int rpw_x(const char *a , size_t n);
]])

return {
    RPW_VERSION = "1.2.3",
    RPW_ABI = 3,
    RPW_MASK = 0xff,
    RPW_NAME = "x",
}
"#;
        assert_eq!(from_header(header, "1.2.3").unwrap(), expected);
    }

    #[test]
    fn what_has_no_equal_is_refused() {
        for line in ["#define X (1 << 3)", "#define X 18446744073709551615", "#if X", "#endif"] {
            assert!(from_header(line, "1.2.3").is_err(), "{line}");
        }
    }
}
