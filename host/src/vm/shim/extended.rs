//! A guest's module with more functions: those in front of host functions that hand over a value, see the [folder](super).
//!
//! The guest calls them in place of the host functions that it imports. They are part of the guest's module, and not of one
//! beside it, for two reasons. A call of them is a direct one, which wasmtime can inline; so is their call of the allocator.
//! And what a guest imports must be there before its memory and its allocator are.
//!
//! The module that comes out has
//! - in place of each of these imports the beginning of that host function, which nothing else calls.
//! - the functions, behind all others. What called the import calls one of them. No other function has a new number.
//! - a global behind the guest's, which counts how often its allocator runs.
//! - for a guest that asks for headers by their names, a memory behind its own, which it exports as [`MEMORY`]. There the host
//!   shows headers.
//! - names of these functions, for a backtrace.

use std::convert::Infallible;

use wasm_encoder::reencode::{Error, Reencode, utils};
use wasm_encoder::{
    CodeSection, ConstExpr, EntityType, ExportKind, ExportSection, FunctionSection, GlobalSection,
    GlobalType, ImportSection, MemorySection, Module, NameMap, NameSection, SectionId, TypeSection,
};
use wasmparser::{
    CodeSectionReader, ExportSectionReader, FunctionSectionReader, GlobalSectionReader,
    ImportSectionReader, MemorySectionReader, Name, NameSectionReader, Parser, TypeSectionReader,
};

use super::parts::{Asked, Parts};
use super::{fronts, give, look_up};
use crate::error::{HIDDEN_FUNCTION, OF_HOST};
use crate::hostcall::BEGIN;

/// The export that is the memory for headers.
pub(crate) const MEMORY: &str = "headers of the host";

/// The module that is run in place of a guest's. `None` for a guest that asks for no values, that has no allocator, or that is
/// not valid: this is asked last, for it takes the longest.
pub(crate) fn extended(bytes: &[u8], is_valid: impl FnOnce() -> bool) -> Option<Vec<u8>> {
    let mut extension = Extension::of(Parts::of(bytes).ok()?)?;
    if !is_valid() {
        return None;
    }
    let mut module = Module::new();
    extension.parse_core_module(&mut module, Parser::new(0), bytes).ok()?;
    if !extension.is_named {
        let mut names = NameSection::new();
        names.functions(&extension.names(NameMap::new()));
        module.section(&names);
    }
    Some(module.finish())
}

/// A valid module may have a million of a kind. One that is close to that stays as it is.
const MOST: usize = 900_000;

/// What is changed.
struct Extension {
    parts: Parts,
    allocate: u32,
    /// The number of the first function that is added. It gives values. The fronts of `parts.asked` come behind it.
    give: u32,
    /// The one of `parts.asked` that the guest asks for headers.
    headers: Option<usize>,
    /// There is a section of names with the functions' in it.
    is_named: bool,
}

impl Extension {
    fn of(parts: Parts) -> Option<Self> {
        let allocate = parts.allocator()?;
        let fits = !parts.asked.is_empty()
            && parts.memories == 1
            && parts.export(MEMORY).is_none()
            && parts.largest_section() < MOST;
        let headers = parts.asked.iter().position(|asked| asked.function.name == look_up::NAME);
        let give = parts.functions.len() as u32;
        fits.then_some(Self { parts, allocate, give, headers, is_named: false })
    }

    /// The type of all beginnings. It and [`Extension::give_type`] are added.
    fn beginning_type(&self) -> u32 {
        self.parts.types.len() as u32
    }

    /// The type of the function that gives values.
    fn give_type(&self) -> u32 {
        self.beginning_type() + 1
    }

    /// The function in front of one of `parts.asked`.
    fn front(&self, of: usize) -> u32 {
        self.give + 1 + of as u32
    }

    /// The function that looks headers up, behind all fronts.
    fn look_up(&self) -> u32 {
        self.front(self.parts.asked.len())
    }

    /// The names of all functions: what the guest calls its own, and those that are added.
    fn names(&self, mut names: NameMap) -> NameMap {
        names.append(self.give, HIDDEN_FUNCTION);
        for (of, asked) in self.parts.asked.iter().enumerate() {
            names.append(self.front(of), &format!("{OF_HOST}{}", asked.function.name));
        }
        if self.headers.is_some() {
            names.append(self.look_up(), &format!("{OF_HOST}{}", look_up::NAME));
        }
        names
    }
}

