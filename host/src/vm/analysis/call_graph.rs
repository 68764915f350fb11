//! Which imports an export can come to call.
//!
//! A sound overestimate: a call through a table reaches every function of that type whose reference the
//! module takes anywhere.

use rustc_hash::FxHashSet;
use wasmparser::{
    BinaryReaderError, ElementItems, ExternalKind, FuncType, FunctionBody, Operator, Parser,
    Payload, TypeRef,
};

/// See the module.
#[derive(Default)]
pub(super) struct CallGraph<'a> {
    types: Vec<FuncType>,
    /// Type of each function, imports first.
    functions: Vec<u32>,
    imports: Vec<&'a str>,
    exports: Vec<(&'a str, u32)>,
    bodies: Vec<Body>,
    /// Functions whose reference is taken: a table may hold them.
    referenced: FxHashSet<u32>,
}

#[derive(Default)]
struct Body {
    calls: Vec<u32>,
    /// Types called through tables.
    indirect: Vec<u32>,
    /// It calls through references of its own making, of whatever type.
    by_reference: bool,
    /// It reads its second or third parameter.
    reads_arguments: bool,
    /// It does nothing but return.
    is_empty: Option<Empty>,
}

/// What a function answers that does nothing else.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Empty {
    /// Nothing.
    Nothing,
    /// A number.
    Number(i32),
}

impl<'a> CallGraph<'a> {
    /// Reads a module that is known to be valid.
    pub(super) fn of(bytes: &'a [u8]) -> Result<Self, BinaryReaderError> {
        let mut graph = Self::default();
        for payload in Parser::new(0).parse_all(bytes) {
            graph.add(payload?)?;
        }
        Ok(graph)
    }

