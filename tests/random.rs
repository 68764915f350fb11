//! Random events and host functions with random arguments: nothing panics, ids stay what they are, nothing that could
//! split a message comes out. The seed is fixed: a run is like every other.

use crate::linking::import;
use crate::world::{Filter, Request, Stream, World, runner};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::select;
use resty_proxy_wasm::abi::{Callback, HOST_FUNCTIONS, HostFunction};
use resty_proxy_wasm::error::Error;
use resty_proxy_wasm::event::Action;
use resty_proxy_wasm::ports::Phase;
use resty_proxy_wasm::vm::Context;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// What lies in the guest's memory for arguments to point to.
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
    b"ngx\0free",
    b"\x01\0\0\0\x01\0\0\0\x01\0\0\0a\x001\0",
    b"\x02\0\0\0\x05\0\0\0\x02\0\0\0\x01\0\0\0\0\0\0\0:path\0/x\0b\0\0",
    b"\x01\0\0\0\x01\0\0\0\x02\0\0\0a\0\r\n\0",
    b"\x01\0\0\0\xff\0\0\0\x01\0\0\0a\x001\0",
];

/// Each piece has this many bytes of memory for itself.
const ROOM: u32 = 64;
const PIECES_AT: u32 = 1024;
const RETURNS_AT: u32 = 16 * 1024;
const MEMORY: u32 = 2 * 65536;

/// Plays a tape, which it finds in the nginx variable `tape`, in every callback of a stream: what the callback returns,
/// then the numbers of functions, each followed by its arguments.
fn player() -> Vec<u8> {
    let imports: String = HOST_FUNCTIONS.iter().map(import).collect();
    let mut operations = String::new();
    for (index, function) in HOST_FUNCTIONS.iter().enumerate() {
        let arguments: String = function
            .params
            .iter()
            .map(
                |(_, ty)| {
                    if *ty == "i64" { "(i64.extend_i32_s (call $word))" } else { "(call $word)" }
                },
            )
            .collect();
        operations += &format!("(func $f{index} (drop (call ${} {arguments})))\n", function.name);
    }
    let table: String = (0..HOST_FUNCTIONS.len()).map(|index| format!(" $f{index}")).collect();
    let data: String = PIECES
        .iter()
        .enumerate()
        .map(|(index, piece)| {
            let bytes: String = piece.iter().map(|b| format!("\\{b:02x}")).collect();
            format!("(data (i32.const {}) \"{bytes}\")\n", PIECES_AT + index as u32 * ROOM)
        })
        .collect();
    let callbacks: String = [
        ("request_headers", "(param i32 i32 i32) (result i32)", "(call $play)"),
        ("request_body", "(param i32 i32 i32) (result i32)", "(call $play)"),
        ("response_headers", "(param i32 i32 i32) (result i32)", "(call $play)"),
        ("response_body", "(param i32 i32 i32) (result i32)", "(call $play)"),
        ("done", "(param i32) (result i32)", "(call $play)"),
        ("context_create", "(param i32 i32)", "(drop (call $play))"),
        ("log", "(param i32)", "(drop (call $play))"),
        ("delete", "(param i32)", "(drop (call $play))"),
    ]
    .iter()
    .map(|(name, ty, body)| format!("(func (export \"proxy_on_{name}\") {ty} {body})\n"))
    .collect();
    let text = format!(
        r#"(module {imports}
        (memory (export "memory") {pages})
        (func (export "proxy_abi_version_0_2_1"))
        (global $free (mut i32) (i32.const 32768))
        (global $at (mut i32) (i32.const 0))
        (table funcref (elem {table} $trap))
        (func $trap unreachable)
        (func (export "proxy_on_memory_allocate") (param $size i32) (result i32) (local $at i32)
            (if (i32.gt_u (local.get $size) (i32.const 32768)) (then (return (i32.const 0))))
            (if (i32.gt_u (i32.add (global.get $free) (local.get $size)) (i32.const {MEMORY}))
                (then (global.set $free (i32.const 32768))))
            (local.set $at (global.get $free))
            (global.set $free (i32.add (local.get $at) (local.get $size)))
            (local.get $at))
        (func $word (result i32)
            (i32.load (global.get $at))
            (global.set $at (i32.add (global.get $at) (i32.const 4))))
        (func $play (result i32) (local $end i32) (local $answer i32)
            (if (call $proxy_get_property (i32.const 0) (i32.const 4) (i32.const 8) (i32.const 12))
                (then (return (i32.const 0))))
            (global.set $at (i32.load (i32.const 8)))
            (local.set $end (i32.add (global.get $at) (i32.load (i32.const 12))))
            (if (i32.eqz (i32.load (i32.const 12))) (then (return (i32.const 0))))
            (local.set $answer (call $word))
            (block $over (loop $next
                (br_if $over (i32.ge_u (global.get $at) (local.get $end)))
                (call_indirect (call $word))
                (br $next)))
            (local.get $answer))
        {operations} {callbacks} {data}
        (data (i32.const 0) "tape"))"#,
        pages = MEMORY / 65536,
    );
    wat::parse_str(text).expect("WebAssembly text")
}