impl Reencode for Extension {
    type Error = Infallible;

    fn function_index(&mut self, function: u32) -> Result<u32, Error> {
        let asked = self.parts.asked.iter().position(|asked| asked.import == function);
        Ok(match asked {
            None => function,
            Some(of) if self.headers == Some(of) => self.look_up(),
            Some(of) => self.front(of),
        })
    }

    fn parse_type_section(
        &mut self,
        types: &mut TypeSection,
        section: TypeSectionReader<'_>,
    ) -> Result<(), Error> {
        utils::parse_type_section(self, types, section)?;
        types.ty().function(fronts::PARAMS, fronts::RESULTS);
        types.ty().function(give::PARAMS, [wasm_encoder::ValType::I32]);
        Ok(())
    }

    fn parse_import_section(
        &mut self,
        imports: &mut ImportSection,
        section: ImportSectionReader<'_>,
    ) -> Result<(), Error> {
        // All imports are functions, see `Parts`.
        for (number, import) in (0..).zip(section.into_imports()) {
            match self.parts.asked.iter().find(|asked| asked.import == number) {
                None => utils::parse_import(self, imports, import?)?,
                Some(Asked { function, .. }) => {
                    let beginning = EntityType::Function(self.beginning_type());
                    imports.import(BEGIN, function.name, beginning);
                }
            }
        }
        Ok(())
    }

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: FunctionSectionReader<'_>,
    ) -> Result<(), Error> {
        utils::parse_function_section(self, functions, section)?;
        functions.function(self.give_type());
        let headers = self.headers.map(|of| &self.parts.asked[of]);
        for asked in self.parts.asked.iter().chain(headers) {
            functions.function(self.parts.functions[asked.import as usize]);
        }
        Ok(())
    }

    fn parse_memory_section(
        &mut self,
        memories: &mut MemorySection,
        section: MemorySectionReader<'_>,
    ) -> Result<(), Error> {
        utils::parse_memory_section(self, memories, section)?;
        if self.headers.is_some() {
            memories.memory(look_up::MEMORY_TYPE);
        }
        Ok(())
    }

    fn parse_global_section(
        &mut self,
        globals: &mut GlobalSection,
        section: GlobalSectionReader<'_>,
    ) -> Result<(), Error> {
        utils::parse_global_section(self, globals, section)?;
        add_counter(globals);
        Ok(())
    }

    fn intersperse_section_hook(
        &mut self,
        module: &mut Module,
        _after: Option<SectionId>,
        before: Option<SectionId>,
    ) -> Result<(), Error> {
        // A guest without globals has no section of them, which would be here.
        if before == Some(SectionId::Export) && self.parts.globals.is_none() {
            let mut globals = GlobalSection::new();
            add_counter(&mut globals);
            module.section(&globals);
        }
        Ok(())
    }

    fn parse_export_section(
        &mut self,
        exports: &mut ExportSection,
        section: ExportSectionReader<'_>,
    ) -> Result<(), Error> {
        utils::parse_export_section(self, exports, section)?;
        if self.headers.is_some() {
            exports.export(MEMORY, ExportKind::Memory, look_up::SHOWN);
        }
        Ok(())
    }

    fn parse_code_section(
        &mut self,
        code: &mut CodeSection,
        section: CodeSectionReader<'_>,
    ) -> Result<(), Error> {
        utils::parse_code_section(self, code, section)?;
        code.function(&give::body(give::Uses {
            allocate: self.allocate,
            begin: self.parts.asked[0].import,
            running: self.parts.globals.unwrap_or(0),
        }));
        for asked in &self.parts.asked {
            code.function(&fronts::body(asked.function, asked.import, self.give));
        }
        if let Some(of) = self.headers {
            code.function(&look_up::body(self.front(of), self.allocate));
        }
        Ok(())
    }

    fn custom_name_section(
        &mut self,
        section: NameSectionReader<'_>,
    ) -> Result<NameSection, Error> {
        let mut names = NameSection::new();
        for part in section {
            match part? {
                Name::Function(map) if !self.is_named => {
                    self.is_named = true;
                    let mut functions = NameMap::new();
                    for name in map {
                        let name = name?;
                        functions.append(name.index, name.name);
                    }
                    names.functions(&self.names(functions));
                }
                part => self.parse_custom_name_subsection(&mut names, part)?,
            }
        }
        Ok(names)
    }
}

