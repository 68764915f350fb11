//! A guest that plays tapes: in every callback it reads one and calls the host functions that it names.
//!
//! Callbacks of a stream find their tape in the property `tape`, those of a plugin context in its configuration. A
//! tape is `u32` words: what the callback answers, then numbers of operations, each followed by its arguments.

use resty_proxy_wasm::abi::{HOST_FUNCTIONS, HostFunction, PROPERTIES, Support};
use resty_proxy_wasm::error::Error;
use std::sync::LazyLock;

/// The functions of WASI that this host has of its own.
const WASI: &[HostFunction] = &[
    wasi("fd_write", &[("fd", "u32"), ("iovs", "u32"), ("count", "u32"), ("return_size", "u32")]),
    wasi("environ_sizes_get", &[("return_count", "u32"), ("return_size", "u32")]),
    wasi("environ_get", &[("return_array", "u32"), ("return_buffer", "u32")]),
    wasi("clock_time_get", &[("clock", "u32"), ("precision", "i64"), ("return_time", "u32")]),
    wasi("random_get", &[("return_data", "u32"), ("size", "u32")]),
    wasi(
        "poll_oneoff",
        &[("subs", "u32"), ("return_events", "u32"), ("count", "u32"), ("return_size", "u32")],
    ),
    wasi("sched_yield", &[]),
];

const fn wasi(name: &'static str, params: &'static [(&'static str, &'static str)]) -> HostFunction {
    HostFunction { name, params, versions: "", support: Support::Full }
}

/// What a tape can call, in the order of its numbers.
pub(crate) static FUNCTIONS: LazyLock<Vec<HostFunction>> =
    LazyLock::new(|| [HOST_FUNCTIONS, WASI].concat());

/// The statuses that a function may answer, whatever it is given. SDKs panic on others.
fn statuses(function: &str) -> &'static [u32] {
    match function {
        "proxy_log" => &[0, 2, 6],
        "proxy_get_log_level" | "proxy_get_current_time_nanoseconds" | "proxy_get_status" => {
            &[0, 6]
        }
        "proxy_set_tick_period_milliseconds" => &[0, 2],
        "proxy_get_buffer_bytes" | "proxy_get_header_map_value" => &[0, 1, 2, 6, 10],
        "proxy_get_buffer_status" => &[0, 1, 2, 6],
        "proxy_get_header_map_size" => &[0, 2, 6],
        "proxy_set_buffer_bytes"
        | "proxy_get_header_map_pairs"
        | "proxy_set_header_map_pairs"
        | "proxy_add_header_map_value"
        | "proxy_replace_header_map_value"
        | "proxy_remove_header_map_value"
        | "proxy_send_local_response"
        | "proxy_http_call"
        | "proxy_define_metric"
        | "proxy_redis_init"
        | "proxy_redis_call"
        | "proxy_inject_encoded_data_to_filter_chain"
        | "proxy_set_property" => &[0, 2, 6, 10],
        "proxy_continue_stream" | "proxy_close_stream" | "proxy_set_effective_context" => &[0, 2],
        "proxy_continue_request" | "proxy_continue_response" | "proxy_clear_route_cache" => &[0],
        "proxy_get_configuration" | "proxy_get_shared_data" | "proxy_get_property" => {
            &[0, 1, 6, 10]
        }
        "proxy_grpc_call" | "proxy_grpc_stream" => &[0, 4, 6, 10],
        "proxy_grpc_send" => &[0, 1, 2, 6],
        "proxy_grpc_cancel" | "proxy_grpc_close" | "proxy_done" => &[0, 1],
        "proxy_get_upstream_hosts" => &[0, 6, 10],
        "proxy_set_upstream_override_host" => &[0, 1, 2, 6],
        "proxy_set_shared_data" => &[0, 6, 8, 10],
        "proxy_register_shared_queue" => &[0, 6, 10],
        "proxy_resolve_shared_queue" => &[0, 1, 6],
        "proxy_enqueue_shared_queue" => &[0, 1, 6, 10],
        "proxy_dequeue_shared_queue" => &[0, 1, 6, 7, 10],
        "proxy_increment_metric" | "proxy_record_metric" => &[0, 1, 2],
        "proxy_get_metric" => &[0, 1, 2, 6],
        "proxy_call_foreign_function" => &[0, 1, 2, 3, 6, 10],
        // Errors of WASI: BADF, FAULT, INVAL, NOTSUP.
        "sched_yield" => &[0],
        "fd_write" => &[0, 8, 21, 28],
        "clock_time_get" => &[0, 21, 58],
        "environ_sizes_get" | "environ_get" | "random_get" | "poll_oneoff" => &[0, 21, 28],
        other => panic!("which statuses may {other} answer?"),
    }
}

