//! The nginx process: started, watched, signalled and ended by process id.

use super::log::ErrorLog;
use super::{poll, root};
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};

pub(super) struct Process {
    prefix: PathBuf,
    port: u16,
    child: Mutex<Child>,
    daemon: bool,
}

/// A limit of a process, and its value.
pub(super) type Limit = (libc::__rlimit_resource_t, u64);

/// Is nginx to run under valgrind, and so as one process?
pub(crate) fn valgrind() -> bool {
    std::env::var_os("RPW_VALGRIND").is_some_and(|value| value != "0")
}

/// The nginx to test with.
pub(super) fn nginx() -> String {
    std::env::var("RPW_NGINX").unwrap_or_else(|_| "nginx".into())
}

/// A port that nothing listens on, below the range that the kernel hands to outgoing connections.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes that run at the same time begin at different places.
    let start = std::process::id() % 12_000;
    for _ in 0..12_000 {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 20_000 + u16::try_from((start + step) % 12_000).expect("below 12,000");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

impl Process {
    pub(super) fn spawn(
        prefix: &Path,
        port: u16,
        env: &[(String, String)],
        limits: &[Limit],
        daemon: bool,
    ) -> Process {
        let said = File::create(prefix.join("logs/said")).expect("a file");
        let mut command = if valgrind() {
            let mut command = Command::new("valgrind");
            command
                .arg("--quiet")
                .arg(format!("--suppressions={}/t/support/valgrind.supp", root().display()))
                .arg(format!("--log-file={}/logs/valgrind", prefix.display()))
                .args(["--gen-suppressions=all", "--num-callers=30", "--error-limit=no"])
                .arg(nginx());
            command
        } else {
            Command::new(nginx())
        };
        command
            .arg("-p")
            .arg(prefix)
            .args(["-c", "conf/nginx.conf", "-e", "logs/error.log"])
            .envs(env.iter().map(|(name, value)| (name, value)))
            .current_dir(prefix)
            .stdin(Stdio::null())
            .stdout(said.try_clone().expect("a file"))
            .stderr(said);
        let limits = limits.to_vec();
        // A test that is killed leaves no server behind.
        // SAFETY: prctl and setrlimit are async-signal-safe.
        unsafe {
            command.pre_exec(move || {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
                for (resource, bytes) in &limits {
                    let limit = libc::rlimit { rlim_cur: *bytes, rlim_max: *bytes };
                    if libc::setrlimit(*resource, &raw const limit) != 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("{:?}: {error}", command.get_program());
        });
        Process { prefix: prefix.into(), port, child: Mutex::new(child), daemon }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn log(&self) -> ErrorLog {
        ErrorLog::new(self.prefix.join("logs/error.log"))
    }

    /// What nginx, or valgrind, wrote to its standard output and error before the error log was open.
    pub(super) fn said(&self) -> String {
        fs::read(self.prefix.join("logs/said"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// What valgrind complained of; empty when it did not, or does not run.
    pub(super) fn valgrind_complaints(&self) -> String {
        fs::read_to_string(self.prefix.join("logs/valgrind")).unwrap_or_default()
    }

    /// Waits for the workers; the error tells how nginx ended instead.
    pub(super) fn wait_ready(&self, workers: usize) -> Result<(), String> {
        let ready = poll(|| {
            let exited = self.child.lock().expect("a child").try_wait().expect("a child");
            match exited {
                Some(status) if !(self.daemon && status.success()) => {
                    return Some(Err(status.to_string()));
                }
                _ => {}
            }
            let started =
                self.pid().is_some() && (valgrind() || self.worker_pids().len() >= workers);
            started.then_some(Ok(()))
        });
        ready.unwrap_or_else(|| {
            self.kill();
            Err("it never became ready".into())
        })
    }

    /// The master's process id, once nginx has written it.
    pub(super) fn pid(&self) -> Option<i32> {
        fs::read_to_string(self.prefix.join("logs/nginx.pid")).ok()?.trim().parse().ok()
    }

    /// The workers that serve; those of an old configuration that are on their way out are left out.
    pub(super) fn worker_pids(&self) -> Vec<i32> {
        let Some(master) = self.pid() else {
            return Vec::new();
        };
        if valgrind() {
            return vec![master];
        }
        let mut pids: Vec<i32> = children(master)
            .into_iter()
            .filter(|pid| {
                fs::read_to_string(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|title| is_of_worker(title.trim_end_matches('\0')))
            })
            .collect();
        pids.sort_unstable();
        pids
    }

    /// All processes of the master, in order.
    pub(super) fn children(&self) -> Vec<i32> {
        let mut pids = self.pid().map(children).unwrap_or_default();
        pids.sort_unstable();
        pids
    }

    pub(super) fn signal(&self, number: i32) {
        let pid = self.pid().expect("nginx.pid");
        assert!(signal(pid, number), "signal {number} to nginx {pid}");
    }

    /// Ends nginx gracefully; the error says why that did not work.
    pub(super) fn quit(&self) -> Result<(), String> {
        let Some(pid) = self.pid() else {
            self.kill();
            return Err("nginx ended before the test did".into());
        };
        signal(pid, libc::SIGQUIT);
        let gone = poll(|| {
            let gone = self.gone(pid);
            // Without a master, nginx misses a signal that comes just before it waits for events.
            if !gone && valgrind() {
                signal(pid, libc::SIGQUIT);
            }
            gone.then_some(())
        });
        match gone {
            Some(()) => Ok(()),
            None => {
                self.kill();
                Err("nginx did not stop when told to quit".into())
            }
        }
    }

    /// Ends nginx at once, for a test that has failed already.
    pub(super) fn kill(&self) {
        if let Some(pid) = self.pid() {
            // Stopped, so that it starts no new worker for one that was killed.
            signal(pid, libc::SIGSTOP);
            for pid in children(pid).into_iter().chain([pid]) {
                signal(pid, libc::SIGKILL);
            }
        }
        let mut child = self.child.lock().expect("a child");
        let _ = child.kill();
        let _ = child.wait();
    }

    fn gone(&self, pid: i32) -> bool {
        // Reaps the child, which else stays a zombie; a daemon is not our child, but init's.
        let _ = self.child.lock().expect("a child").try_wait();
        stat(pid).is_none_or(|stat| stat.state == "Z")
    }
}

/// False when there is no such process (any more).
fn signal(pid: i32, number: i32) -> bool {
    // SAFETY: kill has no memory preconditions; the process is ours.
    unsafe { libc::kill(pid, number) == 0 }
}

struct Stat {
    state: String,
    parent: i32,
}

/// The fields of `/proc/PID/stat` after the name, which is in parentheses and may hold anything.
fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    Some(Stat { state: fields.next()?.into(), parent: fields.next()?.parse().ok()? })
}

/// Whether a process with that command line is a worker that serves. Under an emulator the title that nginx gives its processes
/// is not seen from outside: all children of the master count then, those that shut down until they end.
fn is_of_worker(title: &str) -> bool {
    let program = title.split('\0').next().unwrap_or_default();
    let is_emulated = program.rsplit('/').next().is_some_and(|name| name.starts_with("qemu-"));
    title == "nginx: worker process" || is_emulated
}

fn children(parent: i32) -> Vec<i32> {
    let processes = fs::read_dir("/proc").expect("/proc");
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&pid| stat(pid).is_some_and(|stat| stat.parent == parent))
        .collect()
}
