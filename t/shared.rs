//! Shared data in a real nginx: over workers, reloads and workers that are killed, and from Lua.

use super::support::{Nginx, Running, poll};
use std::thread;

/// Filters `a`, with vm_id "vm", and `b` without, and Lua's `data`, in an nginx with this text before the first load.
fn nginx(setup: &str, workers: usize) -> Nginx {
    Nginx::new()
        .guest("probe")
        .workers(workers)
        .http(&format!(
            r#"
            init_by_lua_block {{
                wasm = require("resty.proxy-wasm")
                {setup}
                data = wasm.shared("vm")
                local function context(name, options, script)
                    return assert(wasm.on_configure(assert(wasm.load(name, "probe.wasm", options)), script))
                end
                a = context("a", {{ vm_id = "vm" }},
                    "request_headers: get_shared_data key; request_headers: set_shared_data key 'of a' 0")
                b = context("b", {{}}, "request_headers: get_shared_data key")
            }}
            "#
        ))
        .server(
            r#"
            location /a { content_by_lua_block { assert(wasm.on_http_request_headers(a)) } }
            location /b { content_by_lua_block { assert(wasm.on_http_request_headers(b)) } }
            location /lua {
                content_by_lua_block {
                    ngx.req.read_body()
                    ngx.print(assert(loadstring(ngx.req.get_body_data()))())
                }
            }
            "#,
        )
}

fn lua(nginx: &Running, code: &str) -> String {
    nginx.request("POST", "/lua").body(code).send().text()
}

#[test]
fn lua_and_filters_exchange_values() {
    let nginx = nginx("", 1).start();
    nginx.get("/a");
    assert_eq!(lua(&nginx, "return data:get('key')"), "of a1");
    assert_eq!(lua(&nginx, "return data:set('key', 'of Lua', 1)"), "2");
    nginx.get("/a");
    nginx.get("/b");
    assert_eq!(
        nginx.guest_log("a"),
        [
            "request_headers get_shared_data key -> 1",
            "request_headers set_shared_data key 'of a' 0 -> 0",
            "request_headers get_shared_data key -> 0 of Lua 2",
            "request_headers set_shared_data key 'of a' 0 -> 0",
        ]
    );
    assert_eq!(nginx.guest_log("b"), ["request_headers get_shared_data key -> 1"]);
}

#[test]
fn the_whole_of_it_in_lua() {
    let nginx = nginx("", 1).start();
    for (code, answer) in [
        ("return tostring(data:get('k'))", "nil"),
        ("return data:set('k', 'v\\0w')", "1"),
        ("local v, cas = data:get('k') return #v, cas", "31"),
        ("return tostring(data:set('k', '', 7))", "nil"),
        ("return select(2, data:set('k', '', 7))", "cas mismatch"),
        ("return data:set('k', '', 1)", "2"),
        ("return data:get('k')", "2"),
        ("return table.concat(data:keys(), ',')", "k"),
        ("for n = 1, 5 do data:set('key' .. n, '') end return #data:keys(3), #data:keys(0)", "36"),
        ("return tostring(data:delete('k')), tostring(data:delete('k'))", "truefalse"),
        ("return tostring(wasm.shared():get('key1')), #wasm.shared('other'):keys()", "nil0"),
        ("return select(2, data:set(('k'):rep(5000), ''))", "the key or the value is too large"),
        (
            "for n = 1, 40 do local ok, err = data:set('n' .. n, ('x'):rep(1000000)) if err then return err end end",
            "the shared memory is full",
        ),
    ] {
        assert_eq!(lua(&nginx, code), answer, "{code}");
    }
    for (call, error) in [
        ("wasm.shared(1)", "bad argument #1 to 'shared' (string expected, got number)"),
        ("data:get()", "bad argument #1 to 'get' (string expected, got nil)"),
        ("data:set('k')", "bad argument #2 to 'set' (string expected, got nil)"),
        (
            "data:set('k', '', -1)",
            "bad argument #3 to 'set' (a whole number from 0 to 4294967295 expected)",
        ),
        ("data:delete({})", "bad argument #1 to 'delete' (string expected, got table)"),
        (
            "data:keys('x')",
            "bad argument #1 to 'keys' (a whole number from 0 to 4294967295 expected)",
        ),
    ] {
        let code = format!(
            "local ok, err = pcall(function() local r = {call} return r end)\nreturn tostring(err)"
        );
        let text = lua(&nginx, &code);
        assert!(text.ends_with(error) && text.contains(":1: "), "{call}: {text}");
    }
}

/// Adds one to a number, `times` times, in requests to whichever worker answers.
fn add(nginx: &Running, times: usize) {
    let code = "
        while true do
            local value, cas = data:get('n')
            if data:set('n', tostring((value or 0) + 1), cas) and cas then return 'done' end
        end";
    for _ in 0..times {
        assert_eq!(lua(nginx, code), "done");
    }
}

#[test]
fn all_workers_and_the_ones_after_a_reload_see_the_same() {
    for daemon in [false, true] {
        let nginx = nginx("", 2).daemon(daemon).start();
        lua(&nginx, "return data:set('n', '0')");
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| add(&nginx, 100));
            }
            for _ in 0..3 {
                nginx.reload();
            }
        });
        assert_eq!(lua(&nginx, "return (data:get('n'))"), "300");
    }
}

