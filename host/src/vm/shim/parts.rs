//! What must be known of a guest's module to add to it.

use wasmparser::{BinaryReaderError, ExternalKind, FuncType, Parser, Payload, TypeRef, ValType};

use super::fronts;
use crate::abi::{ALLOCATORS, HostFunction};
use crate::hostcall::BEGIN;

/// See the module.
#[derive(Default)]
pub(super) struct Parts {
    pub types: Vec<FuncType>,
    /// Type of each function, imports first.
    pub functions: Vec<u32>,
    /// The imports that hand over a value.
    pub asked: Vec<Asked>,
    pub memories: u32,
    /// How many there are, where there is a section of them.
    pub globals: Option<u32>,
    imports: u32,
    exports: Vec<(String, ExternalKind, u32)>,
}

/// An import that hands over a value.
pub(super) struct Asked {
    /// Its number.
    pub import: u32,
    pub function: &'static HostFunction,
}

impl Parts {
    /// Reads a module. One that imports what is no function has no [`Parts::asked`], nor one that imports from [`BEGIN`].
    pub(super) fn of(bytes: &[u8]) -> Result<Self, BinaryReaderError> {
        let mut parts = Self::default();
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::TypeSection(section) => {
                    parts.types = section.into_iter_err_on_gc_types().collect::<Result<_, _>>()?;
                }
                Payload::ImportSection(section) => {
                    let mut is_odd = false;
                    for import in section.into_imports() {
                        let import = import?;
                        let TypeRef::Func(ty) = import.ty else {
                            is_odd = true;
                            continue;
                        };
                        is_odd |= import.module == BEGIN;
                        if import.module == "env" {
                            parts.ask(import.name, ty);
                        }
                        parts.functions.push(ty);
                    }
                    if is_odd {
                        parts.asked.clear();
                    }
                    parts.imports = parts.functions.len() as u32;
                }
                Payload::FunctionSection(section) => {
                    for ty in section {
                        parts.functions.push(ty?);
                    }
                }
                Payload::MemorySection(section) => parts.memories = section.count(),
                Payload::GlobalSection(section) => parts.globals = Some(section.count()),
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

    fn ask(&mut self, name: &str, ty: u32) {
        let function = self.types.get(ty as usize).and_then(|ty| fronts::host_function(name, ty));
        if let Some(function) = function {
            self.asked.push(Asked { import: self.functions.len() as u32, function });
        }
    }

    pub(super) fn export(&self, name: &str) -> Option<(ExternalKind, u32)> {
        let export = self.exports.iter().find(|(known, ..)| known == name);
        export.map(|(_, kind, index)| (*kind, *index))
    }

    /// How many there are of what there is most of.
    pub(super) fn largest_section(&self) -> usize {
        let globals = self.globals.unwrap_or(0) as usize;
        self.types.len().max(self.functions.len()).max(self.exports.len()).max(globals)
    }

    /// The guest's allocator, if it is a function of the guest's own and has the type of one.
    pub(super) fn allocator(&self) -> Option<u32> {
        let of_guest = ALLOCATORS.iter().find_map(|name| self.export(name))?;
        let (ExternalKind::Func, allocate) = of_guest else { return None };
        let ty = self.types.get(*self.functions.get(allocate as usize)? as usize)?;
        let fits = ty.params() == [ValType::I32] && ty.results() == [ValType::I32];
        (allocate >= self.imports && fits).then_some(allocate)
    }
}