/// What lies in the guest's memory for arguments to point to; behind these the paths of all properties.
const PIECES: &[&[u8]] = &[
    b"",
    b"a",
    b"x-name",
    b"Host",
    b":path",
    b":method",
    b":authority",
    b":scheme",
    b":status",
    b"content-length",
    b"value",
    b"/p%20q?r",
    b"POST",
    b"403",
    b"bad\r\nvalue",
    b"b ad",
    b"my\0own",
    b"request\0path",
    b"request\0headers\0a",
    b"response\0headers",
    b"free",
    b"\x01\0\0\0\x01\0\0\0\x01\0\0\0a\x001\0",
    b"\x02\0\0\0\x05\0\0\0\x02\0\0\0\x01\0\0\0\0\0\0\0:path\0/x\0b\0\0",
    b"\x01\0\0\0\x01\0\0\0\x02\0\0\0a\0\r\n\0",
    b"\x01\0\0\0\xff\0\0\0\x01\0\0\0a\x001\0",
    // Two parts to write: "value" and "403".
    b"\x80\x06\0\0\x05\0\0\0\x40\x07\0\0\x03\0\0\0",
];

static ALL_PIECES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let paths = PROPERTIES.iter().map(|p| p.path.replace('.', "\0").into_bytes());
    PIECES.iter().map(|piece| piece.to_vec()).chain(paths).collect()
});

/// Each piece has this many bytes of memory for itself.
const ROOM: u32 = 64;
const PIECES_AT: u32 = 1024;
/// Bytes of the tape's own come behind the pieces, with more room.
const WILD_AT: u32 = 8 * 1024;
/// The most that one of them can have.
pub(crate) const WILD_ROOM: u32 = 512;
/// And how many there can be.
pub(crate) const WILD: u32 = 16;
const RETURNS_AT: u32 = 16 * 1024;
const HEAP_AT: u32 = 32 * 1024;
const PAGES: u32 = 2;
const MEMORY: u32 = PAGES * 65536;

/// A type of the table as WebAssembly text.
pub(crate) fn wasm_type(ty: &str) -> &'static str {
    match ty {
        "u32" => "i32",
        "i64" => "i64",
        other => panic!("the table has a type {other}"),
    }
}

/// The import of a host function, as `$NAME`.
pub(crate) fn import(function: &HostFunction) -> String {
    let name = function.name;
    let module = if name.starts_with("proxy_") { "env" } else { "wasi_snapshot_preview1" };
    let params: Vec<&str> = function.params.iter().map(|(_, ty)| wasm_type(ty)).collect();
    format!(
        r#"(import "{module}" "{name}" (func ${name} (param {}) (result i32)))"#,
        params.join(" ")
    )
}

/// Calls a function with words of the tape, and with the statuses that it may answer as bits.
fn operation((index, function): (usize, &HostFunction)) -> String {
    let argument =
        |ty: &str| if ty == "i64" { "(i64.extend_i32_s (call $word))" } else { "(call $word)" };
    let arguments: String = function.params.iter().map(|(_, ty)| argument(ty)).collect();
    let allowed: u64 = statuses(function.name).iter().map(|status| 1 << status).sum();
    format!(
        "(func $f{index} (call $check (i64.const {allowed}) (call ${} {arguments})))\n",
        function.name
    )
}

