//! Loading modules in the background.

use super::support::{Nginx, Running, poll, python, root, valgrind};
use resty_proxy_wasm::limits::LOADING_THREADS;
use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::thread;
use tempfile::TempDir;

/// A filter that adds `hello: world!`, large enough for its compile to take a while.
fn large() -> &'static [u8] {
    static LARGE: OnceLock<Vec<u8>> = OnceLock::new();
    LARGE.get_or_init(|| {
        let mut made = python();
        made.arg(root().join("bench/module.py")).arg("0.1").stderr(Stdio::inherit());
        made.output().expect("bench/module.py").stdout
    })
}

/// `/load` loads a module in a phase of a request, `/alive` tells how far that is, `/t` runs the filter.
fn nginx(setup: &str) -> Nginx {
    Nginx::new()
        .http(&format!(
            r#"
            init_by_lua_block {{
                wasm = require("resty.proxy-wasm")
                {setup}
                state, ctx = "not begun", false
                begun = 0
                function load(name, path)
                    state, begun = "begun", begun + 1
                    local plugin, err = wasm.load(name or "it", path or "large.wasm", {{ background = true }})
                    state = plugin and "loaded" or err
                    if plugin then
                        ctx = assert(wasm.on_configure(plugin))
                    end
                    return plugin, err
                end
            }}
            "#
        ))
        .server(
            r#"
            location /alive { content_by_lua_block { ngx.print(state) } }
            location /content {
                content_by_lua_block { ngx.print(tostring((select(2, load(ngx.var.arg_name, ngx.var.arg_path))))) }
            }
            location /plain {
                content_by_lua_block { ngx.print((select(2, wasm.load("it", ngx.var.arg_path)))) }
            }
            location /access {
                access_by_lua_block { load("it", ngx.var.arg_path) }
                content_by_lua_block { ngx.print(state) }
            }
            location /rewrite {
                rewrite_by_lua_block { load("it", ngx.var.arg_path) }
                content_by_lua_block { ngx.print(state) }
            }
            location /timer {
                content_by_lua_block {
                    local path = ngx.var.arg_path
                    ngx.timer.at(0, function() load("it", path) end)
                }
            }
            location /t {
                access_by_lua_block { assert(wasm.on_http_request_headers(ctx)) }
                header_filter_by_lua_block { assert(wasm.on_http_response_headers(ctx)) }
                content_by_lua_block { ngx.print("answer") }
            }
            "#,
        )
        .file("large.wasm", large())
        .wat("bare")
}

/// A file that gives out its content when the test says so: a load of it waits until then.
struct Gate(PathBuf);

impl Gate {
    fn new(nginx: &Running, name: &str) -> Self {
        let path = nginx.path(name);
        let made = CString::new(path.as_str()).expect("a path");
        // SAFETY: a string that ends with NUL.
        assert_eq!(unsafe { libc::mkfifo(made.as_ptr(), 0o644) }, 0, "{path}");
        Self(path.into())
    }

    fn open(&self, content: &[u8]) {
        fs::write(&self.0, content).expect("a reader");
    }
}

fn wait_for_state(nginx: &Running, state: &str) {
    let reached = poll(|| (nginx.get("/alive").text() == state).then_some(()));
    assert!(reached.is_some(), "never {state}, but {}", nginx.get("/alive").text());
}

fn compiles(nginx: &Running) -> usize {
    nginx.error_log().matches(": compiled in ").count()
}

#[test]
fn requests_are_served_while_a_module_is_compiled() {
    for path in ["/content", "/access", "/rewrite", "/timer"] {
        let nginx = nginx("").start();
        let gate = Gate::new(&nginx, "gate.wasm");
        thread::scope(|scope| {
            let load = scope.spawn(|| nginx.get(&format!("{path}?path=gate.wasm")).text());
            // Seen by a request that was answered meanwhile.
            wait_for_state(&nginx, "begun");
            gate.open(large());
            wait_for_state(&nginx, "loaded");
            let answer = load.join().expect("an answer");
            let expected = match path {
                "/content" => "nil",
                "/timer" => "",
                _ => "loaded",
            };
            assert_eq!(answer, expected, "{path}");
        });
        assert_eq!(nginx.get("/t").header("hello"), Some("world!"));
        assert_eq!(compiles(&nginx), 1);
    }
}

