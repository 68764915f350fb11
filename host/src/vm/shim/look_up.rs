//! WebAssembly that looks a header up by its name, gives the guest its value, and calls the host for neither.
//!
//! The host puts headers into a memory of this module, see [`shown_headers`]. The guest's own memory is the other one.
//!
//! ```text
//! (func (param $map $key $key_size $data $size i32) (result i32)
//!   if $map is not shown, or a parameter is not good, or the key may have capital letters: return ask_host(all parameters)
//!   for each of the first headers whose name has the same hash, if it is the key:
//!     room = allocate(the value's size)
//!     write the value to room, room to $data, the size to $size
//!     return OK
//!   if there are no others: return what is answered for a name that is not there
//!   return ask_host(all parameters))
//! ```

use wasm_encoder::{BlockType, Function, InstructionSink, MemArg, MemoryType, ValType};

use super::give::{check_room, write_parts};
use crate::guest::shown_headers::{
    BYTES, FIRST, HASH_BITS, HASH_FACTOR, HASH_ROTATION, LAST, LAST_WORD, LEAST, MAP, MISSING,
    NAME_AT, NAME_SIZE, NEXT, PLACES, RUNNING, USED, VALUE_AT, VALUE_SIZE,
};
use crate::limits;

/// The host function that this stands in for.
pub(super) const NAME: &str = "proxy_get_header_map_value";

/// The guest's memory, and the one with the headers.
const GUEST: u32 = 0;
pub(super) const SHOWN: u32 = 1;

// Its parameters, and variables behind them.
const OF_MAP: u32 = 0;
const KEY: u32 = 1;
const KEY_SIZE: u32 = 2;
const DATA: u32 = 3;
const SIZE_AT: u32 = 4;
/// How many they are.
const PARAMS: u32 = 5;
const HEADER: u32 = 5;
const OFFSET: u32 = 6;
const VALUE: u32 = 7;
const SIZE: u32 = 8;
const ROOM: u32 = 9;
const NUMBERS: u32 = 5;
const KEY_FIRST: u32 = 10;
const KEY_LAST: u32 = 11;

/// How many headers with the same hash are looked at. A loop over them would take longer: in each round it asks whether its
/// time is over.
const LOOKED_AT: usize = 4;

/// A bit that capital letters do not have. Lower-case letters, digits and hyphens have it.
const LOWER: i64 = 0x2020_2020_2020_2020;

/// The memory in which headers are shown: one page.
pub(super) const MEMORY_TYPE: MemoryType = MemoryType {
    minimum: 1,
    maximum: Some(1),
    memory64: false,
    shared: false,
    page_size_log2: None,
};

/// The function. These are the numbers of the one that answers where this cannot, and of the guest's allocator.
pub(super) fn body(ask_host: u32, allocate: u32) -> Function {
    let mut body = Function::new([(NUMBERS, ValType::I32), (2, ValType::I64)]);
    let mut code = body.instructions();
    check(&mut code, ask_host);
    take_key(&mut code, ask_host);

    code.block(BlockType::Empty).block(BlockType::Empty);
    first_of_hash(&mut code);
    for _ in 0..LOOKED_AT {
        code.local_tee(HEADER).i32_eqz().br_if(0);
        code.local_get(HEADER).i64_load(shown(FIRST)).local_get(KEY_FIRST).i64_xor();
        code.local_get(HEADER).i64_load(shown(LAST)).local_get(KEY_LAST).i64_xor().i64_or();
        code.local_get(HEADER).i64_load32_u(shown(NAME_SIZE));
        code.local_get(KEY_SIZE).i64_extend_i32_u().i64_xor().i64_or().i64_eqz().br_if(1);
        code.local_get(HEADER).i32_load(shown(NEXT));
    }
    ask_host_if(&mut code, ask_host);
    code.end();
    code.i32_const(0).i32_const(1).i32_store(shown(USED));
    code.i32_const(0).i32_load(shown(MISSING)).local_tee(SIZE).i32_const(0).i32_lt_s();
    ask_host_if(&mut code, ask_host);
    code.local_get(SIZE).return_().end();
    compare_middle(&mut code, ask_host);
    give(&mut code, ask_host, allocate);
    code.end();
    body
}

