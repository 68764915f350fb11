//! Metrics of guests and of our own.

use crate::alone::alone;
use crate::world::SHARED_MEMORY;
use crate::world::{Filter, Probe, SimHost, Ticker, guest, sim_host};
use resty_proxy_wasm::abi::{Callback, MetricType};
use resty_proxy_wasm::callout::{Failure, FailureKind};
use resty_proxy_wasm::limits;
use resty_proxy_wasm::ports::Stores;
use resty_proxy_wasm::shm::{CallKind, Shared};
use resty_proxy_wasm::store::{Count, Counters, Refusal, Series, Value};
use resty_proxy_wasm::vm::{Options, TimeLimits};

fn of(world: &SimHost) -> Vec<Series> {
    world.shared().expect("memory").metrics().expect("the lock")
}

/// The values of a metric, by their labels but the process.
fn values(world: &SimHost, name: &str) -> Vec<(String, i128)> {
    let all = of(world);
    let found = all.iter().filter(|series| series.name == name).map(|series| {
        let labels = series.labels.iter().filter(|(label, _)| *label != "pid");
        let labels: Vec<&str> = labels.map(|(_, value)| value.as_str()).collect();
        match series.value {
            Value::Number(number) => (labels.join(" "), number),
            Value::Histogram { .. } => panic!("{name} is a histogram"),
        }
    });
    found.collect()
}

fn one(world: &SimHost, name: &str, labels: &str) -> i128 {
    let found = values(world, name);
    let found = found.iter().find(|(of, _)| of == labels);
    found.unwrap_or_else(|| panic!("no {name} of {labels}")).1
}

#[test]
fn what_guests_define() {
    let probe = Probe::new(
        "request_headers: define_metric 0 hits >c
         request_headers: define_metric 1 level >g
         request_headers: define_metric 2 times >h
         request_headers: define_metric 0 hits
         request_headers: define_metric 3 x
         request_headers: increment_metric $c 2; request_headers: increment_metric $c 0
         request_headers: increment_metric $c -1; request_headers: record_metric $c 5
         request_headers: record_metric $c -1; request_headers: get_metric $c
         request_headers: increment_metric $g -3; request_headers: get_metric $g
         request_headers: record_metric $g 7; request_headers: increment_metric $g 1; request_headers: get_metric $g
         request_headers: increment_metric $h 1; request_headers: record_metric $h -1
         request_headers: record_metric $h 3; request_headers: get_metric $h
         request_headers: increment_metric 0 1; request_headers: record_metric 4 1
         request_headers: get_metric max",
    );
    probe.open().request_headers();
    assert_eq!(
        probe.answers().join(", "),
        "0 1, 0 2, 0 3, 0 1, 2, 0, 2, 2, 0, 2, 0 7, 0, 0 -3, 0, 0, 0 8, 2, 2, 0, 2, 1, 1, 1"
    );
    assert_eq!(values(&probe.filter.host, "hits"), [("probe".into(), 7)]);
    assert_eq!(values(&probe.filter.host, "level"), [("probe".into(), 8)]);
}

#[test]
fn each_plugin_has_its_own_and_every_vm_of_it_the_same() {
    let world = sim_host();
    let load = |name: &str| Filter::load(&world, &guest("probe.wasm"), Options::new(name));
    let script = "configure: define_metric 0 hits >m; configure: increment_metric $m 1
                  request_headers: trap";
    let filters = ["a", "b", "b"].map(|name| load(name).expect("the probe"));
    let contexts = filters.each_ref().map(|filter| filter.context(script));
    assert_eq!(values(&world, "hits"), [("a".into(), 1), ("b".into(), 2)]);
    filters[0].fork();
    for _ in 0..2 {
        let stream = filters[0].open(&contexts[0]);
        stream.run(Callback::RequestHeaders, b"", false).expect_err("a trap");
    }
    assert_eq!(values(&world, "hits"), [("a".into(), 3), ("b".into(), 2)]);
}

#[test]
fn a_name_may_change_its_type() {
    let world = sim_host();
    for (kind, n) in [(0, 1), (1, 2), (0, 3)] {
        let filter = Filter::load(&world, &guest("probe.wasm"), Options::new("p")).expect("it");
        filter.context(&format!(
            "configure: define_metric {kind} m >m; configure: increment_metric $m {n}"
        ));
    }
    assert_eq!(values(&world, "m"), [("p".into(), 4), ("p".into(), 2)]);
}