#[test]
fn loads_of_the_same_module_wait_for_the_same_compile() {
    let nginx = nginx("").start();
    thread::scope(|scope| {
        let loads: Vec<_> = (0..8)
            .map(|i| {
                scope.spawn({
                    let nginx = &nginx;
                    move || nginx.get(&format!("/content?name=it{i}")).text()
                })
            })
            .collect();
        for load in loads {
            assert_eq!(load.join().expect("an answer"), "nil");
        }
    });
    assert_eq!(compiles(&nginx), 1);
}

#[test]
fn more_modules_than_threads_wait() {
    const MODULES: u8 = 20;
    let nginx = nginx("assert(wasm.setup({ compile_threads = 1 }))")
        .server("location /begun { content_by_lua_block { ngx.print(begun) } }")
        .start();
    let bare = wat::parse_file(root().join("t/guests/wat/bare.wat")).expect("a module");
    let gates: Vec<_> = (0..MODULES).map(|n| Gate::new(&nginx, &format!("{n}.wasm"))).collect();
    let tasks = format!("/proc/{}/task", nginx.worker_pids()[0]);
    let threads = || {
        let names = fs::read_dir(&tasks).expect("a process").flatten();
        let names = names.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name == "wasm loader\n").count()
    };
    thread::scope(|scope| {
        let loads: Vec<_> = (0..MODULES)
            .map(|number| {
                let nginx = &nginx;
                scope.spawn(move || nginx.get(&format!("/content?path={number}.wasm")).text())
            })
            .collect();
        let all_wait = poll(|| (nginx.get("/begun").text() == MODULES.to_string()).then_some(()));
        assert!(all_wait.is_some(), "{} loads have begun", nginx.get("/begun").text());
        // Each reads a file that is not there yet. A thread takes its name when it begins to run.
        let all_run = poll(|| (threads() == LOADING_THREADS).then_some(()));
        assert!(all_run.is_some(), "{} threads", threads());
        for (number, gate) in (0..).zip(&gates) {
            let module = [&bare[..], &[0, 3, 1, b'n', number]].concat();
            scope.spawn(move || gate.open(&module));
        }
        let all: Vec<_> = loads.into_iter().map(|load| load.join().expect("an answer")).collect();
        assert!(all.iter().all(|answer| answer == "nil"), "{all:?}");
    });
    let left = poll(|| (threads() == 0).then_some(()));
    assert!(left.is_some(), "threads are left");
    assert_eq!(compiles(&nginx), usize::from(MODULES));
}

#[test]
fn a_copy_of_the_file_is_the_same_module() {
    let nginx = nginx("").file("copy.wasm", large()).start();
    thread::scope(|scope| {
        let copy = scope.spawn(|| nginx.get("/content?path=copy.wasm").text());
        assert_eq!(nginx.get("/content").text(), "nil");
        assert_eq!(copy.join().expect("an answer"), "nil");
    });
    assert_eq!(compiles(&nginx), 1);
}

#[test]
fn plugins_tell_how_far_a_load_is() {
    let nginx = nginx("")
        .server(
            r#"
            location /stage {
                content_by_lua_block {
                    for _, plugin in ipairs(assert(wasm.plugins())) do
                        local worker = plugin.workers[1]
                        ngx.print(worker.state, " ", tostring(worker.loading_stage), " ", tostring(worker.functions))
                    end
                }
            }
            "#,
        )
        .start();
    let gate = Gate::new(&nginx, "gate.wasm");
    let reached = |stage: &str| {
        let reached = poll(|| (nginx.get("/stage").text() == stage).then_some(()));
        assert!(reached.is_some(), "{}", nginx.get("/stage").text());
    };
    assert_eq!(nginx.get("/timer?path=gate.wasm").status, 200);
    reached("loading reading nil");
    gate.open(large());
    reached("running nil nil");
}

