//! Metrics in a real nginx: one for all workers and after a reload, in Lua and as Prometheus reads them.

use super::support::{self, Nginx, Running, poll, valgrind};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Stdio;

const SCRIPT: &str = "
    configure: define_metric 0 hits >c; configure: define_metric 1 level >g; configure: define_metric 2 'my time' >h
    request_headers: increment_metric $c 2
    request_headers: record_metric $g -5
    request_headers: record_metric $h 30";

/// `/count` counts; `/metrics` shows; `/lua` runs code with the list `all`.
fn nginx(workers: usize) -> Nginx {
    Nginx::new()
        .guest("probe")
        .workers(workers)
        .http(&format!(
            r#"
            init_by_lua_block {{
                wasm = require("resty.proxy-wasm")
                plugin = assert(wasm.load('the "probe"\n', "probe.wasm"))
                ctx = assert(wasm.on_configure(plugin, [==[{SCRIPT}
                ]==]))
                traps = assert(wasm.on_configure(assert(wasm.load("traps", "probe.wasm")), "request_headers: trap"))
            }}
            "#
        ))
        .server(
            r#"
            location /count {
                content_by_lua_block {
                    assert(wasm.on_http_request_headers(ctx))
                    ngx.print(ngx.worker.pid())
                }
            }
            location /trap { content_by_lua_block { ngx.print(select(2, wasm.on_http_request_headers(traps))) } }
            location /metrics { content_by_lua_block { ngx.print(assert(wasm.prometheus())) } }
            location /lua {
                content_by_lua_block {
                    ngx.req.read_body()
                    local all = {}
                    for _, metric in ipairs(assert(wasm.metrics())) do
                        all[metric.name .. " " .. (metric.labels.callback or metric.labels.limit or "")
                            .. " " .. (metric.labels.plugin or "")] = metric
                    end
                    ngx.print(assert(loadstring("local all = ... " .. ngx.req.get_body_data()))(all))
                }
            }
            "#,
        )
}

/// Samples as Prometheus' own parser reads them: name and labels in order, and the value. And the families: name, type
/// and help.
fn parsed(text: &str) -> (BTreeMap<String, f64>, BTreeMap<String, String>) {
    const PARSE: &str = "
import sys
from prometheus_client.parser import text_string_to_metric_families as families
for family in families(sys.stdin.read()):
    print('F', repr(family.name), family.type, repr(family.documentation), sep='\\t')
    for sample in family.samples:
        print('S', sample.name + ' ' + repr(sorted(sample.labels.items())), repr(float(sample.value)), sep='\\t')
";
    let mut child = support::python()
        .args(["-c", PARSE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python");
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("a reader");
    let output = child.wait_with_output().expect("an end");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}\n{text}");
    let (mut samples, mut families) = (BTreeMap::new(), BTreeMap::new());
    for line in String::from_utf8(output.stdout).expect("text").lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields[..] {
            ["F", name, kind, help] => {
                let before = families.insert(name.into(), format!("{kind} {help}"));
                assert_eq!(before, None, "family {name} twice");
            }
            ["S", series, value] => {
                let value = value.parse().expect("a number");
                assert_eq!(samples.insert(series.into(), value), None, "{series} twice");
            }
            _ => panic!("{line}"),
        }
    }
    (samples, families)
}

fn count(nginx: &Running, times: usize) -> Vec<String> {
    (0..times).map(|_| nginx.get("/count").text()).collect()
}

