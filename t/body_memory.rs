//! What bodies cost a worker: large ones pass through it, and it does not hold them.

use super::support::{Curl, Nginx, Running, Upstream};
use std::fs::File;

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;
/// The most that a worker may have had in memory at any time.
const MOST_KIB: u64 = 64 * 1024;

/// A server with a chain of two filters in front of an upstream.
fn nginx(script: &str, upstream: &Upstream) -> Running {
    Nginx::new()
        .guest("probe")
        .http(&format!(
            r#"
            init_by_lua_block {{
                local wasm = require("resty.proxy-wasm")
                local plugin = assert(wasm.load("probe", "probe.wasm"))
                local function context()
                    return assert(wasm.on_configure(plugin, [==[{script}]==]))
                end
                chain = wasm.new_chain({{ context(), context() }})
            }}"#
        ))
        .server(&format!(
            "client_max_body_size 0;
             proxy_max_temp_file_size 0;
             proxy_http_version 1.1;
             # On a machine with much to do the server reads 100 MiB for longer than nginx's minute.
             proxy_read_timeout 600s; proxy_send_timeout 600s; client_body_timeout 600s; send_timeout 600s;
             location / {{
                 access_by_lua_block {{ chain:access() }}
                 header_filter_by_lua_block {{ chain:header_filter() }}
                 body_filter_by_lua_block {{ chain:body_filter() }}
                 proxy_pass {};
             }}",
            upstream.url()
        ))
        .start()
}

/// The most that a process has had in memory, in KiB.
fn peak_kib(nginx: &Running) -> u64 {
    nginx.peak_rss_kib(nginx.worker_pids()[0])
}

#[test]
fn a_large_request_body_passes_through() {
    let upstream = Upstream::start(|request, out| {
        let length = request.body.len();
        write!(out, "HTTP/1.1 200 OK\r\nX-Length: {length}\r\nContent-Length: 0\r\n\r\n")
    });
    for script in [
        "request_body@eos: args",
        // Written again, to a file.
        "request_body@eos: set_buffer_bytes 0 max 0 more",
    ] {
        let nginx = nginx(script, &upstream);
        nginx.expect_log("a client request body is buffered to a temporary file");
        let file = File::create(nginx.path("input")).expect("a file");
        file.set_len(100 * MIB).expect("a sparse file");
        for _ in 0..3 {
            let answer = Curl::new(&nginx).upload("input").get("/");
            let grown = if script.contains("more") { 8 } else { 0 };
            let length = (100 * MIB + grown).to_string();
            assert_eq!(answer.header("x-length"), Some(length.as_str()), "{script}");
            upstream.take();
        }
        let peak = peak_kib(&nginx);
        assert!(peak < MOST_KIB, "{script}: {peak} KiB");
    }
}

#[test]
fn a_response_of_1_gib_passes_through() {
    let upstream = Upstream::start(|_, out| {
        write!(out, "HTTP/1.1 200 OK\r\nContent-Length: {GIB}\r\n\r\n")?;
        let piece = vec![b'x'; 64 * 1024];
        (0..GIB / 65536).try_for_each(|_| out.write_all(&piece))
    });
    let nginx = nginx("response_body@eos: args", &upstream);
    let answer = Curl::new(&nginx).discard().get("/");
    assert_eq!((answer.status, answer.received), (200, GIB));
    let peak = peak_kib(&nginx);
    assert!(peak < MOST_KIB, "{peak} KiB");
}