#[test]
fn a_compile_that_takes_too_much_memory_is_ended() {
    let nginx = nginx(r#"assert(wasm.setup({ compile_memory = "1m" }))"#).start();
    let text = "failed to load wasm plugin: compiling the module takes more memory than the option compile_memory allows, \
                1048576 bytes";
    assert_eq!(nginx.get("/content").text(), text);
    assert_eq!(nginx.get("/plain?path=large.wasm").text(), text);
    assert_eq!(nginx.get("/content?path=bare.wasm").text(), "nil");
    assert_eq!(nginx.get("/t").header("hello"), Some("world!"));
}

#[test]
fn what_goes_wrong_is_told_as_by_a_plain_load() {
    let nginx = nginx("").file("bad.wasm", "nonsense").start();
    for path in ["missing.wasm", "bad.wasm", "logs", ""] {
        let told = nginx.get(&format!("/content?path={path}")).text();
        let plain = nginx.get(&format!("/plain?path={path}")).text();
        assert!(told != "nil" && told == plain, "{path}: {told}, and not {plain}");
    }
    assert_eq!(nginx.get("/content?path=bare.wasm").text(), "nil");
}

#[test]
fn phases_that_cannot_wait_are_told_where_it_works() {
    let told = |phase: &str| {
        format!(
            "failed to load wasm plugin: a module can be loaded in the background in rewrite, access, content and timer \
             contexts, and this is {phase}"
        )
    };
    let nginx = nginx(r#"said = { init = select(2, wasm.load("it", "bare.wasm", { background = true })) }"#)
        .http(
            r#"init_worker_by_lua_block {
                said.init_worker = select(2, wasm.load("it", "bare.wasm", { background = true }))
            }"#,
        )
        .server(
            r#"
            location /said {
                content_by_lua_block { ngx.print(said[ngx.var.arg_phase]) }
                header_filter_by_lua_block {
                    said.header_filter = select(2, wasm.load("it", "bare.wasm", { background = true }))
                }
                body_filter_by_lua_block {
                    said.body_filter = select(2, wasm.load("it", "bare.wasm", { background = true }))
                }
                log_by_lua_block {
                    said.log = select(2, wasm.load("it", "bare.wasm", { background = true }))
                }
            }
            "#,
        )
        .start();
    for phase in ["init", "init_worker", "header_filter", "body_filter", "log"] {
        assert_eq!(nginx.get(&format!("/said?phase={phase}")).text(), told(phase));
    }
}

#[test]
fn a_worker_that_is_to_end_does_not_wait_for_the_compile() {
    let nginx = nginx("").start();
    // Nothing ever comes out of it.
    let _gate = Gate::new(&nginx, "gate.wasm");
    assert_eq!(nginx.get("/timer?path=gate.wasm").status, 200);
    wait_for_state(&nginx, "begun");
    // Quitting is judged by the harness.
    nginx.finish();
}

/// Where workers load a module as they start.
fn workers(count: usize, setup: &str) -> Running {
    nginx(setup)
        .http("init_worker_by_lua_block { ngx.timer.at(0, function() assert(load()) end) }")
        .workers(count)
        .start()
}

/// Waits until so many workers have the module, wherever it came from.
fn loaded(nginx: &Running, count: usize) {
    let log = || nginx.error_log();
    let found = |log: &str| {
        [": compiled in ", ": shared with another process in ", ": taken from cache_dir in "]
            .map(|text| log.matches(text).count())
    };
    let all = poll(|| (found(&log()).iter().sum::<usize>() >= count).then_some(()));
    assert!(all.is_some(), "not loaded by {count} workers: {:?}", found(&log()));
}

#[test]
fn workers_compile_a_module_once() {
    if valgrind() {
        return;
    }
    let nginx = workers(3, "");
    loaded(&nginx, 3);
    assert_eq!(compiles(&nginx), 1);
    assert_eq!(nginx.error_log().matches(": shared with another process in ").count(), 2);
    assert_eq!(nginx.get("/t").header("hello"), Some("world!"));
}

#[test]
fn the_code_is_in_one_file_of_memory() {
    if valgrind() {
        return;
    }
    let nginx = workers(2, "");
    loaded(&nginx, 2);
    let images: Vec<_> = nginx
        .worker_pids()
        .iter()
        .map(|pid| {
            let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("a process");
            let executable =
                maps.lines().find(|line| line.contains("r-xp") && line.contains("/memfd:"));
            let line =
                executable.unwrap_or_else(|| panic!("no code of a memory file: {maps}")).to_owned();
            line.split_whitespace().nth(4).expect("an inode").to_owned()
        })
        .collect();
    assert_eq!(images[0], images[1]);
}

#[test]
fn instances_of_nginx_that_share_a_folder_compile_a_module_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let setup =
        format!("assert(wasm.setup({{ cache_dir = \"{}\" }}))", dir.path().join("cache").display());
    let both = [workers(1, &setup), workers(1, &setup)];
    both.iter().for_each(|nginx| loaded(nginx, 1));
    assert_eq!(both.iter().map(compiles).sum::<usize>(), 1);
    let files = fs::read_dir(dir.path().join("cache")).expect("a folder");
    assert_eq!(files.count(), 1, "a lock is left behind");
}

