//! WebAssembly in front of the host functions that hand over a value, for which the guest makes room.
//!
//! A host function that calls the guest's allocator goes back into WebAssembly from outside, which takes longer than most of
//! them do otherwise. From WebAssembly it is a call like any other. So a guest is linked with functions of a module of our
//! own, each of which is no more than
//!
//! ```text
//! (func (export "proxy_get_property") (param i32 i32 i32 i32) (result i32)
//!   size_or_status = begin.proxy_get_property(all parameters)
//!   if size_or_status is a size:
//!     finish(allocator[0](size))
//!   else:
//!     the status)
//! ```
//!
//! with the host's parts from `hostcall` on both sides. Modules that run before their allocator is known (a start section)
//! and those that have none do without.

use once_cell::sync::OnceCell;
use wasm_encoder::{
    BlockType, CodeSection, EntityType, ExportKind, ExportSection, Function, FunctionSection,
    ImportSection, NameMap, NameSection, RefType, TableSection, TableType, TypeSection, ValType,
};
use wasmtime::{ExternType, Func, FuncType, ImportType, Instance, InstancePre, Linker, Ref, Store};

use super::compiling::Means;
use super::engine::{compile, engine};
use crate::abi::{HOST_FUNCTIONS, HostFunction};
use crate::error::{Error, one_line};
use crate::guest::State;
use crate::hostcall;
use crate::hostcall::memory::WANTS_ROOM;

/// Name of the table that holds the guest's allocator.
const ALLOCATOR: &str = "allocator";

/// The front of one guest.
pub struct Front(Instance);

impl Front {
    /// One of a [`linked`] module, without an allocator yet.
    pub fn new(linked: &InstancePre<State>, store: &mut Store<State>) -> wasmtime::Result<Self> {
        Ok(Self(linked.instantiate(store)?))
    }

    /// The function that stands in front of a host function.
    pub fn function(&self, store: &mut Store<State>, name: &str) -> Option<Func> {
        self.0.get_func(store, name)
    }

    /// From now on its functions can be called.
    pub fn set_allocator(&self, store: &mut Store<State>, allocator: Func) -> wasmtime::Result<()> {
        match self.0.get_table(&mut *store, ALLOCATOR) {
            Some(table) => table.set(store, 0, Ref::Func(Some(allocator))),
            None => Err(wasmtime::Error::msg("a front without a table")),
        }
    }
}

/// Whether an import is a function that a front has.
pub fn has(import: &ImportType<'_>) -> bool {
    let ExternType::Func(wanted) = import.ty() else { return false };
    import.module() == "env"
        && functions().any(|function| function.name == import.name() && is_of(function, &wanted))
}

/// All of these functions have numbers of 32 bits only, see [`hostcall::BEGIN`].
fn is_of(function: &HostFunction, ty: &FuncType) -> bool {
    function.params.len() == ty.params().len()
        && ty.results().len() == 1
        && ty.params().chain(ty.results()).all(|ty| ty.is_i32())
}

fn functions() -> impl Iterator<Item = &'static HostFunction> {
    HOST_FUNCTIONS.iter().filter(|function| function.hands_over())
}

/// What fronts are instances of, compiled when it is asked for first.
pub fn linked() -> Result<&'static InstancePre<State>, Error> {
    static LINKED: OnceCell<InstancePre<State>> = OnceCell::new();
    LINKED.get_or_try_init(link)
}

fn link() -> Result<InstancePre<State>, Error> {
    let module = compile(&binary(), &Means::default())?;
    let mut linker = Linker::new(engine()?);
    hostcall::add_beginnings_to_linker(&mut linker, functions())
        .and_then(|()| linker.instantiate_pre(&module))
        .map_err(|e| Error::Import(one_line(&e)))
}

/// The module.
fn binary() -> Vec<u8> {
    let (mut types, mut imports, mut declared) =
        (TypeSection::new(), ImportSection::new(), FunctionSection::new());
    let (mut exports, mut code) = (ExportSection::new(), CodeSection::new());
    let mut names = NameMap::new();

    // Type 0 is that of the allocator and of the function that takes its answer, which is function 0.
    types.ty().function([ValType::I32], [ValType::I32]);
    imports.import(hostcall::FINISH.0, hostcall::FINISH.1, EntityType::Function(0));
    // Type 1 is that of all beginnings.
    types.ty().function([ValType::I64; hostcall::PAIRS], [ValType::I64]);
    let count = functions().count() as u32;
    for (n, function) in (0..).zip(functions()) {
        imports.import(hostcall::BEGIN, function.name, EntityType::Function(1));
        types.ty().function(function.params.iter().map(|_| ValType::I32), [ValType::I32]);
        declared.function(2 + n);
        let index = 1 + count + n;
        exports.export(function.name, ExportKind::Func, index);
        names.append(index, function.name);
        code.function(&body(1 + n, function.params.len() as u32));
    }
    let mut tables = TableSection::new();
    tables.table(TableType {
        element_type: RefType::FUNCREF,
        minimum: 1,
        maximum: Some(1),
        table64: false,
        shared: false,
    });
    exports.export(ALLOCATOR, ExportKind::Table, 0);
    // What a backtrace shows.
    let mut shown = NameSection::new();
    shown.module("host");
    shown.functions(&names);

    let mut module = wasm_encoder::Module::new();
    module.section(&types).section(&imports).section(&declared).section(&tables);
    module.section(&exports).section(&code).section(&shown);
    module.finish()
}

fn body(begin: u32, params: u32) -> Function {
    // One more for what the beginning answers.
    let mut body = Function::new([(1, ValType::I64)]);
    let answer = params;
    let mut code = body.instructions();
    for low in (0..2 * hostcall::PAIRS as u32).step_by(2) {
        let (has_low, has_high) = (low < params, low + 1 < params);
        match has_low {
            true => code.local_get(low).i64_extend_i32_u(),
            false => code.i64_const(0),
        };
        if has_high {
            code.local_get(low + 1).i64_extend_i32_u().i64_const(32).i64_shl().i64_or();
        }
    }
    code.call(begin).local_tee(answer).i64_const(WANTS_ROOM).i64_and().i64_eqz();
    code.if_(BlockType::Result(ValType::I32)).local_get(answer).i32_wrap_i64();
    code.else_().local_get(answer).i32_wrap_i64().i32_const(0).call_indirect(0, 0).call(0).end();
    code.end();
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_the_functions_that_hand_over_values() {
        let front = linked().expect("a module");
        for function in functions() {
            assert!(function.params.len() <= 2 * hostcall::PAIRS, "{}", function.name);
            assert!(function.params.iter().all(|(_, ty)| *ty == "u32"), "{}", function.name);
        }
        for name in ["proxy_get_shared_data", "proxy_get_property", "proxy_get_header_map_value"] {
            assert!(front.module().get_export(name).is_some(), "{name}");
        }
        assert!(front.module().get_export("proxy_set_shared_data").is_none());
    }
}
