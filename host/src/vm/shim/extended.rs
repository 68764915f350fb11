//! A guest's module with one function more: that which looks headers up.
//!
//! The guest calls it in place of the host function that it imports. It is part of the guest's module, and not of one
//! beside it, for two reasons. A call of it is a direct one, which wasmtime can inline; so is its call of the allocator. And
//! what a guest imports must be there before its memory and its allocator are.
//!
//! The module that comes out has
//! - the function, behind all others. What called the import calls it.
//! - a memory behind the guest's, which it exports as [`MEMORY`]. There the host shows headers to the function.

use std::convert::Infallible;

use wasm_encoder::reencode::{Error, Reencode, utils};
use wasm_encoder::{
    CodeSection, ExportKind, ExportSection, FunctionSection, MemorySection, Module,
};
use wasmparser::{
    BinaryReaderError, CodeSectionReader, ExportSectionReader, ExternalKind, FuncType,
    FunctionSectionReader, MemorySectionReader, Parser, Payload, TypeRef, ValType,
};

use super::look_up;
use crate::abi::ALLOCATORS;

/// The export that is the memory for headers.
pub(crate) const MEMORY: &str = "headers of the host";

/// The module that is run in place of a guest's. `None` for a guest that does not ask for headers by their names, that has no
/// allocator, or that is not valid: this is asked last, for it takes the longest.
pub(crate) fn extended(bytes: &[u8], is_valid: impl FnOnce() -> bool) -> Option<Vec<u8>> {
    let mut extension = Parts::of(bytes).ok()?.extension()?;
    if !is_valid() {
        return None;
    }
    let mut module = Module::new();
    extension.parse_core_module(&mut module, Parser::new(0), bytes).ok()?;
    Some(module.finish())
}

/// What must be known of a guest.
#[derive(Default)]
struct Parts {
    types: Vec<FuncType>,
    /// Type of each function, imports first.
    functions: Vec<u32>,
    /// The function that is asked for headers.
    asked: Option<u32>,
    memories: u32,
    exports: Vec<(String, ExternalKind, u32)>,
}

impl Parts {
    fn of(bytes: &[u8]) -> Result<Self, BinaryReaderError> {
        let mut parts = Self::default();
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::TypeSection(section) => {
                    parts.types = section.into_iter_err_on_gc_types().collect::<Result<_, _>>()?;
                }
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import?;
                        let TypeRef::Func(ty) = import.ty else { continue };
                        if (import.module, import.name) == ("env", look_up::NAME) {
                            parts.asked = Some(parts.functions.len() as u32);
                        }
                        parts.functions.push(ty);
                    }
                }
                Payload::FunctionSection(section) => {
                    for ty in section {
                        parts.functions.push(ty?);
                    }
                }
                Payload::MemorySection(section) => parts.memories = section.count(),
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export?;
                        parts.exports.push((export.name.into(), export.kind, export.index));
                    }
                }
                // What is wanted comes before the code.
                Payload::CodeSectionStart { .. } => break,
                _ => {}
            }
        }
        Ok(parts)
    }

    fn extension(&self) -> Option<Extension> {
        let asked = self.asked?;
        let of_guest = ALLOCATORS.iter().find_map(|name| self.export(name))?;
        let (ExternalKind::Func, allocate) = of_guest else { return None };
        let fits = self.is_of(asked, look_up::PARAMS as usize)
            && self.is_of(allocate, 1)
            && self.memories == 1
            && self.export(MEMORY).is_none();
        let own = self.functions.len() as u32;
        fits.then(|| Extension { asked, ty: self.functions[asked as usize], allocate, own })
    }

    fn export(&self, name: &str) -> Option<(ExternalKind, u32)> {
        let export = self.exports.iter().find(|(known, ..)| known == name);
        export.map(|(_, kind, index)| (*kind, *index))
    }

    /// Whether a function takes so many numbers of 32 bits, and returns one.
    fn is_of(&self, function: u32, params: usize) -> bool {
        let ty = self.functions.get(function as usize).and_then(|ty| self.types.get(*ty as usize));
        ty.is_some_and(|ty| {
            ty.params() == vec![ValType::I32; params] && ty.results() == [ValType::I32]
        })
    }
}

/// What is changed.
struct Extension {
    /// The import, and the number of its type.
    asked: u32,
    ty: u32,
    allocate: u32,
    /// The number of the function that is added.
    own: u32,
}

impl Reencode for Extension {
    type Error = Infallible;