/// The global that counts how often the guest's allocator runs.
fn add_counter(globals: &mut GlobalSection) {
    let ty = GlobalType { val_type: wasm_encoder::ValType::I32, mutable: true, shared: false };
    globals.global(ty, &ConstExpr::i32_const(0));
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmparser::{ExternalKind, Operator, Payload, Validator, WasmFeatures};

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
    fn fronts_are_called_in_place_of_imports_and_nothing_else_changes() {
        let guest = module(&[
            r#"(import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))"#,
            ASKED,
            r#"(import "env" "proxy_done" (func $done (result i32)))"#,
            r#"(import "env" "proxy_get_property" (func $property (param i32 i32 i32 i32) (result i32)))"#,
            MEMORY_OF_GUEST,
            "(table 2 funcref) (elem (i32.const 0) $asked $log)",
            ALLOCATOR,
            r#"(func $ask (export "ask") (result i32)
                (drop (call $done)) (drop (call $allocate (i32.const 8)))
                (drop (call $property (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))
                (call $asked (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))"#,
        ]);
        assert_eq!(calls(&guest), [vec![], vec![2, 4, 3, 1]]);
        let extended = extended(&guest, || true).expect("it is extended");
        Validator::new_with_features(WasmFeatures::all()).validate_all(&extended).unwrap();
        let (give, front, front_of_property, look_up) =
            (vec![1, 4], vec![1, 6], vec![3, 6], vec![7, 4]);
        assert_eq!(
            calls(&extended),
            [vec![], vec![2, 4, 8, 9], give, front, front_of_property, look_up]
        );
        let parts = Parts::of(&extended).unwrap();
        let memory = |index| Some((ExternalKind::Memory, index));
        assert_eq!((parts.export("memory"), parts.export(MEMORY)), (memory(0), memory(1)));
        assert_eq!(parts.export("ask"), Some((ExternalKind::Func, 5)));
    }

    /// The names of functions.
    fn names(bytes: &[u8]) -> Vec<(u32, String)> {
        let mut names = Vec::new();
        for payload in Parser::new(0).parse_all(bytes) {
            let Payload::CustomSection(section) = payload.unwrap() else { continue };
            let wasmparser::KnownCustom::Name(section) = section.as_known() else { continue };
            for part in section {
                let Name::Function(map) = part.unwrap() else { continue };
                names.extend(map.into_iter().map(|name| {
                    let name = name.unwrap();
                    (name.index, name.name.to_owned())
                }));
            }
        }
        names
    }

    #[test]
    fn what_is_added_has_names() {
        let property =
            r#"(import "env" "proxy_get_property" (func (param i32 i32 i32 i32) (result i32)))"#;
        let allocator = r#"(func (export "malloc") (param i32) (result i32) (local.get 0))"#;
        let unnamed = module(&[property, MEMORY_OF_GUEST, allocator]);
        let added = [(2, "host!give"), (3, "host!proxy_get_property")];
        let added = added.map(|(number, name)| (number, name.to_owned()));
        assert_eq!(names(&extended(&unnamed, || true).unwrap()), added);
        // The names of other things come before or behind those of functions, or are the only ones.
        let of_local = r#"(func (export "malloc") (param $size i32) (result i32) (local.get 0))"#;
        let of_local =
            module(&[property, MEMORY_OF_GUEST, of_local, "(global $g i32 (i32.const 0))"]);
        assert_eq!(names(&of_local), []);
        assert_eq!(names(&extended(&of_local, || true).unwrap()), added);
        let named = module(&[property, MEMORY_OF_GUEST, ALLOCATOR]);
        let all = [&[(1, "allocate".to_owned())][..], &added].concat();
        assert_eq!(names(&extended(&named, || true).unwrap()), all);
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
        let also_first = |part| [&[part], &whole[..]].concat();
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
            // An allocator that is an import of the guest's.
            {
                let import = r#"(import "env" "malloc" (func (param i32) (result i32)))"#;
                vec![import, ASKED, MEMORY_OF_GUEST, r#"(export "malloc" (func 0))"#]
            },
            also_first(r#"(import "env" "table" (table 1 funcref))"#),
            also_first(r#"(import "begin" "proxy_get_property" (func))"#),
        ] {
            assert_eq!(extended(&module(&parts), || true), None, "{parts:?}");
        }
        assert_eq!(extended(&module(&whole), || false), None);
        assert_eq!(extended(b"no module", || true), None);
    }
}