    /// The imports that can be called once any of these exports is.
    pub(super) fn imports_of(&self, exports: &[&str]) -> Vec<&'a str> {
        let mut seen = FxHashSet::default();
        let mut todo: Vec<u32> = exports.iter().filter_map(|name| self.export(name)).collect();
        let mut found = Vec::new();
        while let Some(function) = todo.pop() {
            if !seen.insert(function) {
                continue;
            }
            if let Some(import) = self.imports.get(function as usize) {
                found.push(*import);
            } else if let Some(body) = self.body(function) {
                todo.extend(&body.calls);
                let reached = |f: &&u32| {
                    body.by_reference || body.indirect.iter().any(|ty| self.is_of(**f, *ty))
                };
                todo.extend(self.referenced.iter().filter(reached));
            }
        }
        found
    }

    /// The names of imported functions.
    pub(super) fn imports(&self) -> &[&'a str] {
        &self.imports
    }

    /// The names of exported functions.
    pub(super) fn exports(&self) -> impl Iterator<Item = &'a str> {
        self.exports.iter().map(|(name, _)| *name)
    }

    /// Whether an export reads its second or third parameter; true when it is not the module's own code.
    pub(super) fn reads_arguments(&self, export: &str) -> bool {
        self.export(export).is_some_and(|f| self.body(f).is_none_or(|body| body.reads_arguments))
    }

    /// Whether an export does nothing, and answers nothing or true.
    pub(super) fn does_nothing(&self, export: &str) -> bool {
        let empty = self.export(export).and_then(|f| self.body(f)?.is_empty);
        empty.is_some_and(|empty| empty != Empty::Number(0))
    }

    fn export(&self, name: &str) -> Option<u32> {
        self.exports.iter().find(|(n, _)| *n == name).map(|(_, function)| *function)
    }

    fn body(&self, function: u32) -> Option<&Body> {
        self.bodies.get((function as usize).checked_sub(self.imports.len())?)
    }

    /// Types can be declared twice, so they compare by what they are.
    fn is_of(&self, function: u32, ty: u32) -> bool {
        let of = |index: u32| self.types.get(index as usize);
        self.functions.get(function as usize).is_none_or(|own| of(*own) == of(ty))
    }

    fn add(&mut self, payload: Payload<'a>) -> Result<(), BinaryReaderError> {
        match payload {
            Payload::TypeSection(section) => {
                for ty in section.into_iter_err_on_gc_types() {
                    self.types.push(ty?);
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import?;
                    if let TypeRef::Func(ty) | TypeRef::FuncExact(ty) = import.ty {
                        self.imports.push(import.name);
                        self.functions.push(ty);
                    }
                }
            }
            Payload::FunctionSection(section) => {
                for ty in section {
                    self.functions.push(ty?);
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export?;
                    if export.kind == ExternalKind::Func {
                        self.exports.push((export.name, export.index));
                    }
                }
            }
            Payload::GlobalSection(section) => {
                for global in section {
                    self.add_references(global?.init_expr.get_operators_reader())?;
                }
            }
            Payload::ElementSection(section) => {
                for element in section {
                    self.add_element(element?.items)?;
                }
            }
            Payload::CodeSectionEntry(body) => {
                let body = self.read_body(&body)?;
                self.bodies.push(body);
            }
            _ => {}
        }
        Ok(())
    }

    fn add_element(&mut self, items: ElementItems<'_>) -> Result<(), BinaryReaderError> {
        match items {
            ElementItems::Functions(functions) => {
                for function in functions {
                    self.referenced.insert(function?);
                }
            }
            ElementItems::Expressions(_, expressions) => {
                for expression in expressions {
                    self.add_references(expression?.get_operators_reader())?;
                }
            }
        }
        Ok(())
    }

    fn add_references(
        &mut self,
        operators: wasmparser::OperatorsReader<'_>,
    ) -> Result<(), BinaryReaderError> {
        for operator in operators {
            if let Operator::RefFunc { function_index } = operator? {
                self.referenced.insert(function_index);
            }
        }
        Ok(())
    }

    fn read_body(&mut self, code: &FunctionBody<'_>) -> Result<Body, BinaryReaderError> {
        let mut body = Body::default();
        let mut arguments = Arguments::default();
        let mut emptiness = Emptiness::default();
        for operator in code.get_operators_reader()? {
            let operator = operator?;
            arguments.look(&operator);
            emptiness.look(&operator);
            match operator {
                Operator::Call { function_index } | Operator::ReturnCall { function_index } => {
                    body.calls.push(function_index);
                }
                Operator::CallIndirect { type_index, .. }
                | Operator::ReturnCallIndirect { type_index, .. } => {
                    body.indirect.push(type_index);
                }
                Operator::CallRef { .. } | Operator::ReturnCallRef { .. } => {
                    body.by_reference = true
                }
                Operator::RefFunc { function_index } => {
                    self.referenced.insert(function_index);
                }
                _ => {}
            }
        }
        body.reads_arguments = arguments.read;
        body.is_empty = emptiness.result();
        Ok(body)
    }
}

/// Whether a function reads its second or third parameter, told from where compilers use its place for something else.
#[derive(Default)]
struct Arguments {
    /// Which of the two hold something else by now.
    gone: [bool; 2],
    /// The same at the beginning of each block that is open. A branch out of a block may skip a part of it.
    blocks: Vec<[bool; 2]>,
    read: bool,
}

impl Arguments {
    fn look(&mut self, operator: &Operator<'_>) {
        match *operator {
            Operator::LocalGet { local_index: at @ (1 | 2) } => {
                self.read |= !self.gone[at as usize - 1];
            }
            Operator::LocalSet { local_index: at @ (1 | 2) }
            | Operator::LocalTee { local_index: at @ (1 | 2) } => self.gone[at as usize - 1] = true,
            Operator::Block { .. }
            | Operator::Loop { .. }
            | Operator::If { .. }
            | Operator::TryTable { .. } => self.blocks.push(self.gone),
            Operator::Else => {
                if let Some(before) = self.blocks.last() {
                    self.gone = *before;
                }
            }
            Operator::End => {
                if let Some(before) = self.blocks.pop() {
                    self.gone = before;
                }
            }
            _ => {}
        }
    }
}

/// Whether a function does nothing but return.
#[derive(Default)]
struct Emptiness {
    number: Option<i32>,
    does_something: bool,
}

impl Emptiness {
    fn look(&mut self, operator: &Operator<'_>) {
        match *operator {
            Operator::I32Const { value } if self.number.is_none() => self.number = Some(value),
            Operator::Nop | Operator::Return | Operator::End => {}
            _ => self.does_something = true,
        }
    }