    fn function_index(&mut self, function: u32) -> Result<u32, Error> {
        Ok(if function == self.asked { self.own } else { function })
    }

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: FunctionSectionReader<'_>,
    ) -> Result<(), Error> {
        utils::parse_function_section(self, functions, section)?;
        functions.function(self.ty);
        Ok(())
    }

    fn parse_memory_section(
        &mut self,
        memories: &mut MemorySection,
        section: MemorySectionReader<'_>,
    ) -> Result<(), Error> {
        utils::parse_memory_section(self, memories, section)?;
        memories.memory(look_up::MEMORY_TYPE);
        Ok(())
    }

    fn parse_export_section(
        &mut self,
        exports: &mut ExportSection,
        section: ExportSectionReader<'_>,
    ) -> Result<(), Error> {
        utils::parse_export_section(self, exports, section)?;
        exports.export(MEMORY, ExportKind::Memory, look_up::SHOWN);
        Ok(())
    }

    fn parse_code_section(
        &mut self,
        code: &mut CodeSection,
        section: CodeSectionReader<'_>,
    ) -> Result<(), Error> {
        utils::parse_code_section(self, code, section)?;
        code.function(&look_up::body(self.asked, self.allocate));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmparser::{Operator, Validator, WasmFeatures};

    const ASKED: &str = r#"(import "env" "proxy_get_header_map_value"
        (func $asked (param i32 i32 i32 i32 i32) (result i32)))"#;
    const ALLOCATOR: &str =
        r#"(func $allocate (export "malloc") (param i32) (result i32) (local.get 0))"#;
    const MEMORY_OF_GUEST: &str = r#"(memory (export "memory") 1)"#;

    fn module(parts: &[&str]) -> Vec<u8> {
        wat::parse_str(format!("(module {})", parts.join("\n"))).unwrap()
    }

    /// The functions that each function of a module calls.
    fn calls(bytes: &[u8]) -> Vec<Vec<u32>> {
        let mut found = Vec::new();
        for payload in Parser::new(0).parse_all(bytes) {
            let Payload::CodeSectionEntry(body) = payload.unwrap() else { continue };
            let mut calls = Vec::new();
            for operator in body.get_operators_reader().unwrap() {
                if let Operator::Call { function_index } | Operator::ReturnCall { function_index } =
                    operator.unwrap()
                    && !calls.contains(&function_index)
                {
                    calls.push(function_index);
                }
            }
            found.push(calls);
        }
        found
    }

    #[test]
    fn the_function_is_called_in_place_of_the_import_and_nothing_else_changes() {
        let guest = module(&[
            r#"(import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))"#,
            ASKED,
            r#"(import "env" "proxy_done" (func $done (result i32)))"#,
            MEMORY_OF_GUEST,
            "(table 2 funcref) (elem (i32.const 0) $asked $log)",
            ALLOCATOR,
            r#"(func $ask (export "ask") (result i32)
                (drop (call $done)) (drop (call $allocate (i32.const 8)))
                (call $asked (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))"#,
        ]);
        assert_eq!(calls(&guest), [vec![], vec![2, 3, 1]]);
        let extended = extended(&guest, || true).expect("it is extended");
        Validator::new_with_features(WasmFeatures::all()).validate_all(&extended).unwrap();
        // That one is called where the function cannot answer; the other one is the allocator.
        assert_eq!(calls(&extended), [vec![], vec![2, 3, 5], vec![1, 3]]);
        let parts = Parts::of(&extended).unwrap();
        let memory = |index| Some((ExternalKind::Memory, index));
        assert_eq!((parts.export("memory"), parts.export(MEMORY)), (memory(0), memory(1)));
        assert_eq!((parts.asked, parts.export("ask")), (Some(1), Some((ExternalKind::Func, 4))));
    }

    #[test]
    fn filters_that_compilers_make_are_extended() {
        let c: &[u8] = include_bytes!("../../../../t/guests/build/probe.wasm");
        let rust: &[u8] = include_bytes!("../../../../t/guests/build/rust_filter.wasm");
        for (name, bytes) in [("c", c), ("rust", rust)] {
            let extended = extended(bytes, || true).expect(name);
            let checked = Validator::new_with_features(WasmFeatures::all()).validate_all(&extended);
            assert_eq!(checked.err().map(|e| e.to_string()), None, "{name}");
        }
    }

    #[test]
    fn other_modules_stay_as_they_are() {
        let whole = [ASKED, MEMORY_OF_GUEST, ALLOCATOR];
        let with_start = [&whole[..], &["(func $start) (start $start)"]].concat();
        for parts in [&whole[..], &with_start] {
            assert!(extended(&module(parts), || true).is_some());
        }
        for without in 0..whole.len() {
            let mut parts = whole.to_vec();
            parts.remove(without);
            assert_eq!(extended(&module(&parts), || true), None, "{parts:?}");
        }
        let also = |part| [&whole[..], &[part]].concat();
        let with = |place: usize, part| {
            let mut parts = whole;
            parts[place] = part;
            parts.to_vec()
        };
        for parts in [
            also(r#"(memory (export "headers of the host") 1)"#),
            also("(memory 1)"),
            with(
                0,
                r#"(import "other" "proxy_get_header_map_value"
                (func (param i32 i32 i32 i32 i32) (result i32)))"#,
            ),
            with(
                0,
                r#"(import "env" "proxy_get_header_map_value" (func (param i32) (result i32)))"#,
            ),
            with(2, r#"(func (export "malloc") (param i32) (result i64) (i64.const 0))"#),
            with(2, r#"(global (export "malloc") i32 (i32.const 0))"#),
        ] {
            assert_eq!(extended(&module(&parts), || true), None, "{parts:?}");
        }
        assert_eq!(extended(&module(&whole), || false), None);
        assert_eq!(extended(b"no module", || true), None);
    }
}
