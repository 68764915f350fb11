//! What the sections of a module say. Nothing of it is trusted: files come from anywhere.

use serde::Serialize;
use wasmparser::{
    BinaryReaderError, ExternalKind, FuncType, KnownCustom, Name, Parser, Payload, TypeRef,
};

/// See the module.
#[derive(Debug, Default)]
pub struct Facts {
    /// Functions and other things that it wants of its host.
    pub imports: Vec<Import>,
    /// What it offers.
    pub exports: Vec<Export>,
    /// Functions of its own.
    pub functions: u32,
    pub memories: Vec<Limits>,
    pub tables: Vec<Limits>,
    /// Bytes of the sections.
    pub code_bytes: u64,
    pub data_bytes: u64,
    pub customs: Vec<Custom>,
    /// Code of it runs while an instance is made.
    pub has_start_section: bool,
    /// What the compiler and its tools said of themselves: kind, name, version.
    pub producers: Vec<(String, String, String)>,
    /// Names of functions, if it carries any.
    pub names: Vec<String>,
    types: Vec<Option<FuncType>>,
    /// The types of all functions, imports first.
    function_types: Vec<u32>,
}

/// One import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    pub module: String,
    pub name: String,
    /// `(i32, i32) -> (i32)`; for what is no function, the word for it.
    pub ty: Type,
}

/// What an import or export is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    Function(String),
    /// memory, table, global, tag
    Other(&'static str),
}

/// One export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    pub name: String,
    pub ty: Type,
}

/// Of a memory in bytes, of a table in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Limits {
    pub initial: u64,
    pub maximum: Option<u64>,
}

/// A custom section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Custom {
    pub name: String,
    pub bytes: u64,
}

/// A module may hold millions of names; some are enough to tell where it comes from.
const MOST_NAMES: usize = 20_000;

impl Facts {
    /// Reads a module.
    pub fn of(bytes: &[u8]) -> Result<Self, BinaryReaderError> {
        let mut facts = Self::default();
        for payload in Parser::new(0).parse_all(bytes) {
            facts.add(payload?)?;
        }
        Ok(facts)
    }

    /// Whether it exports a function of that name.
    pub fn exports_function(&self, name: &str) -> bool {
        self.exports.iter().any(|e| e.name == name && matches!(e.ty, Type::Function(_)))
    }

    /// Whether it imports something of that name from a module.
    pub fn imports(&self, module: &str, name: &str) -> bool {
        self.imports.iter().any(|i| i.module == module && i.name == name)
    }

    fn add(&mut self, payload: Payload<'_>) -> Result<(), BinaryReaderError> {
        match payload {
            Payload::TypeSection(section) => {
                for group in section {
                    for ty in group?.into_types() {
                        let function = match ty.composite_type.inner {
                            wasmparser::CompositeInnerType::Func(function) => Some(function),
                            _ => None,
                        };
                        self.types.push(function);
                    }
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import?;
                    let ty = self.import_type(import.ty);
                    let (module, name) = (import.module.into(), import.name.into());
                    self.imports.push(Import { module, name, ty });
                }
            }
            Payload::FunctionSection(section) => {
                self.functions = section.count();
                for ty in section {
                    self.function_types.push(ty?);
                }
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    let memory = memory?;
                    let page = 1u64 << memory.page_size_log2.unwrap_or(16).min(16);
                    self.memories.push(Limits {
                        initial: memory.initial.saturating_mul(page),
                        maximum: memory.maximum.map(|most| most.saturating_mul(page)),
                    });
                }
            }
            Payload::TableSection(section) => {
                for table in section {
                    let ty = table?.ty;
                    self.tables.push(Limits { initial: ty.initial, maximum: ty.maximum });
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export?;
                    let ty = match export.kind {
                        ExternalKind::Func | ExternalKind::FuncExact => {
                            Type::Function(self.signature_of(export.index))
                        }
                        ExternalKind::Table => Type::Other("table"),
                        ExternalKind::Memory => Type::Other("memory"),
                        ExternalKind::Global => Type::Other("global"),
                        ExternalKind::Tag => Type::Other("tag"),
                    };
                    self.exports.push(Export { name: export.name.into(), ty });
                }
            }
            Payload::StartSection { .. } => self.has_start_section = true,
            Payload::CodeSectionStart { size, .. } => self.code_bytes += u64::from(size),
            Payload::DataSection(section) => {
                let range = section.range();
                self.data_bytes += range.end.saturating_sub(range.start) as u64;
            }
            Payload::CustomSection(section) => {
                let bytes = section.data().len() as u64;
                self.customs.push(Custom { name: section.name().into(), bytes });
                match section.as_known() {
                    // What these say is for people: a broken one says nothing.
                    KnownCustom::Producers(reader) => {
                        let _ = self.add_producers(reader);
                    }
                    KnownCustom::Name(reader) => {
                        let _ = self.add_names(reader);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn add_producers(
        &mut self,
        section: wasmparser::ProducersSectionReader<'_>,
    ) -> Result<(), BinaryReaderError> {
        for field in section {
            let field = field?;
            for value in field.values {
                let value = value?;
                if self.producers.len() < MOST_NAMES {
                    self.producers.push((
                        field.name.into(),
                        value.name.into(),
                        value.version.into(),
                    ));
                }
            }
        }
        Ok(())
    }

    fn add_names(
        &mut self,
        section: wasmparser::NameSectionReader<'_>,
    ) -> Result<(), BinaryReaderError> {
        for subsection in section {
            if let Name::Function(names) = subsection? {
                for name in names.into_iter().take(MOST_NAMES) {
                    self.names.push(name?.name.into());
                }
            }
        }
        Ok(())
    }

    fn import_type(&mut self, ty: TypeRef) -> Type {
        match ty {
            TypeRef::Func(index) | TypeRef::FuncExact(index) => {
                self.function_types.push(index);
                Type::Function(self.signature(index))
            }
            TypeRef::Table(_) => Type::Other("table"),
            TypeRef::Memory(_) => Type::Other("memory"),
            TypeRef::Global(_) => Type::Other("global"),
            TypeRef::Tag(_) => Type::Other("tag"),
        }
    }

    fn signature_of(&self, function: u32) -> String {
        match self.function_types.get(function as usize) {
            Some(ty) => self.signature(*ty),
            None => "?".into(),
        }
    }

    fn signature(&self, ty: u32) -> String {
        let Some(Some(ty)) = self.types.get(ty as usize) else { return "?".into() };
        let list = |types: &[wasmparser::ValType]| {
            types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        format!("({}) -> ({})", list(ty.params()), list(ty.results()))
    }
}

/// Sections that say which SDK or language made a module are not the only way to find out: some leave texts in its data.
pub fn data_holds(bytes: &[u8], text: &[u8]) -> bool {
    let mut found = false;
    for payload in Parser::new(0).parse_all(bytes) {
        let Ok(payload) = payload else { break };
        if let Payload::DataSection(section) = payload {
            found |= section.into_iter().any(|data| {
                data.is_ok_and(|data| data.data.windows(text.len()).any(|w| w == text))
            });
        }
    }
    found
}