#[test]
fn killed_workers_leave_it_whole() {
    let nginx = nginx("", 2)
        .server(
            r#"location /work {
                content_by_lua_block {
                    -- For as long as a client reads: one that was not accepted yet when the workers were killed does not.
                    for round = 1, math.huge do
                        if round % 20000 == 0 and not (ngx.print(round) and ngx.flush(true)) then break end
                        local key = "w" .. round % 50
                        assert(data:set(key, (key .. "."):rep(round % 200)))
                        if round % 7 == 0 then data:delete(key) end
                    end
                }
            }"#,
        )
        .start();
    lua(&nginx, "return data:set('kept', 'it')");
    let repaired = "a worker ended while it changed the shared memory, which was repaired";
    nginx.expect_log("exited on signal 9");
    nginx.expect_log(repaired);
    for round in 0..200 {
        let workers = nginx.worker_pids();
        // The kernel gives a connection to whichever worker takes it first, so there are more until both of them work.
        let mut clients = Vec::new();
        poll(|| {
            let mut client = nginx.connect();
            client.write(b"GET /work HTTP/1.0\r\n\r\n");
            clients.push(client);
            let busy = workers.iter().filter(|pid| {
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('R'))
            });
            (busy.count() == 2).then_some(())
        })
        .expect("workers that work");
        for pid in &workers {
            // SAFETY: a process of this test.
            unsafe { libc::kill(*pid, libc::SIGKILL) };
        }
        drop(clients);
        poll(|| {
            let now = nginx.worker_pids();
            (now.len() == 2 && now.iter().all(|pid| !workers.contains(pid))).then_some(())
        })
        .expect("new workers");
        let code = "for _, key in ipairs(data:keys()) do
                local value = data:get(key) or ''
                if key ~= 'kept' and value ~= '' and value:gsub(key .. '%.', '') ~= '' then return key .. value end
            end
            return (data:get('kept'))";
        assert_eq!(lua(&nginx, code), "it", "round {round}");
        if round >= 5 && nginx.logged(repaired) {
            return;
        }
    }
}

#[test]
fn the_size_is_that_of_the_first_start() {
    let nginx = nginx("assert(wasm.setup({ shared_memory = '1M' }))", 1).start();
    let fill = "for n = 1, 1000 do
            local ok, err = data:set('n' .. n, ('x'):rep(100000))
            if not ok then return n end
        end";
    let first: usize = lua(&nginx, fill).parse().expect("a number");
    assert!((7..=11).contains(&first), "{first}");
    let conf = nginx.path("conf/nginx.conf");
    let text = std::fs::read_to_string(&conf).expect("a file");
    std::fs::write(&conf, text.replace("'1M'", "2 * 1024 * 1024, eviction = 'lru'"))
        .expect("a file");
    nginx.expect_log("shared_memory stays at 1048576 bytes until nginx is started again");
    nginx.reload();
    assert_eq!(lua(&nginx, fill), "", "the oldest make room");
    assert_eq!(lua(&nginx, "return #data:get('n1000')"), "100000");
    assert_eq!(lua(&nginx, "return tostring(data:get('n1'))"), "nil");
    std::fs::write(&conf, text.replace("shared_memory = '1M'", "")).expect("a file");
    nginx.reload();
    assert_eq!(lua(&nginx, fill), "1", "nothing makes room, and the size stays");
}

#[test]
fn what_is_made_in_a_worker_is_its_own() {
    let nginx = Nginx::new()
        .server(
            r#"location /lua {
                content_by_lua_block {
                    rawset(_G, "data", require("resty.proxy-wasm").shared("vm"))
                    ngx.req.read_body()
                    ngx.print(assert(loadstring(ngx.req.get_body_data()))())
                }
            }"#,
        )
        .start();
    let alone = "shared data, queues and metrics are this worker's own: \
                 require(\"resty.proxy-wasm\") in init_by_lua, so that all workers share them";
    nginx.expect_log(alone);
    for n in 1..=3 {
        assert_eq!(lua(&nginx, "return data:set('n', '1')"), n.to_string());
    }
    assert_eq!(nginx.log_texts(alone).len(), 1);
}

#[test]
fn wrong_settings() {
    for (settings, error) in [
        ("shared_memory = 1", "shared_memory must be a size from \"256k\" to \"32g\""),
        ("shared_memory = '255k'", "shared_memory must be a size from \"256k\" to \"32g\""),
        ("shared_memory = '33g'", "shared_memory must be a size from \"256k\" to \"32g\""),
        ("shared_memory = '1 m'", "shared_memory must be a size from \"256k\" to \"32g\""),
        ("shared_memory = true", "shared_memory must be a size from \"256k\" to \"32g\""),
        ("eviction = 'fifo'", "eviction must be \"none\" or \"lru\""),
    ] {
        let log = nginx(&format!("wasm.setup({{ {settings} }})"), 1).start_fails();
        assert!(log.contains(&format!("bad argument #1 to 'setup' ({error})")), "{log}");
    }
    let log = nginx("wasm.shared() wasm.setup({})", 1).start_fails();
    assert!(log.contains("setup must be called before the first load, shared, metrics"), "{log}");
}
