//! What a module's code shows of itself before it runs, so that nothing is fetched from nginx that the
//! guest cannot see.

use wasmparser::{ExternalKind, Operator, Parser, Payload, TypeRef};

/// See the module. The fields say what a guest *may* see; when in doubt they are true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// It imports a function that shows it headers or properties.
    pub reads_headers: bool,
    /// `proxy_on_request_headers` looks at its second or third parameter.
    pub request_arguments: bool,
    /// `proxy_on_response_headers` looks at its second or third parameter.
    pub response_arguments: bool,
}

/// Imports through which headers can be seen.
const READERS: [&str; 5] = [
    "proxy_get_header_map_size",
    "proxy_get_header_map_pairs",
    "proxy_get_header_map_value",
    "proxy_set_header_map_pairs",
    "proxy_get_property",
];

impl Profile {
    /// Reads a module that is known to be valid.
    pub fn of(bytes: &[u8]) -> Self {
        let all = Self { reads_headers: true, request_arguments: true, response_arguments: true };
        scan(bytes).unwrap_or(all)
    }
}

fn scan(bytes: &[u8]) -> Result<Profile, wasmparser::BinaryReaderError> {
    let mut profile =
        Profile { reads_headers: false, request_arguments: false, response_arguments: false };
    let mut function = 0;
    let mut exports: [Option<u32>; 2] = [None, None];
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import?;
                    if matches!(import.ty, TypeRef::Func(_) | TypeRef::FuncExact(_)) {
                        function += 1;
                    }
                    profile.reads_headers |= READERS.contains(&import.name);
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export?;
                    let slot = match export.name {
                        "proxy_on_request_headers" => &mut exports[0],
                        "proxy_on_response_headers" => &mut exports[1],
                        _ => continue,
                    };
                    if export.kind == ExternalKind::Func {
                        *slot = Some(export.index);
                    }
                }
                // An imported function exported again: nothing to look into.
                profile.request_arguments = exports[0].is_some_and(|index| index < function);
                profile.response_arguments = exports[1].is_some_and(|index| index < function);
            }
            Payload::CodeSectionEntry(body) => {
                for (export, used) in
                    [(0, &mut profile.request_arguments), (1, &mut profile.response_arguments)]
                {
                    if exports[export] == Some(function) {
                        *used = reads_arguments(&body)?;
                    }
                }
                function += 1;
            }
            _ => {}
        }
    }
    Ok(profile)
}

/// True when the code reads its second or third parameter.
fn reads_arguments(body: &wasmparser::FunctionBody<'_>) -> Result<bool, wasmparser::BinaryReaderError> {
    for operator in body.get_operators_reader()? {
        if let Operator::LocalGet { local_index: 1 | 2 } = operator? {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(text: &str) -> Profile {
        Profile::of(&wat::parse_str(text).unwrap())
    }

    #[test]
    fn a_filter_that_only_writes_needs_nothing() {
        let bare = profile(
            r#"(module
                (import "env" "proxy_add_header_map_value" (func (param i32 i32 i32 i32 i32) (result i32)))
                (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (local i32)
                    local.get 0 drop local.get 3)
                (func (param i32 i32) local.get 1 drop))"#,
        );
        assert_eq!(
            bare,
            Profile { reads_headers: false, request_arguments: false, response_arguments: false }
        );
    }

    #[test]
    fn uses_are_seen() {
        let all = profile(
            r#"(module
                (import "env" "proxy_get_property" (func (param i32 i32 i32 i32) (result i32)))
                (import "env" "x" (func $x (param i32 i32 i32) (result i32)))
                (export "proxy_on_request_headers" (func $x))
                (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) local.get 2))"#,
        );
        assert_eq!(
            all,
            Profile { reads_headers: true, request_arguments: true, response_arguments: true }
        );
    }
}
