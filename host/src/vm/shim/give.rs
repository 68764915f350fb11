//! WebAssembly behind the functions of a shim: calls the guest's allocator, and writes a short value.
//!
//! To enter the host a second time for each value takes longer than to look most of them up. So a short value comes out of
//! the first call as a few numbers, see [`hostcall::memory`], and is written from here, where the guest's memory is at hand:
//!
//! ```text
//! (func (export "give") (param $answer i64) (param $data $size i32) (param $value i64 i64 i64 i64) (result i32)
//!   room = allocate($answer's size)
//!   if $answer says that the host hands the value over: return finish(room)
//!   if room is not in the memory: return why not
//!   write the value to room, room to $data, the size to $size
//!   OK)
//! ```

use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, EntityType, ExportKind, ExportSection, Function,
    FunctionSection, GlobalSection, GlobalType, ImportSection, InstructionSink, MemArg, MemoryType,
    NameSection, TypeSection, ValType,
};
use wasmtime::{Extern, Func, Instance, Linker, Memory, Module, Store};

use crate::abi::Status;
use crate::error::{Error, HIDDEN_MODULE};
use crate::guest::State;
use crate::hostcall::memory::{BY_HOST, WORDS};
use crate::vm::load::compile::compile;
use crate::vm::load::engine::EngineKind;
use crate::{hostcall, limits};

/// Its parameters.
pub(super) const GIVE: [ValType; 3 + WORDS] = {
    let mut params = [ValType::I64; 3 + WORDS];
    (params[DATA as usize], params[SIZE_AT as usize]) = (ValType::I32, ValType::I32);
    params
};

const ANSWER: u32 = 0;
const DATA: u32 = 1;
const SIZE_AT: u32 = 2;
const VALUE: u32 = 3;
/// Variables behind the parameters.
const ROOM: u32 = VALUE + WORDS as u32;
const SIZE: u32 = ROOM + 1;

const ALLOCATE: u32 = 0;
const FINISH: u32 = 1;
const TOO_MANY: u32 = 2;

/// The function for a guest.
pub(super) fn give(
    module: &Module,
    linker: &Linker<State>,
    store: &mut Store<State>,
    memory: Memory,
    allocator: Func,
) -> wasmtime::Result<Func> {
    let (finish, too_many) = (hostcall::FINISH, hostcall::TOO_MANY);
    let imports: [Extern; 4] = [
        allocator.into(),
        linker.get(&mut *store, finish.0, finish.1)?,
        linker.get(&mut *store, too_many.0, too_many.1)?,
        memory.into(),
    ];
    let room = Instance::new(&mut *store, module, &imports)?;
    room.get_func(store, "give").ok_or_else(|| wasmtime::Error::msg("nothing that gives"))
}

/// The module.
pub(super) fn module(engine: EngineKind) -> Result<Module, Error> {
    compile(engine, &binary())
}

/// That of a guest.
pub(super) const ANY_MEMORY: MemoryType =
    MemoryType { minimum: 0, maximum: None, memory64: false, shared: false, page_size_log2: None };

fn binary() -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([ValType::I32], [ValType::I32]);
    types.ty().function([ValType::I64], [ValType::I32]);
    types.ty().function(GIVE, [ValType::I32]);
    let mut imports = ImportSection::new();
    imports.import("guest", "allocate", EntityType::Function(0));
    imports.import(hostcall::FINISH.0, hostcall::FINISH.1, EntityType::Function(0));
    imports.import(hostcall::TOO_MANY.0, hostcall::TOO_MANY.1, EntityType::Function(1));
    imports.import("guest", "memory", ANY_MEMORY);
    let mut declared = FunctionSection::new();
    declared.function(2);
    let mut globals = GlobalSection::new();
    globals.global(
        GlobalType { val_type: ValType::I32, mutable: true, shared: false },
        &ConstExpr::i32_const(0),
    );
    let mut exports = ExportSection::new();
    exports.export("give", ExportKind::Func, 3);
    let mut code = CodeSection::new();
    code.function(&body());
    // Not for a backtrace, which shows the host function.
    let mut shown = NameSection::new();
    shown.module(HIDDEN_MODULE);

    let mut module = wasm_encoder::Module::new();
    module.section(&types).section(&imports).section(&declared).section(&globals);
    module.section(&exports).section(&code).section(&shown);
    module.finish()
}