    fn result(self) -> Option<Empty> {
        (!self.does_something).then(|| self.number.map_or(Empty::Nothing, Empty::Number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imports(text: &str, exports: &[&str]) -> Vec<String> {
        let bytes = wat::parse_str(text).unwrap();
        let graph = CallGraph::of(&bytes).unwrap();
        let mut found: Vec<String> =
            graph.imports_of(exports).iter().map(|s| (*s).to_owned()).collect();
        found.sort();
        found
    }

    const MODULE: &str = r#"(module
        (type $t (func (param i32))) (type $same (func (param i32))) (type $other (func))
        (import "env" "direct" (func $direct (param i32)))
        (import "env" "by_table" (func $by_table (param i32)))
        (import "env" "wrong_type" (func $wrong_type))
        (import "env" "never" (func $never))
        (table funcref (elem $by_table $wrong_type $back))
        (func $helper i32.const 0 call $direct)
        (func $back (param i32) call $helper)
        (func (export "a") call $helper)
        (func (export "b") i32.const 0 i32.const 0 call_indirect (type $same))
        (func (export "c")))"#;

    #[test]
    fn calls_are_followed_directly_and_through_tables() {
        assert_eq!(imports(MODULE, &["a"]), ["direct"]);
        assert_eq!(imports(MODULE, &["b"]), ["by_table", "direct"]);
        assert_eq!(imports(MODULE, &["c", "missing"]), [""; 0]);
        assert_eq!(imports(MODULE, &["a", "b"]), ["by_table", "direct"]);
    }

    #[test]
    fn functions_that_do_nothing_are_seen() {
        let bytes = wat::parse_str(
            r#"(module (import "env" "f" (func $f (param i32)))
                (export "imported" (func $f))
                (func (export "nothing") (param i32))
                (func (export "returns") (param i32) nop return)
                (func (export "true") (param i32) (result i32) i32.const 7)
                (func (export "returns true") (param i32) (result i32) i32.const 1 return)
                (func (export "false") (param i32) (result i32) i32.const 0)
                (func (export "argument") (param i32) (result i32) local.get 0)
                (func (export "calls") (param i32) local.get 0 call $f)
                (func (export "traps") unreachable)
                (func (export "loops") (loop br 0)))"#,
        )
        .unwrap();
        let graph = CallGraph::of(&bytes).unwrap();
        for export in ["nothing", "returns", "true", "returns true"] {
            assert!(graph.does_nothing(export), "{export}");
        }
        for export in ["imported", "missing", "false", "argument", "calls", "traps", "loops"] {
            assert!(!graph.does_nothing(export), "{export}");
        }
    }

    #[test]
    fn arguments_that_are_read_are_seen() {
        let bytes = wat::parse_str(
            r#"(module (import "env" "f" (func $f (param i32 i32)))
                (export "imported" (func $f))
                (func (export "reads") (param i32 i32) local.get 1 drop)
                (func (export "ignores") (param i32 i32) local.get 0 drop)
                (func (export "uses its place") (param i32 i32)
                    i32.const 7 local.set 1
                    local.get 0 if local.get 1 drop end
                    (loop local.get 1 br_if 0))
                (func (export "reads before") (param i32 i32)
                    local.get 1 drop i32.const 7 local.set 1)
                (func (export "may read") (param i32 i32)
                    local.get 0 if i32.const 7 local.set 1 end
                    local.get 1 drop)
                (func (export "may read otherwise") (param i32 i32)
                    local.get 0 if i32.const 7 local.set 1 else local.get 1 drop end)
                (func (export "may leave before") (param i32 i32)
                    (block local.get 0 br_if 0 i32.const 7 local.set 1)
                    local.get 1 drop)
                (func (export "reads the other") (param i32 i32 i32)
                    i32.const 7 local.tee 1 drop local.get 2 drop))"#,
        )
        .unwrap();
        let graph = CallGraph::of(&bytes).unwrap();
        for export in [
            "reads",
            "imported",
            "reads before",
            "may read",
            "may read otherwise",
            "may leave before",
            "reads the other",
        ] {
            assert!(graph.reads_arguments(export), "{export}");
        }
        for export in ["ignores", "missing", "uses its place"] {
            assert!(!graph.reads_arguments(export), "{export}");
        }
    }
}