/// The guest's module, for a version of the ABI as in `0_2_1`.
pub(crate) fn player(version: &str) -> Vec<u8> {
    let imports: String = FUNCTIONS.iter().map(import).collect();
    let operations: String = FUNCTIONS.iter().enumerate().map(operation).collect();
    let table: String = (0..FUNCTIONS.len()).map(|index| format!(" $f{index}")).collect();
    let data: String = ALL_PIECES
        .iter()
        .enumerate()
        .map(|(index, piece)| {
            assert!(piece.len() <= ROOM as usize, "a piece is too long");
            let bytes: String = piece.iter().map(|b| format!("\\{b:02x}")).collect();
            format!("(data (i32.const {}) \"{bytes}\")\n", PIECES_AT + index as u32 * ROOM)
        })
        .collect();
    assert!(PIECES_AT + ALL_PIECES.len() as u32 * ROOM <= WILD_AT, "the pieces are too many");
    let headers = if version == "0_1_0" { "(param i32 i32)" } else { "(param i32 i32 i32)" };
    let answers = |params: &str| format!("{params} (result i32)");
    let callbacks: String = [
        ("vm_start", answers("(param i32 i32)"), "(i32.eqz (call $play))"),
        ("configure", answers("(param i32 i32)"), "(i32.eqz (call $play))"),
        ("request_headers", answers(headers), "(call $play)"),
        ("request_body", answers("(param i32 i32 i32)"), "(call $play)"),
        ("response_headers", answers(headers), "(call $play)"),
        ("response_body", answers("(param i32 i32 i32)"), "(call $play)"),
        ("done", answers("(param i32)"), "(i32.eqz (call $play))"),
        ("context_create", "(param i32 i32)".into(), "(drop (call $play))"),
        ("log", "(param i32)".into(), "(drop (call $play))"),
        ("delete", "(param i32)".into(), "(drop (call $play))"),
    ]
    .iter()
    .map(|(name, ty, body)| format!("(func (export \"proxy_on_{name}\") {ty} {body})\n"))
    .collect();
    let text = format!(
        r#"(module {imports}
        (memory (export "memory") {PAGES} 4)
        (func (export "proxy_abi_version_{version}"))
        (global $free (mut i32) (i32.const {HEAP_AT}))
        (global $at (mut i32) (i32.const 0))
        (global $end (mut i32) (i32.const 0))
        (global $allocator (mut i32) (i32.const 0))
        (table funcref (elem {table} $trap $poke $set_allocator))
        (func $trap unreachable)
        (func $poke (local $to i32) (local $words i32)
            (local.set $to (call $word))
            (local.set $words (i32.shl (call $word) (i32.const 2)))
            (memory.copy (local.get $to) (global.get $at) (local.get $words))
            (global.set $at (i32.add (global.get $at) (local.get $words))))
        (func $set_allocator (global.set $allocator (call $word)))
        (func $check (param $allowed i64) (param $status i32)
            (if (i32.ge_u (local.get $status) (i32.const 64)) (then (call $forbidden)))
            (if (i64.eqz (i64.and (i64.const 1)
                    (i64.shr_u (local.get $allowed) (i64.extend_i32_u (local.get $status)))))
                (then (call $forbidden))))
        (func $forbidden (drop (i32.div_u (i32.const 1) (i32.const 0))))
        (func (export "proxy_on_memory_allocate") (param $size i32) (result i32) (local $at i32)
            (if (i32.eq (global.get $allocator) (i32.const 1)) (then (return (i32.const 0))))
            (if (i32.eq (global.get $allocator) (i32.const 2)) (then (return (i32.const -4))))
            (if (i32.eq (global.get $allocator) (i32.const 3)) (then unreachable))
            (if (i32.eq (global.get $allocator) (i32.const 4)) (then (drop (memory.grow (i32.const 1)))))
            (if (i32.and (i32.eq (global.get $allocator) (i32.const 5))
                    (i32.lt_u (global.get $at) (global.get $end)))
                (then (call_indirect (call $word))))
            (if (i32.gt_u (local.get $size) (i32.const 32768)) (then (return (i32.const 0))))
            (if (i32.gt_u (i32.add (global.get $free) (local.get $size)) (i32.const {MEMORY}))
                (then (global.set $free (i32.const {HEAP_AT}))))
            (local.set $at (global.get $free))
            (global.set $free (i32.add (local.get $at) (local.get $size)))
            (local.get $at))
        (func $word (result i32)
            (i32.load (global.get $at))
            (global.set $at (i32.add (global.get $at) (i32.const 4))))
        (func $play (result i32) (local $answer i32)
            (global.set $allocator (i32.const 0))
            (if (call $proxy_get_property (i32.const 0) (i32.const 4) (i32.const 8) (i32.const 12))
                (then (if (call $proxy_get_buffer_bytes
                        (i32.const 7) (i32.const 0) (i32.const 65536) (i32.const 8) (i32.const 12))
                    (then (return (i32.const 0))))))
            (global.set $at (i32.load (i32.const 8)))
            (global.set $end (i32.add (global.get $at) (i32.load (i32.const 12))))
            (if (i32.eqz (i32.load (i32.const 12))) (then (return (i32.const 0))))
            (local.set $answer (call $word))
            (block $over (loop $next
                (br_if $over (i32.ge_u (global.get $at) (global.get $end)))
                (call_indirect (call $word))
                (br $next)))
            (local.get $answer))
        {operations} {callbacks} {data}
        (data (i32.const 0) "tape"))"#,
    );
    wat::parse_str(text).expect("WebAssembly text")
}

