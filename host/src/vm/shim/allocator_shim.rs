//! WebAssembly in front of the host functions that hand over a value, for which the guest makes room.
//!
//! Each of its functions is no more than
//!
//! ```text
//! (func (export "proxy_get_property") (param i32 i32 i32 i32) (result i32)
//!   answer, value = begin.proxy_get_property(all parameters)
//!   if answer is a size:
//!     give(answer, where it is told where the value is, value)
//!   else:
//!     the status)
//! ```
//!
//! with the host's parts from `hostcall`, and `give` from the module [`give`]. The [folder](super) has the whole way.

use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, EntityType, ExportKind, ExportSection, Function,
    FunctionSection, GlobalSection, GlobalType, HeapType, ImportSection, NameMap, NameSection,
    RefType, TypeSection, ValType,
};
use wasmtime::{
    ExternType, Func, FuncType, ImportType, Instance, InstancePre, Linker, Memory, Module, Store,
    Val,
};

use super::give;
use crate::abi::{HOST_FUNCTIONS, HostFunction};
use crate::error::{Error, one_line};
use crate::guest::State;
use crate::hostcall;
use crate::hostcall::memory::{WANTS_ROOM, WORDS};
use crate::vm::load::compile::compile;
use crate::vm::load::engine::{EngineKind, PerEngine};

/// The function that belongs to one guest: the name of the global that refers to it, and the number of the global, which is
/// that of the function's type.
const GIVE: (&str, u32) = ("give", 0);
/// The type of all beginnings.
const BEGINNING: u32 = 1;
/// The types of the functions, from this one on.
const FUNCTIONS: u32 = 2;

/// The shim of one guest.
pub(crate) struct AllocatorShim {
    instance: Instance,
    parts: &'static Parts,
}

/// What shims are made of.
pub(crate) struct Parts {
    shim: InstancePre<State>,
    give: Module,
    linker: Linker<State>,
}

impl AllocatorShim {
    /// One that knows no guest yet.
    pub(crate) fn new(parts: &'static Parts, store: &mut Store<State>) -> wasmtime::Result<Self> {
        Ok(Self { instance: parts.shim.instantiate(store)?, parts })
    }

    /// The function that stands in front of a host function.
    pub(crate) fn function(&self, store: &mut Store<State>, name: &str) -> Option<Func> {
        self.instance.get_func(store, name)
    }

    /// From now on its functions can be called, by the guest with that memory and that allocator.
    pub(crate) fn set_guest(
        &self,
        store: &mut Store<State>,
        memory: Memory,
        allocator: Func,
    ) -> wasmtime::Result<()> {
        let Parts { give, linker, .. } = self.parts;
        let give = give::give(give, linker, store, memory, allocator)?;
        let global = self.instance.get_global(&mut *store, GIVE.0);
        let global = global.ok_or_else(|| wasmtime::Error::msg("a shim without a global"))?;
        global.set(store, Val::FuncRef(Some(give)))
    }
}

/// Whether an import is a function that a shim has.
pub(crate) fn has(import: &ImportType<'_>) -> bool {
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

/// Compiled when they are asked for first.
pub(crate) fn parts(engine: EngineKind) -> Result<&'static Parts, Error> {
    static PARTS: PerEngine<Parts> = PerEngine::new();
    PARTS.get_or_try_init(engine, || {
        let module = compile(engine, &binary())?;
        let mut linker = Linker::new(engine.engine()?);
        let shim = hostcall::add_beginnings_to_linker(&mut linker, functions())
            .and_then(|()| linker.instantiate_pre(&module))
            .map_err(|e| Error::Import(one_line(&e)))?;
        Ok(Parts { shim, give: give::module(engine)?, linker })
    })
}

/// The module.
fn binary() -> Vec<u8> {
    let (mut types, mut imports, mut declared) =
        (TypeSection::new(), ImportSection::new(), FunctionSection::new());
    let (mut exports, mut code) = (ExportSection::new(), CodeSection::new());
    let mut names = NameMap::new();

    types.ty().function(give::GIVE, [ValType::I32]);
    types.ty().function([ValType::I64; hostcall::PAIRS], [ValType::I64; 1 + WORDS]);
    let count = functions().count() as u32;
    for (n, function) in (0..).zip(functions()) {
        imports.import(hostcall::BEGIN, function.name, EntityType::Function(BEGINNING));
        types.ty().function(function.params.iter().map(|_| ValType::I32), [ValType::I32]);
        declared.function(FUNCTIONS + n);
        let index = count + n;
        names.append(index, function.name);
        code.function(&body(n, function));
        exports.export(function.name, ExportKind::Func, index);
    }
    let mut globals = GlobalSection::new();
    let heap_type = HeapType::Concrete(GIVE.1);
    let val_type = ValType::Ref(RefType { nullable: true, heap_type });
    globals.global(
        GlobalType { val_type, mutable: true, shared: false },
        &ConstExpr::ref_null(heap_type),
    );
    exports.export(GIVE.0, ExportKind::Global, GIVE.1);
    // What a backtrace shows.
    let mut shown = NameSection::new();
    shown.module("host");
    shown.functions(&names);

    let mut module = wasm_encoder::Module::new();
    module.section(&types).section(&imports).section(&declared).section(&globals);
    module.section(&exports).section(&code).section(&shown);
    module.finish()
}

fn body(begin: u32, function: &HostFunction) -> Function {
    let params = function.params.len() as u32;
    // More for what the beginning answers.
    let mut body = Function::new([(1 + WORDS as u32, ValType::I64)]);
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
    code.call(begin);
    for result in (answer..=answer + WORDS as u32).rev() {
        code.local_set(result);
    }
    code.local_get(answer).i64_const(WANTS_ROOM).i64_and().i64_eqz();
    code.if_(BlockType::Result(ValType::I32)).local_get(answer).i32_wrap_i64().else_();
    let (data, size) = return_at(function);
    code.local_get(answer).local_get(data).local_get(size);
    for word in 1..=WORDS as u32 {
        code.local_get(answer + word);
    }
    code.global_get(GIVE.1).call_ref(GIVE.1).end().end();
    body
}

/// Which parameters say where the guest is told where the value is, and its size.
fn return_at(function: &HostFunction) -> (u32, u32) {
    let place = |name: &str| function.params.iter().position(|(known, _)| *known == name);
    [place("return_data"), place("return_size")].map(|at| at.unwrap_or_default() as u32).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_the_functions_that_hand_over_values() {
        let shim = &parts(EngineKind::Plain).expect("modules").shim;
        for function in functions() {
            assert!(function.params.len() <= 2 * hostcall::PAIRS, "{}", function.name);
            assert!(function.params.iter().all(|(_, ty)| *ty == "u32"), "{}", function.name);
            assert!(return_at(function).0 < return_at(function).1, "{}", function.name);
        }
        for name in ["proxy_get_shared_data", "proxy_get_property", "proxy_get_header_map_value"] {
            assert!(shim.module().get_export(name).is_some(), "{name}");
        }
        assert!(shim.module().get_export("proxy_set_shared_data").is_none());
    }
}