/// A function and a random number for each of its parameters. The number behind the last function is a trap.
type Call = (usize, Vec<u32>);

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let changes = ["header_map", "buffer_bytes", "property", "context", "stream", "local_response"];
    let changes = |f: &HostFunction| changes.iter().any(|part| f.name.contains(part));
    let changing: Vec<usize> =
        (0..HOST_FUNCTIONS.len()).filter(|at| changes(&HOST_FUNCTIONS[*at])).collect();
    let function = prop_oneof![
        300 => select(changing),
        100 => 0..HOST_FUNCTIONS.len(),
        1 => Just(HOST_FUNCTIONS.len()),
    ];
    vec((function, vec(any::<u32>(), 12)), 0..10)
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

/// Arguments by the names of the table: most make sense, so that calls get far; some do not.
fn arguments(function: &HostFunction, numbers: &[u32]) -> Vec<u32> {
    let mut arguments: Vec<u32> = Vec::new();
    for (index, (name, _)) in function.params.iter().enumerate() {
        let number = numbers[index];
        let (choice, odd) = (number / 16, number.is_multiple_of(16));
        let before = index.checked_sub(1).map(|i| function.params[i].0);
        let of = |pointer: &str| {
            *name == format!("{pointer}_size") || (pointer == "data" && *name == "size")
        };
        arguments.push(match *name {
            _ if odd => edge(choice),
            _ if before.is_some_and(of) => {
                let piece = arguments[index - 1].wrapping_sub(PIECES_AT) / ROOM;
                PIECES.get(piece as usize).map_or(choice % ROOM, |piece| piece.len() as u32)
            }
            name if name.starts_with("return_") => RETURNS_AT + choice % 64 * 8,
            "level" => choice % 7,
            "map" => [0, 0, 0, 2, 2, 2, 1, 6, 9][choice as usize % 9],
            "buffer" => [0, 0, 0, 1, 1, 1, 4, 7, 9][choice as usize % 9],
            "stream" | "kind" => choice % 5,
            "status" => [99, 100, 200, 403, 503, 999, 1000][choice as usize % 7],
            "grpc_status" => choice % 20,
            "id" => choice % 12,
            "start" | "size" | "max_size" | "timeout_ms" | "period" | "cas" | "delta" | "value"
                if function.params.len() == 2 || *name != "value" =>
            {
                choice % 40
            }
            _ => PIECES_AT + choice % PIECES.len() as u32 * ROOM,
        });
    }
    arguments
}

fn tape(answer: u32, calls: &[Call]) -> Vec<u8> {
    let mut words = vec![answer];
    for (index, numbers) in calls {
        words.push(*index as u32);
        if let Some(function) = HOST_FUNCTIONS.get(*index) {
            words.extend(arguments(function, numbers));
        }
    }
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Open { context: usize },
    Event { stream: usize, callback: usize, size: usize, end: bool },
    Resume { stream: usize },
    End { stream: usize },
    Fork,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..2usize).prop_map(|context| Step::Open { context }),
        20 => (any::<usize>(), 0..4usize, 0..50usize, any::<bool>())
            .prop_map(|(stream, callback, size, end)| Step::Event { stream, callback, size, end }),
        2 => any::<usize>().prop_map(|stream| Step::Resume { stream }),
        4 => any::<usize>().prop_map(|stream| Step::End { stream }),
        1 => Just(Step::Fork),
    ]
}

/// What must be true of the streams of the VM that lives.
struct Model {
    world: Arc<World>,
    filter: Filter,
    contexts: [Rc<Context>; 2],
    streams: Vec<Stream>,
    newest: u32,
}

impl Model {
    fn new(player: &[u8]) -> Self {
        let world = World::new();
        let filter = Filter::new(&world, player);
        let contexts = [filter.context("one"), filter.context("two")];
        Self { world, filter, contexts, streams: Vec::new(), newest: 2 }
    }

    /// The VM is gone: so are its streams, and ids begin anew.
    fn lost(&mut self) {
        for stream in self.streams.drain(..) {
            assert!(matches!(
                stream.run(Callback::RequestHeaders, b"", false),
                Err(Error::Lost(_))
            ));
            assert_eq!(stream.end(), Ok(()));
        }
        self.newest = 0;
    }

    fn pick(&self, number: usize) -> Option<usize> {
        number.checked_rem(self.streams.len())
    }

