//! The test harness.
//!
//! ```ignore
//! let nginx = Nginx::new()
//!     .wat("bare")
//!     .http(r#"init_by_lua_block { plugin = require("resty.proxy-wasm").load("bare", "bare.wasm") }"#)
//!     .server(r#"location /t { return 200; }"#)
//!     .start();
//! assert_eq!(nginx.get("/t").status, 200);
//! nginx.expect_log("a warning that this test provokes");
//! ```
//!
//! Environment: `RPW_NGINX` names the nginx to test with, `RPW_LIBRARY_DIR` a folder with a library to test in place of the
//! one that was built with the tests, `RPW_PATIENCE` how many seconds to wait for what should happen soon; `RPW_VALGRIND=1` runs it under valgrind, as one process
//! ([`valgrind`] tells a test that needs more to leave).
#![allow(dead_code, unused_imports, reason = "a harness offers more than the tests of one day use")]

pub(crate) mod clock;
mod config;
mod curl;
mod dns;
mod http;
mod log;
mod probe;
mod process;
pub(crate) mod redis;
mod running;
mod server;
pub(crate) mod tls;
mod upstream;

pub(crate) use config::{
    Nginx, guest, library, listen_http2, lua_paths, nginx_takes, preamble, version,
};
pub(crate) use curl::{Answer, Curl};
pub(crate) use dns::dns;
pub(crate) use http::{Connection, Request, Response};
pub(crate) use log::texts;
pub(crate) use probe::{Outcome, Probe};
pub(crate) use process::{free_port, valgrind};
pub(crate) use running::Running;
pub(crate) use server::{Peer, Server};
pub(crate) use upstream::{Incoming, Upstream};

use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A Python with the packages that tests need.
pub(crate) fn python() -> Command {
    let found = Command::new(root().join("tools/python")).output().expect("a script");
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    Command::new(String::from_utf8_lossy(&found.stdout).trim())
}

/// How long anything that should happen soon may take on a busy machine.
pub(crate) fn patience() -> Duration {
    let given = std::env::var("RPW_PATIENCE").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(given.unwrap_or(if valgrind() { 180 } else { 120 }))
}

/// Polls until `probe` answers, or gives up when [`patience`] runs out.
pub(crate) fn poll<T>(mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