fn body() -> Function {
    let mut body = Function::new([(2, ValType::I32)]);
    let mut code = body.instructions();
    // The allocator may ask for values itself, and for each of them run once more.
    code.global_get(0).i32_const(limits::HANDOVERS as i32).i32_ge_u().if_(BlockType::Empty);
    code.local_get(ANSWER).call(TOO_MANY).return_().end();
    code.global_get(0).i32_const(1).i32_add().global_set(0);
    code.local_get(ANSWER).i32_wrap_i64().local_tee(SIZE).call(ALLOCATE).local_set(ROOM);
    code.global_get(0).i32_const(1).i32_sub().global_set(0);

    code.local_get(ANSWER).i64_const(BY_HOST).i64_and().i64_eqz().i32_eqz().if_(BlockType::Empty);
    code.local_get(ROOM).call(FINISH).return_().end();
    check_room(&mut code, ROOM, SIZE);
    write_value(&mut code);
    write_parts(&mut code, (DATA, ROOM), (SIZE_AT, SIZE));
    code.end();
    body
}

/// Returns when the allocator made no room, or what is none.
pub(super) fn check_room(code: &mut InstructionSink<'_>, room: u32, size: u32) {
    code.local_get(room).i32_eqz().if_(BlockType::Empty);
    code.i32_const(Status::InternalFailure as i32).return_().end();
    code.local_get(room).i64_extend_i32_u().local_get(size).i64_extend_i32_u().i64_add();
    code.memory_size(0).i64_extend_i32_u().i64_const(16).i64_shl().i64_gt_u();
    code.if_(BlockType::Empty).i32_const(Status::InvalidMemoryAccess as i32).return_().end();
}

/// Tells the guest where its value is, and how large: in variables, each behind the one with the address to write it to.
pub(super) fn write_parts(code: &mut InstructionSink<'_>, room: (u32, u32), size: (u32, u32)) {
    for (address, number) in [room, size] {
        code.local_get(address).local_get(number).i32_store(at(0));
    }
    code.i32_const(Status::Ok as i32);
}

/// Writes what [`hostcall::memory`] has packed: pieces from the beginning and pieces from the end, which meet or overlap.
fn write_value(code: &mut InstructionSink<'_>) {
    let word = |number: u32| VALUE + number;
    let size_is_at_least = |code: &mut InstructionSink<'_>, least: i32| {
        code.local_get(SIZE).i32_const(least).i32_ge_u().if_(BlockType::Empty);
    };
    let end = |code: &mut InstructionSink<'_>, less: i32| {
        code.local_get(ROOM).local_get(SIZE).i32_add().i32_const(less).i32_sub();
    };
    size_is_at_least(code, 16);
    code.local_get(ROOM).local_get(word(0)).i64_store(at(0));
    code.local_get(ROOM).local_get(word(1)).i64_store(at(8));
    end(code, 16);
    code.local_get(word(2)).i64_store(at(0));
    end(code, 8);
    code.local_get(word(3)).i64_store(at(0));
    code.else_();
    size_is_at_least(code, 8);
    code.local_get(ROOM).local_get(word(0)).i64_store(at(0));
    end(code, 8);
    code.local_get(word(1)).i64_store(at(0));
    code.else_();
    size_is_at_least(code, 4);
    code.local_get(ROOM).local_get(word(0)).i64_store32(at(0));
    end(code, 4);
    code.local_get(word(1)).i64_store32(at(0));
    code.else_();
    // 1 to 3 bytes: the first, the one in the middle, the last.
    code.local_get(ROOM).local_get(word(0)).i64_store8(at(0));
    code.local_get(ROOM).local_get(SIZE).i32_const(1).i32_shr_u().i32_add();
    code.local_get(word(1)).i64_store8(at(0));
    end(code, 1);
    code.local_get(word(2)).i64_store8(at(0));
    code.end().end().end();
}

fn at(offset: u64) -> MemArg {
    MemArg { offset, align: 0, memory_index: 0 }
}