#[test]
fn histograms_count_by_size() {
    let shared = Shared::new(SHARED_MEMORY, |_| ()).expect("memory");
    let metric = shared.define(b"p", MetricType::Histogram, b"h").expect("room");
    for value in [0, 1, 2, 5, 6, 3_600_000, 3_600_001, i64::MAX] {
        shared.record(metric, value);
    }
    let all = shared.metrics().expect("the lock");
    let Value::Histogram { buckets, sum } =
        &all.iter().find(|series| series.name == "h").expect("it").value
    else {
        panic!("a histogram")
    };
    let counts: Vec<(f64, u64)> = buckets.clone();
    assert_eq!(counts[..3], [(1.0, 2), (5.0, 4), (10.0, 5)]);
    assert_eq!(counts[17..], [(3_600_000.0, 6), (f64::INFINITY, 8)]);
    assert!(*sum > 9.2e18);
}

#[test]
fn a_guest_that_defines_without_end_is_warned_once() {
    let most = limits::METRIC_NAMES;
    let lines: String =
        (0..most + 3).map(|n| format!("request_headers: define_metric 0 m{n}\n")).collect();
    let probe = Probe::new(&(lines + "request_headers: define_metric 0 m0\n"));
    probe.open().request_headers();
    let answers = probe.answers();
    assert!(answers[..most as usize].iter().all(|answer| answer.starts_with("0 ")));
    assert_eq!(answers[most as usize..], ["10", "10", "10", "0 1"]);
    assert_eq!(
        probe.warned(),
        ["proxy_on_request_headers: the filter has more queues or metrics than the host keeps"]
    );
    let shared = Shared::new(SHARED_MEMORY, |_| ()).expect("memory");
    let long = vec![b'x'; limits::SHARED_KEY];
    assert_eq!(shared.define(b"p", MetricType::Gauge, &long), Err(Refusal::TooLarge));
}

#[test]
fn what_plugins_do_is_counted() {
    let options = || Options { memory_limit: 4 << 20, ..Options::new("p") };
    let probe = Probe::with(
        options(),
        "request_headers: grow 1; request_headers: grow 1000; request_headers: http_call up '' '' '' 1000
         response_headers: trap",
    );
    let world = probe.filter.host.clone();
    let memory = |world: &SimHost| one(world, "proxy_wasm_vm_memory_bytes", "p");
    let before = memory(&world);
    assert!(before >= 65536 && before % 65536 == 0, "{before}");
    for n in 1..=3 {
        let stream = probe.open();
        stream.request_headers();
        assert_eq!(memory(&world), before + 65536, "one VM at a time");
        let work = probe.filter.plugin.work();
        let failed = Failure::new(FailureKind::Connect, "");
        probe.filter.plugin.answer(work.calls[0].0, Err(failed)).expect("no callback");
        stream.try_response_headers(&[]).expect_err("a trap");
        let count = |name: &str| one(&world, name, "p");
        assert_eq!(count("proxy_wasm_traps_total"), n);
        assert_eq!(count("proxy_wasm_rebuilds_total"), n - 1);
        assert_eq!(one(&world, "proxy_wasm_calls_total", "p http"), n);
        assert_eq!(one(&world, "proxy_wasm_calls_total", "p grpc"), 0);
        assert_eq!(one(&world, "proxy_wasm_failed_calls_total", "p http"), n);
        assert_eq!(one(&world, "proxy_wasm_limits_total", "p memory"), n);
        assert_eq!(one(&world, "proxy_wasm_limits_total", "p time"), 0);
        let of_requests = one(&world, "proxy_wasm_callbacks_total", "p proxy_on_request_headers");
        assert_eq!(of_requests, n);
    }
    assert_eq!(memory(&world), 0, "the last VM is gone");
}

#[test]
fn limits_of_time_are_counted_and_long_callbacks_timed() {
    let _ticker = Ticker::start();
    let options =
        Options { time_limits: TimeLimits { callback: 50, start: 1000 }, ..Options::new("p") };
    // The first callback is timed by the clock, which stands still in this world; the sixth is not.
    let probe = Probe::with(options, "request_headers: loop");
    for _ in 0..3 {
        probe.open().run(Callback::RequestHeaders, b"", false).expect_err("its time");
    }
    let world = &probe.filter.host;
    assert_eq!(one(world, "proxy_wasm_limits_total", "p time"), 3);
    let all = of(world);
    let times = all.iter().find(|series| series.name == "proxy_wasm_callback_seconds");
    let Some(Value::Histogram { buckets, sum }) = times.map(|series| &series.value) else {
        panic!("a histogram")
    };
    let up_to = |end: f64| buckets.iter().find(|(of, _)| *of == end).expect("a bucket").1;
    assert_eq!(up_to(1.0) - up_to(0.01), 3, "{buckets:?}");
    assert!((0.15..2.0).contains(sum), "{sum}");
}

#[test]
fn the_numbers_of_processes_that_ended_are_taken_over() {
    alone("metrics::the_numbers_of_processes_that_ended_are_taken_over", take_numbers_over);
}