/// The address of the first header whose name has the hash of the key, or 0.
fn first_of_hash(code: &mut InstructionSink<'_>) {
    code.local_get(KEY_FIRST).local_get(KEY_LAST).i64_const(HASH_ROTATION.into()).i64_rotl();
    code.i64_xor().i64_const(HASH_FACTOR as i64).i64_mul();
    code.i64_const((u64::BITS - HASH_BITS).into()).i64_shr_u().i32_wrap_i64();
    code.i32_const(1).i32_shl().i32_load16_u(shown(PLACES));
}

/// Asks the host when that is so.
fn ask_host_if(code: &mut InstructionSink<'_>, ask_host: u32) {
    code.if_(BlockType::Empty);
    (0..PARAMS).for_each(|param| {
        code.local_get(param);
    });
    code.return_call(ask_host).end();
}

/// Asks the host when a parameter is not good.
fn check(code: &mut InstructionSink<'_>, ask_host: u32) {
    code.i32_const(0).i64_load(shown(MAP));
    code.local_get(OF_MAP).i64_extend_i32_u().i64_const(1).i64_add().i64_ne();
    // What has all of their bits is not less than any of them.
    code.local_get(KEY).i64_extend_i32_u().local_get(KEY_SIZE).i64_extend_i32_u().i64_add();
    code.local_get(DATA).local_get(SIZE_AT).i32_or().i64_extend_i32_u().i64_or();
    code.i32_const(0).i64_load(shown(LAST_WORD)).i64_gt_u().i32_or();
    ask_host_if(code, ask_host);
}

/// Takes both ends of the key, and asks the host when there may be a capital letter in them.
fn take_key(code: &mut InstructionSink<'_>, ask_host: u32) {
    let at_end = |code: &mut InstructionSink<'_>, less: i32| {
        code.local_get(KEY).local_get(KEY_SIZE).i32_add().i32_const(less).i32_sub();
    };
    code.local_get(KEY_SIZE).i32_const(8).i32_ge_u().if_(BlockType::Empty);
    code.local_get(KEY).i64_load(guest(0)).local_set(KEY_FIRST);
    at_end(code, 8);
    code.i64_load(guest(0)).local_set(KEY_LAST);
    code.else_();
    code.local_get(KEY_SIZE).i32_const(0).i32_load(shown(LEAST)).i32_lt_u();
    ask_host_if(code, ask_host);
    code.local_get(KEY).i64_load32_u(guest(0));
    at_end(code, 4);
    code.i64_load32_u(guest(0)).i64_const(32).i64_shl().i64_or();
    code.local_tee(KEY_FIRST).local_set(KEY_LAST).end();
    code.local_get(KEY_FIRST).local_get(KEY_LAST).i64_and().i64_const(LOWER).i64_and();
    code.i64_const(LOWER).i64_ne();
    ask_host_if(code, ask_host);
}

/// Compares what is between the ends of the key, and asks the host when that is not the same, or the key is long.
fn compare_middle(code: &mut InstructionSink<'_>, ask_host: u32) {
    code.local_get(KEY_SIZE).i32_const(16).i32_gt_u().if_(BlockType::Empty);
    code.local_get(HEADER).i32_load(shown(NAME_AT)).local_set(VALUE);
    code.i32_const(8).local_set(OFFSET);
    let differs = |code: &mut InstructionSink<'_>| {
        for (base, memory) in [(KEY, guest(0)), (VALUE, shown(BYTES))] {
            code.local_get(base).local_get(OFFSET).i32_add().i64_load(memory);
        }
        code.i64_xor();
    };
    differs(code);
    code.local_get(KEY_SIZE).i32_const(16).i32_sub().local_set(OFFSET);
    differs(code);
    code.i64_or().i64_eqz().i32_eqz();
    code.local_get(KEY_SIZE).i32_const(32).i32_gt_u().i32_or();
    ask_host_if(code, ask_host);
    code.end();
}

