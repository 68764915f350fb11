//! Debian's redis-server, and servers that only look like one.

use super::{free_port, patience, poll};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A server with a folder of its own, at a port and at `redis.sock` in that folder. It ends when it is dropped.
pub(crate) struct Redis {
    child: Child,
    pub port: u16,
    arguments: Vec<String>,
    pub dir: TempDir,
}

impl Redis {
    pub(crate) fn start(arguments: &[&str]) -> Redis {
        Redis::start_in(tempfile::tempdir().expect("a directory"), arguments)
    }

    /// One whose folder has files that the arguments name.
    pub(crate) fn start_in(dir: TempDir, arguments: &[&str]) -> Redis {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let port = free_port();
        let child = spawn(dir.path(), port, &arguments);
        Redis { child, port, arguments, dir }
    }

    /// The upstream as filters name it.
    pub(crate) fn upstream(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn socket(&self) -> String {
        format!("unix:{}", self.dir.path().join("redis.sock").display())
    }

    /// What a command is answered with, without its first byte and the end of its line: a word, a number, a short string.
    pub(crate) fn ask(&self, command: &[&str]) -> String {
        ask(self.port, command).expect("an answer")
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, at the same port, with the data that it was told to save and no other.
    pub(crate) fn restart(&mut self) {
        self.restart_with(&[]);
    }

    /// The same with more arguments.
    pub(crate) fn restart_with(&mut self, arguments: &[&str]) {
        self.kill();
        let more = arguments.iter().map(ToString::to_string);
        let arguments: Vec<String> = self.arguments.iter().cloned().chain(more).collect();
        self.child = spawn(self.dir.path(), self.port, &arguments);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(dir: &Path, port: u16, arguments: &[String]) -> Child {
    let has_port = arguments.iter().any(|argument| argument == "--tls-port");
    let port_argument = if has_port { 0 } else { port }.to_string();
    let mut command = Command::new("redis-server");
    command
        .args(["--port", &port_argument, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(["--unixsocket", "redis.sock", "--daemonize", "no"])
        .args(arguments.iter().map(|argument| argument.replace("PORT", &port.to_string())))
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // SAFETY: prctl is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    let child = command.spawn().expect("redis-server runs: ./build.sh test installs it");
    let there = poll(|| TcpStream::connect(("127.0.0.1", port)).ok());
    assert!(there.is_some(), "redis-server does not listen");
    child
}

fn ask(port: u16, command: &[&str]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(patience()))?;
    stream.write_all(encode(command).as_bytes())?;
    let mut answer = [0; 4096];
    let size = stream.read(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer[..size]).into_owned();
    let (first, rest) = answer.split_once("\r\n").unwrap_or_default();
    let string = first.starts_with('$').then(|| rest.trim_end()).filter(|_| first != "$-1");
    Ok(string.unwrap_or(first.get(1..).unwrap_or_default()).to_string())
}

/// A command as it goes over the wire.
pub(crate) fn encode(command: &[&str]) -> String {
    let parts = command.iter().map(|part| format!("${}\r\n{part}\r\n", part.len()));
    format!("*{}\r\n{}", command.len(), parts.collect::<String>())
}

/// Commands as a word of the probe's scripts.
pub(crate) fn query(commands: &[&[&str]]) -> String {
    let bytes: String = commands.iter().map(|command| encode(command)).collect();
    let escaped = bytes.replace('\\', "\\\\").replace('\'', "\\'");
    format!("'{}'", escaped.replace('\r', "\\r").replace('\n', "\\n"))
}

/// A server that answers whatever comes first on each connection with these bytes, and closes it when it is to. Returns its
/// port.
pub(crate) fn answering(answer: &[u8], closes: bool) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let answer = answer.to_vec();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut asked = [0; 4096];
            if matches!(stream.read(&mut asked), Ok(1..)) {
                let _ = stream.write_all(&answer);
                if !closes {
                    kept.push(stream);
                }
            }
        }
    });
    port
}