fn take_numbers_over() {
    let shared = Shared::new(1 << 20, |_| ()).expect("memory");
    for round in 0..limits::SHARED_PROCESSES + 10 {
        // SAFETY: the child counts on its only thread and ends at once.
        unsafe {
            match libc::fork() {
                0 => {
                    let own = shared.own("p");
                    own.count(Count::Calls);
                    own.memory_grows(4096);
                    libc::_exit(0)
                }
                child => assert_eq!(libc::waitpid(child, std::ptr::null_mut(), 0), child),
            }
        }
        if round == 10 {
            // Somebody who lives keeps his.
            shared.own("p").memory_grows(5);
        }
    }
    let all = shared.metrics().expect("the lock");
    let number = |name: &str| {
        let is = |series: &&Series| {
            series.name == name && !series.labels.contains(&("kind", "grpc".into()))
        };
        all.iter().find(is).map(|series| series.value.clone())
    };
    let counted = (limits::SHARED_PROCESSES + 10) as i128;
    assert_eq!(number("proxy_wasm_calls_total"), Some(Value::Number(counted)));
    assert_eq!(number("proxy_wasm_vm_memory_bytes"), Some(Value::Number(5)), "of the living");
}

#[test]
fn calls_of_functions_that_are_not_there_are_counted() {
    let world = sim_host();
    let text = r#"(module
        (import "env" "proxy_redis_call" (func $call (result i32)))
        (import "env" "proxy_not_called" (func (result i32)))
        (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (drop (call $call)) (drop (call $call)) (i32.const 0)))"#;
    let filter = Filter::new(&world, &wat::parse_str(text).expect("WebAssembly text"));
    filter.open(&filter.context("")).request_headers();
    assert_eq!(one(&world, "proxy_wasm_stand_ins_total", "filter"), 2);
    let by_function = values(&world, "proxy_wasm_stand_in_calls_total");
    assert_eq!(
        by_function,
        [("filter env.proxy_not_called".into(), 0), ("filter env.proxy_redis_call".into(), 2)]
    );
    assert_eq!(world.warned().len(), 1);
}

#[test]
fn upstreams_without_room_are_counted_together() {
    let shared = Shared::new(limits::DEFAULT_SHARED_MEMORY, |_| {}).expect("a mapping");
    let name = |number: usize| format!("{number:4}{}", "x".repeat(limits::COUNTED_UPSTREAM_BYTES));
    for number in 0..limits::COUNTED_UPSTREAM_NAMES + 5 {
        for failed in [true, false, false] {
            shared.count_call("a", &name(number), CallKind::Http, failed).expect("room");
        }
    }
    let all = shared.metrics().expect("metrics");
    let of = |upstream: &str| {
        ["proxy_wasm_upstream_calls_total", "proxy_wasm_upstream_failed_calls_total"].map(|name| {
            let label = ("upstream", upstream.to_owned());
            let found =
                all.iter().find(|series| series.name == name && series.labels.contains(&label));
            found.map(|series| series.value.clone())
        })
    };
    let number = |number| Some(Value::Number(number));
    assert_eq!(of(&name(0)[..limits::COUNTED_UPSTREAM_BYTES]), [number(3), number(1)]);
    assert_eq!(of("others"), [number(15), number(5)]);
}

#[test]
fn upstreams_are_counted_by_kinds_of_calls() {
    let shared = Shared::new(limits::DEFAULT_SHARED_MEMORY, |_| {}).expect("a mapping");
    for (upstream, kind, failed) in [
        ("a", CallKind::Http, false),
        ("a", CallKind::Grpc, true),
        ("a", CallKind::Grpc, false),
        ("b", CallKind::Grpc, false),
    ] {
        shared.count_call("p", upstream, kind, failed).expect("room");
    }
    let mut lines: Vec<String> = shared
        .metrics()
        .expect("metrics")
        .iter()
        .filter(|series| series.name.contains("_upstream_"))
        .map(|series| {
            let labels: Vec<_> = series.labels.iter().map(|(_, value)| value.as_str()).collect();
            format!("{} {} {:?}", series.name, labels.join(" "), series.value)
        })
        .collect();
    lines.sort_unstable();
    let (all, failed) =
        ("proxy_wasm_upstream_calls_total", "proxy_wasm_upstream_failed_calls_total");
    assert_eq!(
        lines,
        [
            format!("{all} p a grpc Number(2)"),
            format!("{all} p a http Number(1)"),
            format!("{all} p b grpc Number(1)"),
            format!("{failed} p a grpc Number(1)"),
            format!("{failed} p a http Number(0)"),
            format!("{failed} p b grpc Number(0)"),
        ]
    );
}
