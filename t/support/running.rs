//! An nginx that runs: requests to it, its log, its workers, and its end.

use super::http::{Connection, Request, Response};
use super::poll;
use super::process::Process;
use std::fs;
use std::sync::{Mutex, OnceLock};
use std::thread::panicking;
use tempfile::TempDir;

/// When dropped, nginx is told to quit, and the test fails for anything in its error log that it did not expect.
pub(crate) struct Running {
    process: Process,
    expected: Mutex<Vec<String>>,
    tolerated: Mutex<Vec<String>>,
    /// How quitting went, once it has been tried.
    stopped: OnceLock<Result<(), String>>,
    // Dropped after the process has ended.
    prefix: TempDir,
}

impl Running {
    pub(super) fn new(process: Process, prefix: TempDir) -> Running {
        let (expected, tolerated) = (Mutex::default(), Mutex::default());
        Running { process, expected, tolerated, stopped: OnceLock::new(), prefix }
    }

    pub(crate) fn port(&self) -> u16 {
        self.process.port()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port())
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        self.request("GET", path).send()
    }

    /// A request to be completed and sent.
    pub(crate) fn request(&self, method: &str, target: &str) -> Request {
        Request::new(self.port(), method, target)
    }

    /// A connection for several requests, or for bytes that are no proper request.
    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self.port()).expect("a connection")
    }

    /// Sends bytes as they are and returns all that comes until nginx closes the connection.
    pub(crate) fn raw(&self, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        let mut connection = self.connect();
        connection.write(bytes.as_ref());
        connection.read_to_end()
    }

    /// Where nginx was started: its prefix and working directory.
    pub(crate) fn path(&self, name: &str) -> String {
        self.prefix.path().join(name).display().to_string()
    }

    /// The whole error log so far.
    pub(crate) fn error_log(&self) -> String {
        self.process.log().text()
    }

    pub(crate) fn logged(&self, needle: &str) -> bool {
        self.error_log().contains(needle)
    }

    /// Waits for a line with this text and returns it.
    pub(crate) fn wait_for_log(&self, needle: &str) -> String {
        self.process.log().wait_for(needle).unwrap_or_else(|| panic!("{needle:?} was never logged"))
    }

    /// Declares that this test provokes a log entry at `warn` or above that holds this text. It must come before the
    /// test ends.
    pub(crate) fn expect_log(&self, needle: &str) {
        self.expected.lock().expect("expectations").push(needle.into());
    }

    /// Declares that an entry at `warn` or above that holds this text may come or not: it is a matter of time.
    pub(crate) fn may_log(&self, needle: &str) {
        self.tolerated.lock().expect("expectations").push(needle.into());
    }

    /// What follows a marker in the lines that have it, without the `, client: …` that nginx writes behind.
    pub(crate) fn log_texts(&self, marker: &str) -> Vec<String> {
        super::log::texts(&self.error_log(), marker)
    }

    /// The texts that the plugin of this name logged so far, in order.
    pub(crate) fn guest_log(&self, plugin: &str) -> Vec<String> {
        self.log_texts(&format!("wasm log {plugin}: "))
    }

    pub(crate) fn master_pid(&self) -> i32 {
        self.process.pid().expect("nginx.pid")
    }

    /// The workers that serve new requests.
    pub(crate) fn worker_pids(&self) -> Vec<i32> {
        self.process.worker_pids()
    }

    pub(crate) fn signal(&self, signal: i32) {
        self.process.signal(signal);
    }

    /// Reloads the configuration and waits until new workers have taken over.
    pub(crate) fn reload(&self) {
        let old = self.worker_pids();
        self.signal(libc::SIGHUP);
        let replaced = poll(|| {
            let now = self.worker_pids();
            (now.len() >= old.len() && now.iter().all(|pid| !old.contains(pid))).then_some(())
        });
        assert!(replaced.is_some(), "no new workers after a reload");
    }

    /// The resident memory of a process, in KiB.
    pub(crate) fn rss_kib(&self, pid: i32) -> u64 {
        memory_kib(pid, "VmRSS:")
    }

    /// The most that it ever was, in KiB.
    pub(crate) fn peak_rss_kib(&self, pid: i32) -> u64 {
        memory_kib(pid, "VmHWM:")
    }

    /// Waits until the workers of old configurations have ended, too.
    pub(crate) fn wait_for_old_workers(&self) {
        let gone = poll(|| (self.process.children() == self.worker_pids()).then_some(()));
        assert!(gone.is_some(), "old workers do not end");
    }

    /// Ends nginx gracefully, so that every request has been freed and all that it logs is there to be read.
    pub(crate) fn stop(&self) {
        self.stopped.get_or_init(|| self.process.quit());
    }

    /// Ends nginx and judges its log now instead of at the end of the test.
    pub(crate) fn finish(self) {
        drop(self);
    }
}

fn memory_kib(pid: i32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

impl Drop for Running {
    fn drop(&mut self) {
        if panicking() {
            self.process.kill();
            eprintln!("the error log of the test that failed:\n{}", self.error_log());
            return;
        }
        let mut complaints = Vec::new();
        self.stop();
        complaints.extend(self.stopped.get().and_then(|result| result.clone().err()));
        let expected = self.expected.lock().expect("expectations");
        let tolerated = self.tolerated.lock().expect("expectations");
        complaints.extend(self.process.log().complaints(&expected, &tolerated));
        let valgrind = self.process.valgrind_complaints();
        if !valgrind.is_empty() {
            complaints.push(format!("valgrind:\n{valgrind}"));
        }
        if !complaints.is_empty() {
            panic!("{}\n\nthe whole error log:\n{}", complaints.join("\n"), self.error_log());
        }
    }
}