/// Who holds a lock on the file that a worker makes while it compiles.
fn holder(dir: &Path) -> Option<i32> {
    use std::os::unix::fs::MetadataExt as _;
    let entry = fs::read_dir(dir)
        .ok()?
        .flatten()
        .find(|e| e.path().to_string_lossy().ends_with(".lock"))?;
    let inode = format!(":{} ", entry.metadata().ok()?.ino());
    let locks = fs::read_to_string("/proc/locks").expect("/proc/locks");
    let line = locks
        .lines()
        .find(|line| line.contains("FLOCK") && !line.contains("->") && line.contains(&inode))?;
    line.split_whitespace().nth(4)?.parse().ok()
}

#[test]
fn a_worker_that_is_killed_in_the_middle_is_replaced() {
    if valgrind() {
        return;
    }
    // One that is so far that it has written the entry, or is not seen at all, says nothing: then once more.
    let caught = poll(caught_while_it_compiles);
    let (_dir, cache, nginx, caught) = caught.expect("no worker is seen while it compiles");
    // SAFETY: a process of this test's.
    unsafe { libc::kill(caught, libc::SIGKILL) };
    nginx.expect_log("exited on signal 9");
    // The one that is left, and the one that takes the place of the killed one.
    loaded(&nginx, 2);
    assert_eq!(compiles(&nginx), 1);
    assert_eq!(entries(&cache).len(), 1);
}

/// The entries of a module cache.
fn entries(cache: &Path) -> Vec<String> {
    let files = fs::read_dir(cache).into_iter().flatten().flatten();
    let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
    names.filter(|name| !name.starts_with('.')).collect()
}

/// Two workers that want a module, of which one is stopped while it compiles: the folder of the cache, nginx, and that worker.
fn caught_while_it_compiles() -> Option<(TempDir, PathBuf, Running, i32)> {
    let dir = tempfile::tempdir().expect("a directory");
    let cache = dir.path().join("cache");
    let nginx =
        workers(2, &format!("assert(wasm.setup({{ cache_dir = \"{}\" }}))", cache.display()));
    let compiles = poll(|| match holder(&cache) {
        Some(pid) => Some(Some(pid)),
        None => (!entries(&cache).is_empty()).then_some(None),
    });
    let pid = compiles.expect("nobody compiles")?;
    // SAFETY: a process of this test's.
    unsafe { libc::kill(pid, libc::SIGSTOP) };
    let is_stopped = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.starts_with('T').then_some(())
    };
    assert!(poll(is_stopped).is_some(), "{pid} does not stop");
    if holder(&cache) == Some(pid) && entries(&cache).is_empty() {
        assert!(nginx.worker_pids().contains(&pid), "{pid}");
        return Some((dir, cache, nginx, pid));
    }
    // SAFETY: as above.
    unsafe { libc::kill(pid, libc::SIGCONT) };
    None
}