/// Gives the guest the value of the header, and returns.
fn give(code: &mut InstructionSink<'_>, ask_host: u32, allocate: u32) {
    code.i32_const(0).i32_const(1).i32_store(shown(USED));
    code.local_get(HEADER).i32_load(shown(VALUE_AT)).local_set(VALUE);
    code.local_get(HEADER).i32_load(shown(VALUE_SIZE)).local_tee(SIZE).if_(BlockType::Empty);
    // The allocator may ask for values itself, and for each of them run once more.
    let running = |code: &mut InstructionSink<'_>| {
        code.i32_const(0).i32_load(shown(RUNNING));
    };
    running(code);
    code.i32_const(limits::HANDOVERS as i32).i32_ge_u();
    ask_host_if(code, ask_host);
    code.i32_const(0);
    running(code);
    code.i32_const(1).i32_add().i32_store(shown(RUNNING));
    code.local_get(SIZE).call(allocate).local_set(ROOM);
    code.i32_const(0);
    running(code);
    code.i32_const(1).i32_sub().i32_store(shown(RUNNING));
    check_room(code, ROOM, SIZE);
    copy(code);
    code.end();
    write_parts(code, (DATA, ROOM), (SIZE_AT, SIZE));
}

/// Copies the value to its room. Up to 16 bytes: pieces from the beginning and pieces from the end, which meet or overlap.
fn copy(code: &mut InstructionSink<'_>) {
    /// Addresses of a piece in both, so many bytes before the end.
    fn at_end(code: &mut InstructionSink<'_>, less: i32) {
        for base in [ROOM, VALUE] {
            code.local_get(base).local_get(SIZE).i32_add().i32_const(less).i32_sub();
        }
    }
    let size_is_at_least = |code: &mut InstructionSink<'_>, least: i32| {
        code.local_get(SIZE).i32_const(least).i32_ge_u().if_(BlockType::Empty);
    };
    size_is_at_least(code, 8);
    size_is_at_least(code, 17);
    code.local_get(ROOM).local_get(VALUE).i32_const(BYTES as i32).i32_add().local_get(SIZE);
    code.memory_copy(GUEST, SHOWN);
    code.else_();
    code.local_get(ROOM).local_get(VALUE).i64_load(shown(BYTES)).i64_store(guest(0));
    at_end(code, 8);
    code.i64_load(shown(BYTES)).i64_store(guest(0));
    code.end();
    code.else_();
    size_is_at_least(code, 4);
    code.local_get(ROOM).local_get(VALUE).i32_load(shown(BYTES)).i32_store(guest(0));
    at_end(code, 4);
    code.i32_load(shown(BYTES)).i32_store(guest(0));
    code.else_();
    // 1 to 3 bytes: the first, the one in the middle, the last.
    code.local_get(ROOM).local_get(VALUE).i32_load8_u(shown(BYTES)).i32_store8(guest(0));
    for base in [ROOM, VALUE] {
        code.local_get(base).local_get(SIZE).i32_const(1).i32_shr_u().i32_add();
    }
    code.i32_load8_u(shown(BYTES)).i32_store8(guest(0));
    at_end(code, 1);
    code.i32_load8_u(shown(BYTES)).i32_store8(guest(0));
    code.end().end();
}

fn guest(offset: u32) -> MemArg {
    MemArg { offset: offset.into(), align: 0, memory_index: GUEST }
}

fn shown(offset: u32) -> MemArg {
    MemArg { offset: offset.into(), align: 0, memory_index: SHOWN }
}
