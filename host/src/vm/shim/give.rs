//! WebAssembly that calls the guest's allocator and writes a short value.
//!
//! To enter the host a second time for each value takes longer than to look most of them up. So a short value comes out of
//! the first call as a few numbers, see [`hostcall::memory`], and is written from here, where the guest's memory is at hand:
//!
//! ```text
//! (func (param $answer i64) (param $data $size i32) (param $value i64 i64 i64 i64) (result i32)
//!   room = allocate($answer's size)
//!   if $answer says that the host hands the value over: return what it answers to room
//!   if room is not in the memory: return why not
//!   write the value to room, room to $data, the size to $size
//!   OK)
//! ```

use wasm_encoder::{BlockType, Function, InstructionSink, MemArg, ValType};

use crate::abi::Status;
use crate::hostcall::Step;
use crate::hostcall::memory::{BY_HOST, WORDS};
use crate::limits;

/// Its parameters.
pub(super) const PARAMS: [ValType; 3 + WORDS] = {
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

/// What the function uses of its module, by their numbers.
#[derive(Clone, Copy)]
pub(super) struct Uses {
    /// The guest's allocator.
    pub allocate: u32,
    /// The beginning of a host function, of any.
    pub begin: u32,
    /// A global: how often the allocator runs now.
    pub running: u32,
}

/// The function.
pub(super) fn body(uses: Uses) -> Function {
    let Uses { allocate, running, .. } = uses;
    let mut body = Function::new([(2, ValType::I32)]);
    let mut code = body.instructions();
    // The allocator may ask for values itself, and for each of them run once more.
    code.global_get(running).i32_const(limits::HANDOVERS as i32).i32_ge_u();
    code.if_(BlockType::Empty);
    go_on(&mut code, uses, Step::Refuse, |code| {
        code.local_get(ANSWER);
    });
    code.end();
    code.global_get(running).i32_const(1).i32_add().global_set(running);
    code.local_get(ANSWER).i32_wrap_i64().local_tee(SIZE).call(allocate).local_set(ROOM);
    code.global_get(running).i32_const(1).i32_sub().global_set(running);

    code.local_get(ANSWER).i64_const(BY_HOST).i64_and().i64_eqz().i32_eqz().if_(BlockType::Empty);
    go_on(&mut code, uses, Step::Finish, |code| {
        code.local_get(ROOM).i64_extend_i32_u();
    });
    code.end();
    check_room(&mut code, ROOM, SIZE);
    write_value(&mut code);
    write_parts(&mut code, (DATA, ROOM), (SIZE_AT, SIZE));
    code.end();
    body
}

/// Returns what the host answers to a number.
fn go_on(
    code: &mut InstructionSink<'_>,
    uses: Uses,
    step: Step,
    number: impl FnOnce(&mut InstructionSink<'_>),
) {
    code.i64_const(step as i64);
    number(code);
    code.i64_const(0).i64_const(0).call(uses.begin);
    for _ in 0..WORDS {
        code.drop();
    }
    code.i32_wrap_i64().return_();
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
