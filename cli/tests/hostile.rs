//! What others do to the command: readers that are gone, names that would steer a terminal, registries that want a login, and
//! commands that work on the same store.

use super::command::{command, guest, proxy_wasm, root};
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn a_reader_that_is_gone_is_no_panic() {
    let probe = guest("probe");
    for (args, code) in [
        (vec!["--json", "nonsense"], 2),
        (vec!["--json", "inspect", "/no/file"], 2),
        (vec!["--json", "inspect", &probe], 0),
        (vec!["inspect", &probe], 0),
        (vec!["test", "--schema"], 0),
    ] {
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        let output = command(&root(), &args).stdout(writer).output().expect("the command runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(!said.contains("panicked"), "{args:?}: {said}");
    }
}

#[test]
fn errors_do_not_steer_the_terminal() {
    for args in [
        vec!["inspect", "/no/\u{1b}[31mfile\r"],
        vec!["run", &guest("probe"), "--config", "@/no/\u{1b}]0;file\u{7}"],
        vec!["test", "/no/\u{9b}31mfile"],
    ] {
        let said = proxy_wasm(&args).ended(2).err;
        assert!(said.contains("No such file"), "{said:?}");
        assert!(!said.trim_end().contains(char::is_control), "{said:?}");
    }
}

/// What a registry was asked: the first line, and the value of Authorization.
type Asked = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// Status, headers and body.
type Response = (u16, String, Vec<u8>);

/// A registry that answers each request with what `answer` says of its first line.
fn registry(answer: impl Fn(&str, &Asked) -> Response + Send + Sync + 'static) -> (u16, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let asked = Asked::default();
    let (all, answer) = (asked.clone(), Arc::new(answer));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (all, answer) = (all.clone(), answer.clone());
            // A client that is gone needs no answer.
            thread::spawn(move || respond(&stream, &all, &*answer).ok());
        }
    });
    (port, asked)
}

fn respond(
    mut stream: &TcpStream,
    asked: &Asked,
    answer: &dyn Fn(&str, &Asked) -> Response,
) -> io::Result<()> {
    let mut input = BufReader::new(stream);
    let (mut first, mut length, mut login) = (String::new(), 0, None);
    input.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        input.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_lowercase().as_str() {
            "content-length" => length = value.parse().map_err(io::Error::other)?,
            "authorization" => login = Some(value.to_owned()),
            _ => {}
        }
    }
    io::copy(&mut input.take(length), &mut io::sink())?;
    asked.lock().unwrap_or_else(PoisonError::into_inner).push((first.trim_end().into(), login));
    let (status, headers, body) = answer(&first, asked);
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
    )?;
    stream.write_all(&body)
}

fn count(asked: &Asked, part: &str) -> usize {
    let asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
    asked.iter().filter(|(line, _)| line.contains(part)).count()
}

#[test]
fn a_login_is_for_the_registry_only() {
    let (other, asked_other) = registry(|_, _| (201, String::new(), Vec::new()));
    // The name of the other one begins with that of the registry.
    let (port, asked) = registry(move |first, asked| {
        let port = first.split("/at-").nth(1).map(|rest| &rest[..rest.find('/').unwrap_or(0)]);
        let port = port.unwrap_or_default();
        let headers = match count(asked, "POST") {
            1 => "WWW-Authenticate: Basic realm=\"r\"\r\n".into(),
            _ => format!("Location: http://127.0.0.1:{port}@127.0.0.1:{other}/taken\r\n"),
        };
        let status = match first.split(' ').next() {
            Some("POST") if headers.starts_with("WWW") => 401,
            Some("POST") => 202,
            Some("PUT") => 201,
            _ => 404,
        };
        (status, headers, Vec::new())
    });
    let reference = format!("oci://127.0.0.1:{port}/at-{port}/probe:1");
    let mut push = command(&root(), &["push", &guest("probe"), &reference, "--username", "me"]);
    let output = push.env("PROXY_WASM_PASSWORD", "secret").output().expect("the command");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let logins = |asked: &Asked| {
        let asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
        // base64 of me:secret.
        let is_ours = |login: &Option<String>| login.as_deref() == Some("Basic bWU6c2VjcmV0");
        asked.iter().map(|(_, login)| is_ours(login)).collect::<Vec<_>>()
    };
    assert!(logins(&asked).contains(&true), "the registry gets it");
    assert_eq!(logins(&asked_other), [false, false], "both blobs go there, without the login");
}

#[test]
fn commands_that_pull_the_same_filter_wait_for_each_other() {
    const COMMANDS: usize = 3;
    let filter = fs::read(guest("rust_filter")).expect("a guest");
    let digest = proxy_wasm(&["inspect", &guest("rust_filter"), "--json"]).ended(0).json();
    let digest = digest["digest"].as_str().expect("a text").to_owned();
    let manifest = format!(
        r#"{{"schemaVersion":2,"layers":[{{"mediaType":"application/vnd.module.wasm.content.layer.v1+wasm","digest":"{digest}","size":{}}}]}}"#,
        filter.len()
    );
    let (port, asked) = registry(move |first, asked| {
        if first.contains("/manifests/") {
            return (200, String::new(), manifest.clone().into_bytes());
        }
        // All are under way before the first one gets it.
        let started = Instant::now();
        while count(asked, "/manifests/") < COMMANDS {
            assert!(started.elapsed() < Duration::from_secs(60), "a command never came");
            thread::sleep(Duration::from_millis(5));
        }
        (200, String::new(), filter.clone())
    });
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().to_string_lossy().into_owned();
    let reference = format!("oci://127.0.0.1:{port}/filter:1");
    let args = ["pull", &reference, "--allow-tag", "--store", &store];
    let start = || {
        let mut command = command(&root(), &args);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the command")
    };
    let commands: Vec<Child> = (0..COMMANDS).map(|_| start()).collect();
    for child in commands {
        let output = child.wait_with_output().expect("the command");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(count(&asked, "/blobs/"), 1, "it is fetched once");
    assert_eq!(fs::read_dir(folder.path().join("partial")).expect("a folder").count(), 0);
}