/// One operation of a tape.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    /// The function of that number, with a random number for each of its parameters, see [`arguments`].
    Call(usize, Vec<u32>),
    /// The guest traps.
    Trap,
    /// From here on the allocator answers 0 (1), an address outside the memory (2), traps (3), grows the memory (4), or
    /// plays the next operation of the tape before it answers (5).
    Allocator(u32),
}

/// What a callback answers, and what it does before that. `wild` are bytes for arguments to point to, as the pieces are.
pub(crate) fn tape(answer: u32, operations: &[Operation], wild: &[&[u8]]) -> Vec<u8> {
    let mut words = vec![answer];
    let number = |behind: usize| (FUNCTIONS.len() + behind) as u32;
    for (index, bytes) in wild.iter().enumerate() {
        words.extend([number(1), wild_at(index), bytes.len().div_ceil(4) as u32]);
        words.extend(bytes.chunks(4).map(|chunk| {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            u32::from_le_bytes(word)
        }));
    }
    for operation in operations {
        match operation {
            Operation::Call(index, numbers) => {
                words.push(*index as u32);
                words.extend(arguments(&FUNCTIONS[*index], numbers, wild));
            }
            Operation::Trap => words.push(number(0)),
            Operation::Allocator(mode) => words.extend([number(2), *mode]),
        }
    }
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn wild_at(index: usize) -> u32 {
    WILD_AT + index as u32 * WILD_ROOM
}

/// Address and size of a piece.
fn piece(number: u32, wild: &[&[u8]]) -> (u32, u32) {
    let number = number as usize % (ALL_PIECES.len() + wild.len());
    match ALL_PIECES.get(number) {
        Some(piece) => (PIECES_AT + number as u32 * ROOM, piece.len() as u32),
        None => {
            let index = number - ALL_PIECES.len();
            (wild_at(index), wild[index].len() as u32)
        }
    }
}

/// Numbers at the edges of things.
fn edge(number: u32) -> u32 {
    let edges = [
        0,
        1,
        4,
        MEMORY - 4,
        MEMORY - 1,
        MEMORY,
        i32::MAX as u32,
        1 << 31,
        u32::MAX - 3,
        u32::MAX,
        number,
    ];
    edges[number as usize % edges.len()]
}

/// Arguments by the names of the table: most make sense, so that calls get far; those of numbers that 16 divides do not.
fn arguments(function: &HostFunction, numbers: &[u32], wild: &[&[u8]]) -> Vec<u32> {
    let mut arguments: Vec<u32> = Vec::new();
    let mut last_piece = (0, 0);
    for (index, (name, _)) in function.params.iter().enumerate() {
        let number = numbers[index];
        let (choice, odd) = (number / 16, number.is_multiple_of(16));
        let before = index.checked_sub(1).map(|i| function.params[i].0);
        let of = |pointer: &str| {
            *name == format!("{pointer}_size") || (pointer == "data" && *name == "size")
        };
        arguments.push(match *name {
            _ if odd => edge(choice),
            _ if before.is_some_and(of) && arguments[index - 1] == last_piece.0 => last_piece.1,
            _ if before.is_some_and(of) => choice % ROOM,
            name if name.starts_with("return_") => RETURNS_AT + choice % 64 * 8,
            "level" => choice % 7,
            "map" => [0, 0, 0, 2, 2, 2, 1, 6, 9][choice as usize % 9],
            "buffer" => [0, 0, 0, 1, 1, 1, 4, 7, 9][choice as usize % 9],
            "stream" | "kind" | "fd" | "clock" | "count" => choice % 5,
            "status" => [99, 100, 200, 403, 503, 999, 1000][choice as usize % 7],
            "grpc_status" => choice % 20,
            "id" => choice % 12,
            "start" | "size" | "max_size" | "timeout_ms" | "period" | "cas" | "delta" | "value"
                if function.params.len() == 2 || *name != "value" =>
            {
                choice % 40
            }
            _ => {
                last_piece = piece(choice, wild);
                last_piece.0
            }
        });
    }
    arguments
}

/// Fails the test when the guest was answered a status that its function may not answer.
pub(crate) fn check_statuses(error: &Error) {
    let text = error.to_string();
    assert!(!text.contains("divide by zero"), "a status that the ABI does not allow: {text}");
}