#[test]
fn all_workers_count_together_and_on_after_a_reload() {
    let nginx = nginx(2).start();
    let mut pids = Vec::new();
    let mut times = 0;
    poll(|| {
        times += 1;
        pids.extend(count(&nginx, 1));
        pids.sort_unstable();
        pids.dedup();
        (pids.len() == 2).then_some(())
    })
    .expect("both workers");
    nginx.reload();
    nginx.wait_for_old_workers();
    count(&nginx, 5);
    let hits = (times + 5) * 2;
    let plugin = "[('plugin', 'the \"probe\"\\n')]";
    let (samples, families) = parsed(&nginx.get("/metrics").text());
    let sample = |name: &str| samples[&format!("{name} {plugin}")];
    // The parser shows each counter with the ending that OpenMetrics wants.
    assert_eq!((sample("hits_total"), sample("level")), (hits as f64, -5.0));
    assert_eq!(
        (sample("my_time_count"), sample("my_time_sum")),
        (hits as f64 / 2.0, hits as f64 * 15.0)
    );
    let bucket = |le: &str| {
        samples[&format!("my_time_bucket [('le', '{le}'), ('plugin', 'the \"probe\"\\n')]")]
    };
    assert_eq!(
        (bucket("25"), bucket("50"), bucket("+Inf")),
        (0.0, hits as f64 / 2.0, hits as f64 / 2.0)
    );
    assert_eq!(families["'my_time'"], "histogram 'my time'");
    let of_ours = "proxy_wasm_callbacks_total [('callback', 'proxy_on_request_headers'), ('plugin', 'the \"probe\"\\n')]";
    assert_eq!(samples[of_ours], hits as f64 / 2.0);
    let memory = samples.iter().filter(|(name, _)| name.starts_with("proxy_wasm_vm_memory_bytes "));
    let mut living: Vec<i32> = memory
        .filter(|(name, _)| name.contains("probe"))
        .map(|(name, value)| {
            assert!(*value >= 65536.0);
            name.split('\'').nth(3).expect("a process").parse().expect("its id")
        })
        .collect();
    living.sort_unstable();
    let mut processes = nginx.worker_pids();
    processes.push(nginx.master_pid());
    assert!(living.iter().all(|pid| processes.contains(pid)), "{living:?} of {processes:?}");
    assert!(samples["proxy_wasm_shared_memory_bytes []"] == 16777216.0);
}

#[test]
fn in_lua() {
    let nginx = nginx(1).start();
    count(&nginx, 3);
    let lua = |code: &str| nginx.request("POST", "/lua").body(code).send().text();
    let name = r#"the \"probe\"\n"#;
    for (code, answer) in [
        (
            format!("local m = all['hits  {name}'] return m.type, m.value, m.labels.plugin"),
            "counter6the \"probe\"\n",
        ),
        (format!("local m = all['level  {name}'] return m.type, m.value"), "gauge-5"),
        (
            format!(
                "local m = all['my time  {name}'] return m.type, ' ', m.count, ' ', m.sum, ' ', #m.buckets, ' ', m.buckets[4].le, ' ', m.buckets[4].count, ' ', m.buckets[5].le, ' ', m.buckets[5].count"
            ),
            "histogram 3 90 19 25 0 50 3",
        ),
        (
            format!(
                "return all['proxy_wasm_callbacks_total proxy_on_request_headers {name}'].value"
            ),
            "3",
        ),
    ] {
        assert_eq!(lua(&code), answer, "{code}");
    }
}

#[test]
fn traps_and_rebuilds_are_counted() {
    let nginx = nginx(1).start();
    for _ in 0..3 {
        assert!(nginx.get("/trap").text().contains("unreachable"));
    }
    let (samples, _) = parsed(&nginx.get("/metrics").text());
    let sample = |name: &str| samples[&format!("{name} [('plugin', 'traps')]")];
    assert_eq!((sample("proxy_wasm_traps_total"), sample("proxy_wasm_rebuilds_total")), (3.0, 2.0));
    // Before the two: that of the load, and that of the worker.
    let others = if valgrind() { 1.0 } else { 2.0 };
    assert_eq!(sample("proxy_wasm_vm_start_seconds_count"), 2.0 + others);
    assert!(sample("proxy_wasm_vm_start_seconds_sum") > 0.0);
    assert!(sample("proxy_wasm_callback_seconds_count") >= 3.0);
    assert!(sample("proxy_wasm_callback_seconds_sum") > 0.0);
}