    fn take(&mut self, step: &Step, tape: &[u8]) {
        let result = match step {
            Step::Open { context } => {
                let request =
                    Request::default().header("a", "1").writable("free", "").variable("tape", tape);
                let request = self.world.add(request);
                self.filter.try_open(&self.contexts[*context], request).map(|stream| {
                    assert!(stream.at.id > self.newest, "{} is not new", stream.at.id);
                    self.newest = stream.at.id;
                    self.streams.push(stream);
                })
            }
            Step::Event { stream, callback, size, end } => match self.pick(*stream) {
                Some(at) => self.event(at, *callback, *size, *end, tape),
                None => Ok(()),
            },
            Step::Resume { stream } => match self.pick(*stream) {
                Some(at) => self.streams[at].resumed().map(|answer| sound(&answer.effects)),
                None => Ok(()),
            },
            Step::End { stream } => match self.pick(*stream) {
                Some(at) => {
                    let stream = self.streams.swap_remove(at);
                    self.set_tape(&stream, tape);
                    stream.end()
                }
                None => Ok(()),
            },
            Step::Fork => {
                self.filter.fork();
                // The next stream makes the new VM; the old ones are lost then.
                let request = self.world.add(Request::default());
                let first = self.filter.try_open(&self.contexts[0], request).expect("a new VM");
                assert_eq!(first.at.id, 2);
                self.lost();
                self.newest = 2;
                self.streams.push(first);
                Ok(())
            }
        };
        match result {
            Ok(()) => self.consistent(),
            Err(Error::Trap { .. }) => self.lost(),
            Err(other) => panic!("{other}"),
        }
    }

    fn set_tape(&self, stream: &Stream, tape: &[u8]) {
        self.world.with(stream.request, |r| r.put("tape", tape, false));
    }

    fn event(
        &self,
        at: usize,
        callback: usize,
        size: usize,
        end: bool,
        tape: &[u8],
    ) -> Result<(), Error> {
        let stream = &self.streams[at];
        self.set_tape(stream, tape);
        let phases = [Phase::Request, Phase::Request, Phase::ResponseHeaders, Phase::ResponseBody];
        self.world.with(stream.request, |r| {
            r.phase = phases[callback];
            r.headers_sent = r.phase == Phase::ResponseBody;
        });
        let chunk = vec![b'x'; size];
        let answer = match callback {
            0 => stream.run(Callback::RequestHeaders, b"", false)?,
            1 => stream.run(Callback::RequestBody, &chunk, end)?,
            2 => stream.try_response_headers(&[("a", "1"), ("content-length", "5")])?,
            _ => stream.run(Callback::ResponseBody, &chunk, end)?,
        };
        sound(&answer.effects);
        let paused = |vm: &mut resty_proxy_wasm::vm::Vm| {
            Ok(vm.state().contexts.streams.get(&stream.at.id).is_some_and(|s| s.paused))
        };
        if answer.action == Action::Pause {
            assert_eq!(stream.context.with_stream(stream.at, paused), Ok(true));
        }
        Ok(())
    }

    /// The VM knows the streams that we know, each with its root, and counts them right.
    fn consistent(&self) {
        let Some(any) = self.streams.first() else { return };
        let looked = any.context.with_stream(any.at, |vm| {
            let contexts = &vm.state().contexts;
            let mut known: Vec<u32> = contexts.streams.keys().copied().collect();
            known.sort_unstable();
            let mut ours: Vec<u32> = self.streams.iter().map(|s| s.at.id).collect();
            ours.sort_unstable();
            assert_eq!(known, ours);
            let mut of_root: BTreeMap<u32, u32> = BTreeMap::new();
            for (id, stream) in &contexts.streams {
                assert_eq!(stream.id, *id);
                assert!(!contexts.roots.contains_key(id), "{id} is a root and a stream");
                *of_root.entry(stream.root).or_default() += 1;
            }
            for (id, root) in &contexts.roots {
                assert_eq!((root.id, root.streams), (*id, of_root.remove(id).unwrap_or_default()));
            }
            assert_eq!(of_root, BTreeMap::new(), "streams without a root");
            Ok(())
        });
        assert_eq!(looked, Ok(()));
    }
}

/// Nothing but a body may hold a line end or a NUL.
fn sound(effects: &[String]) {
    for effect in effects {
        let is_body = effect.starts_with("answer ") && effect.contains(" [");
        let breaks = ["\\r", "\\n", "\\x00"].iter().any(|text| effect.contains(text));
        assert!(is_body || !breaks, "{effect}");
    }
}

#[test]
fn random_sequences() {
    let player = player();
    let steps = vec((step(), 0..3u32, calls()), 1..60);
    runner(1000)
        .run(&steps, |steps| {
            let mut model = Model::new(&player);
            for (step, answer, calls) in &steps {
                model.take(step, &tape(*answer, calls));
            }
            for stream in &model.streams {
                model.set_tape(stream, b"");
                assert_eq!(stream.end(), Ok(()));
            }
            model.world.warned();
            Ok(())
        })
        .expect("all sequences");
}

#[test]
fn each_function_with_every_edge_in_every_place() {
    let player = player();
    let mut model = Model::new(&player);
    for (index, function) in HOST_FUNCTIONS.iter().enumerate() {
        for place in 0..function.params.len() {
            for edge in 0..10u32 {
                // 16 n is "odd" with choice n; 16 n + 1 makes sense.
                let mut numbers = vec![1 + 16 * 10; 12];
                numbers[place] = 16 * edge;
                let step = if model.streams.is_empty() {
                    Step::Open { context: 0 }
                } else {
                    Step::Event {
                        stream: 0,
                        callback: (place + edge as usize) % 4,
                        size: 5,
                        end: true,
                    }
                };
                model.take(&step, &tape(0, &[(index, numbers)]));
            }
        }
    }
    model.world.warned();
}
