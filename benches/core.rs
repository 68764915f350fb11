//! What the core costs, without nginx. `cargo bench --bench core`; each figure is one of what its name says.
#![allow(missing_docs, reason = "criterion's macros make functions of their own")]
#![allow(clippy::disallowed_methods, reason = "the bans are for the core; benchmarks read filters")]

use criterion::{Criterion, criterion_group, criterion_main};
use resty_proxy_wasm::abi::Callback;
use resty_proxy_wasm::callout::{self, Exchange, Step, Upstream};
use resty_proxy_wasm::event::Event;
use resty_proxy_wasm::ports::{Host, Phase, RequestId};
use resty_proxy_wasm::vm::{Context, Options, Outcome, StreamRef};
use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;

#[path = "../tests/world/mod.rs"]
mod world;
use world::{Filter, Request, SimHost, guest, module, sim_host};

/// A filter with all callbacks, empty but for `body` in the one called `callback`; `each` is what it does 100 times.
fn filter(callback: &str, body: &str, each: &str) -> Vec<u8> {
    let code = format!(
        "{body} (loop $again {each}
            (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 100))))"
    );
    let callbacks: String = [
        // Metrics 1 and 2.
        (
            "configure",
            "(param i32 i32) (result i32)",
            "(drop (call $define (i32.const 0) (i32.const 16) (i32.const 5) (i32.const 0)))
             (drop (call $define (i32.const 2) (i32.const 16) (i32.const 5) (i32.const 0)))
             (i32.const 1)",
        ),
        ("context_create", "(param i32 i32)", ""),
        ("request_headers", "(param i32 i32 i32) (result i32)", "(i32.const 0)"),
        ("request_body", "(param i32 i32 i32) (result i32)", "(i32.const 0)"),
        ("response_headers", "(param i32 i32 i32) (result i32)", "(i32.const 0)"),
        ("response_body", "(param i32 i32 i32) (result i32)", "(i32.const 0)"),
        ("done", "(param i32) (result i32)", "(i32.const 1)"),
        ("log", "(param i32)", ""),
        ("delete", "(param i32)", ""),
    ]
    .iter()
    .map(|(name, ty, answer)| {
        let code = if *name == callback { code.as_str() } else { "" };
        format!("(func (export \"proxy_on_{name}\") {ty} (local $n i32) {code} {answer})\n")
    })
    .collect();
    wat::parse_str(format!(
        r#"(module
        (import "env" "proxy_clear_route_cache" (func $nothing (result i32)))
        (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_get_header_map_pairs" (func $pairs (param i32 i32 i32) (result i32)))
        (import "env" "proxy_replace_header_map_value" (func $set (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_get_property" (func $property (param i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_increment_metric" (func $increment (param i32 i64) (result i32)))
        (import "env" "proxy_record_metric" (func $record (param i32 i64) (result i32)))
        (import "env" "proxy_get_shared_data" (func $load (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_set_shared_data" (func $store (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_get_buffer_bytes" (func $read (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_set_buffer_bytes" (func $write (param i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 8)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 131072))
        {callbacks}
        (data (i32.const 16) "hellox-5plugin_name"))"#
    ))
    .expect("WebAssembly text")
}

/// A stream to which the same thing happens again and again.
struct Bench {
    host: Arc<SimHost>,
    context: Rc<Context>,
    at: StreamRef,
    request: RequestId,
}

impl Bench {
    fn new(bytes: &[u8], request: Request) -> Self {
        let host = sim_host();
        let filter = Filter::new(&host, bytes);
        let context = filter.context("");
        let request = host.add(request);
        let at = context.start_stream(request, false).expect("a stream");
        Self { host, context, at, request }
    }

    fn of(callback: &str, body: &str) -> Self {
        Self::new(&filter(callback, body, ""), Request::default())
    }

    fn run(&self, callback: Callback, body: &'static [u8]) -> Outcome {
        run(&self.context, self.at, callback, body)
    }
}

/// One event; its effects are taken, as Lua would.
fn run(context: &Rc<Context>, at: StreamRef, callback: Callback, body: &'static [u8]) -> Outcome {
    let event = Event { end_of_stream: true, body, ..Event::headers(callback) };
    let ran = context.with_stream(at, |vm| {
        let outcome = vm.run(at.id, event)?;
        if let Some(stream) = vm.state_mut().contexts.streams.get_mut(&at.id) {
            stream.effects.clear();
        }
        Ok(outcome)
    });
    ran.expect("an outcome")
}

fn whole_stream(context: &Rc<Context>, request: RequestId) {
    let at = context.start_stream(request, false).expect("a stream");
    black_box(run(context, at, Callback::RequestHeaders, b""));
    black_box(run(context, at, Callback::ResponseHeaders, b""));
    context.end_stream(at).expect("an end");
}

fn streams(c: &mut Criterion) {
    let empty = Bench::of("", "");
    c.bench_function("empty stream", |b| b.iter(|| whole_stream(&empty.context, empty.request)));
    let bare = Bench::new(&guest("bare.wat"), Request::default());
    bare.host.with(bare.request, |r| r.phase = Phase::ResponseHeaders);
    c.bench_function("bare filter", |b| b.iter(|| whole_stream(&bare.context, bare.request)));
    let example = format!("{}/examples/add-header/build/release.wasm", env!("CARGO_MANIFEST_DIR"));
    let mut options = Options::new("add_header");
    options.root_id = "add_header".into();
    let example = std::fs::read(example).expect("the example");
    let filter = Filter::load(&sim_host(), &example, options).expect("a filter that starts");
    let context = filter.context("add_header");
    let request = filter.host.add(Request::default());
    filter.host.with(request, |r| r.phase = Phase::ResponseHeaders);
    c.bench_function("example filter", |b| b.iter(|| whole_stream(&context, request)));
}

fn hostcalls(c: &mut Criterion) {
    let value = "(i32.const 16) (i32.const 5) (i32.const 0) (i32.const 4)";
    for (name, each) in [
        ("nothing x100", "(drop (call $nothing))".to_string()),
        ("get header x100", format!("(drop (call $get (i32.const 0) {value}))")),
        (
            "set header x100",
            "(drop (call $set (i32.const 0) (i32.const 16) (i32.const 5) (i32.const 21) (i32.const 3)))".into(),
        ),
        (
            "get property x100",
            "(drop (call $property (i32.const 24) (i32.const 11) (i32.const 0) (i32.const 4)))".into(),
        ),
        ("increment metric x100", "(drop (call $increment (i32.const 1) (i64.const 1)))".into()),
        ("record in histogram x100", "(drop (call $record (i32.const 2) (i64.const 70)))".into()),
        (
            "get and set 100 shared bytes x100",
            "(drop (call $load (i32.const 16) (i32.const 5) (i32.const 0) (i32.const 4) (i32.const 8)))
             (drop (call $store (i32.const 16) (i32.const 5) (i32.const 131072) (i32.const 100) (i32.load (i32.const 8))))"
                .into(),
        ),
    ] {
        let request = (0..10).fold(Request::default(), |r, n| r.header(&format!("x-{n}"), "value"));
        let bench = Bench::new(&filter("request_headers", "", &each), request.header("hello", "world"));
        c.bench_function(name, |b| b.iter(|| bench.run(Callback::RequestHeaders, b"")));
    }
    let request =
        (0..100).fold(Request::default(), |r, n| r.header(&format!("x-header-{n}"), "some value"));
    let read = "(drop (call $pairs (i32.const 0) (i32.const 0) (i32.const 4)))";
    let bench = Bench::new(&filter("request_headers", read, ""), request);
    c.bench_function("100 header pairs", |b| b.iter(|| bench.run(Callback::RequestHeaders, b"")));
}

fn bodies(c: &mut Criterion) {
    static BODY: [u8; 65536] = [b'x'; 65536];
    for (name, code) in [
        ("body 64 KiB passed", ""),
        (
            "body 64 KiB read",
            "(drop (call $read (i32.const 1) (i32.const 0) (i32.const -1) (i32.const 0) (i32.const 4)))",
        ),
        (
            "body 64 KiB replaced",
            "(drop (call $write (i32.const 1) (i32.const 0) (i32.const -1) (i32.const 131072) (i32.const 65536)))",
        ),
    ] {
        let bench = Bench::of("response_body", code);
        c.bench_function(name, |b| b.iter(|| bench.run(Callback::ResponseBody, &BODY)));
    }
}

/// What an HTTP call costs on top of nginx's sockets.
fn calls(c: &mut Criterion) {
    let upstream = Upstream::parse(b"auth:8080", false).expect("an upstream");
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 16\r\ncontent-type: text/plain\r\n\r\nsixteen bytes...";
    c.bench_function("HTTP call", |b| {
        b.iter(|| {
            let request =
                callout::Request::build(&upstream, &[], b"", &[], |_| ()).expect("a request");
            let mut exchange = Exchange::new(&request).expect("an exchange");
            let mut out = Vec::new();
            exchange.advance(b"", false, &mut out);
            assert_eq!(exchange.advance(answer, false, &mut out), Step::Done { reusable: true });
            exchange.into_response().body.len()
        });
    });
}

fn starts(c: &mut Criterion) {
    let world = sim_host();
    let host: Arc<dyn Host> = world.clone();
    for (name, bytes) in
        [("instantiate", filter("", "", "")), ("instantiate Rust SDK", guest("rust_filter.wasm"))]
    {
        let loaded = Arc::new(module(&world, &bytes, Options::new("filter")).expect("a module"));
        c.bench_function(name, |b| b.iter(|| loaded.start(&host).map(|_| ()).expect("a VM")));
    }
    let filter = Filter::new(&world, &filter("", "", ""));
    c.bench_function("on_configure and end", |b| {
        b.iter(|| {
            let context = filter.context("configuration");
            filter.drop_context(&context).expect("an end");
        });
    });
}

criterion_group!(benches, streams, hostcalls, bodies, calls, starts);
criterion_main!(benches);
