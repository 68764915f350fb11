//! `proxy-wasm pull` and `push` against Debian's `docker-registry`.

use super::command::{command, file, guest, proxy_wasm, root, temporary};
use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A registry that runs.
struct Registry {
    child: Child,
    folder: TempDir,
    port: u16,
}

impl Registry {
    /// Starts one. With `secure` it speaks TLS and asks for the login me:secret.
    fn start(secure: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp:\n  addr: 127.0.0.1:{port}\n",
            at("data")
        );
        if secure {
            certificate(folder.path());
            // bcrypt of "secret".
            let line = run("htpasswd", &["-Bbn", "me", "secret"]);
            fs::write(at("htpasswd"), line).expect("a file");
            config += &format!(
                "  tls: {{certificate: {}, key: {}}}\nauth:\n  htpasswd: {{realm: test, path: {}}}\n",
                at("cert.pem"),
                at("key.pem"),
                at("htpasswd")
            );
        }
        fs::write(at("config.yml"), config).expect("a file");
        let child = Command::new("docker-registry")
            .args(["serve", &at("config.yml")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry: apt-get install docker-registry");
        let mut registry = Self { child, folder, port };
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(60), "the registry does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        // Nothing else answers in its place.
        assert!(registry.child.try_wait().expect("a child").is_none(), "the registry has ended");
        registry
    }

    fn name(&self, rest: &str) -> String {
        format!("oci://localhost:{}/{rest}", self.port)
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    fn store(&self) -> String {
        self.path("store")
    }
}

/// A port that no other test of this process was given.
fn free_port() -> u16 {
    static GIVEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        if !given.contains(&port) {
            given.push(port);
            return port;
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(program: &str, args: &[&str]) -> Vec<u8> {
    let output =
        Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

fn certificate(folder: &Path) {
    let at = |name: &str| folder.join(name).to_string_lossy().into_owned();
    run(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-keyout",
            &at("key.pem"),
            "-out",
            &at("cert.pem"),
        ],
    );
}

fn digest_of(reference: &str) -> String {
    reference.trim().rsplit_once('@').expect("a digest").1.to_owned()
}

#[test]
fn both_layouts_go_there_and_back() {
    let registry = Registry::start(false);
    let filter = guest("probe");
    let bytes = fs::read(&filter).expect("a guest");
    for (name, option) in [("team/artifact", None), ("team/image", Some("--image"))] {
        let tagged = registry.name(&format!("{name}:1.0"));
        let mut args = vec!["push", &filter, &tagged];
        args.extend(option);
        let pushed = proxy_wasm(&args).ended(0).out.trim().to_owned();
        let store = registry.store();
        let pulled = proxy_wasm(&["pull", &pushed, "--store", &store, "--json"]).ended(0).json();
        assert_eq!(
            (&pulled["reference"], &pulled["was_there"]),
            (&pushed.clone().into(), &false.into())
        );
        let path = pulled["path"].as_str().expect("a path");
        assert!(
            path.ends_with(&format!("/store/sha256/{}.wasm", &digest_of(&pushed)[7..])),
            "{path}"
        );
        assert!(fs::read(path).expect("a filter") == bytes, "{name}");
        assert_eq!(fs::read_dir(format!("{store}/partial")).expect("a folder").count(), 0);

        let by_tag = proxy_wasm(&["pull", &tagged, "--store", &store]).ended(2);
        assert!(by_tag.err.contains("--allow-tag"), "{}", by_tag.err);
        let by_tag = proxy_wasm(&["pull", &tagged, "--store", &store, "--allow-tag"]).ended(0);
        assert!(by_tag.out.starts_with(&pushed), "{}", by_tag.out);
    }
}

#[test]
fn what_is_there_needs_no_registry() {
    let registry = Registry::start(false);
    let (filter, store) = (file("examples/add-header/build/release.wasm"), registry.store());
    let pushed =
        proxy_wasm(&["push", &filter, &registry.name("add")]).ended(0).out.trim().to_owned();
    proxy_wasm(&["pull", &pushed, "--store", &store]).ended(0);
    registry.end();
    let again = proxy_wasm(&["pull", &pushed, "--store", &store, "--json"]).ended(0).json();
    assert_eq!(again["was_there"], true);
    // Other commands read the store, too.
    let mut inspect = command(&root(), &["inspect", &pushed]);
    let output = inspect.env("PROXY_WASM_STORE", &store).output().expect("the command");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let missing = pushed.replace("sha256:", "sha256:0")[..pushed.len()].to_owned();
    let answer = proxy_wasm(&["pull", &missing, "--store", &store]).ended(3);
    assert!(answer.err.contains("localhost"), "{}", answer.err);
    let output = command(&root(), &["inspect", &missing]).env("PROXY_WASM_STORE", &store).output();
    let said = String::from_utf8_lossy(&output.expect("the command").stderr).into_owned();
    assert!(said.contains("proxy-wasm pull"), "{said}");
}

impl Registry {
    /// Ends the registry; its files stay.
    fn end(&self) {
        run("kill", &[&self.child.id().to_string()]);
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
            assert!(started.elapsed() < Duration::from_secs(60), "the registry does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_password_and_tls() {
    let registry = Registry::start(true);
    let (filter, store, ca) = (guest("probe"), registry.store(), registry.path("cert.pem"));
    let name = registry.name("private/probe:1");
    let push = |extra: &[&str], password: Option<&str>, config: Option<&str>| {
        let mut args = vec!["push", &filter, &name];
        args.extend(extra);
        let mut command = command(&root(), &args);
        command.env_remove("HOME").env_remove("XDG_RUNTIME_DIR");
        if let Some(config) = config {
            command.env("DOCKER_CONFIG", config);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the command");
        let mut stdin = child.stdin.take().expect("a pipe");
        // It may end without reading.
        let _ = stdin.write_all(password.unwrap_or_default().as_bytes());
        drop(stdin);
        let output = child.wait_with_output().expect("the command");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, _, said) = push(&["--ca", &ca], None, None);
    assert!(code == Some(3) && said.contains("log in"), "{code:?} {said}");
    let login = ["--ca", &ca, "--username", "me", "--password-stdin"];
    let (code, _, said) = push(&login, Some("wrong"), None);
    assert!(code == Some(3) && said.contains("401"), "{code:?} {said}");
    let other = registry.path("other");
    fs::create_dir(&other).expect("a folder");
    certificate(Path::new(&other));
    let other = format!("{other}/cert.pem");
    let (code, _, said) =
        push(&["--ca", &other, "--username", "me", "--password-stdin"], Some("secret"), None);
    assert!(code == Some(3) && said.to_lowercase().contains("cert"), "{code:?} {said}");
    let (code, pushed, said) = push(&login, Some("secret\n"), None);
    assert_eq!(code, Some(0), "{said}");

    // The same login from docker's file.
    let config = registry.path("docker");
    fs::create_dir(&config).expect("a folder");
    let auth = "bWU6c2VjcmV0";
    let text = format!(r#"{{"auths": {{"localhost:{}": {{"auth": "{auth}"}}}}}}"#, registry.port);
    fs::write(format!("{config}/config.json"), text).expect("a file");
    let output = command(&root(), &["pull", pushed.trim(), "--ca", &ca, "--store", &store])
        .env("DOCKER_CONFIG", &config)
        .output()
        .expect("the command");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn an_interrupted_pull_is_continued() {
    let registry = Registry::start(false);
    let (filter, store) = (guest("rust_filter"), registry.store());
    let bytes = fs::read(&filter).expect("a guest");
    let pushed = proxy_wasm(&["push", &filter, &registry.name("rust")]).ended(0).out;
    let digest = proxy_wasm(&["inspect", &filter, "--json"]).ended(0).json()["digest"].clone();
    let blob = &digest.as_str().expect("a text")[7..];
    let partial = format!("{store}/partial");
    fs::create_dir_all(&partial).expect("a folder");
    for begun in [&bytes[..1000], &bytes[..], b"other bytes that were never of it"] {
        let _ = fs::remove_dir_all(format!("{store}/sha256"));
        fs::write(format!("{partial}/{blob}"), begun).expect("a file");
        let mut answer = proxy_wasm(&["pull", pushed.trim(), "--store", &store]);
        if begun.starts_with(b"other") {
            answer = answer.ended(3);
            assert!(answer.err.contains("came with the digest"), "{}", answer.err);
            answer = proxy_wasm(&["pull", pushed.trim(), "--store", &store]);
        }
        let path = answer.ended(0).out.lines().nth(1).expect("a path").to_owned();
        assert!(fs::read(path).expect("a filter") == bytes);
    }
}

#[test]
fn signatures() {
    let registry = Registry::start(false);
    let store = registry.store();
    let pushed = proxy_wasm(&["push", &guest("probe"), &registry.name("signed")]).ended(0).out;
    let (pushed, digest) = (pushed.trim(), digest_of(&pushed));
    let key = |name: &str| {
        let (private, public) =
            (registry.path(&format!("{name}.key")), registry.path(&format!("{name}.pub")));
        run("openssl", &["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &private]);
        run("openssl", &["ec", "-in", &private, "-pubout", "-out", &public]);
        (private, public)
    };
    let ((private, public), (_, other)) = (key("one"), key("two"));
    let pull = |key: &str| proxy_wasm(&["pull", pushed, "--store", &store, "--verify", key]);
    let answer = pull(&public).ended(3);
    assert!(answer.err.contains("it has no signature"), "{}", answer.err);

    // As cosign does.
    let text = format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"x"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"cosign container image signature"}},"optional":null}}"#
    );
    let payload = registry.path("payload");
    fs::write(&payload, &text).expect("a file");
    let signature = run("openssl", &["dgst", "-sha256", "-sign", &private, &payload]);
    let blob = sha256(text.as_bytes());
    let config = sha256(b"{}");
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,"digest":"{config}"}},"layers":[{{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","size":{},"digest":"{blob}","annotations":{{"dev.cosignproject.cosign/signature":"{}"}}}}]}}"#,
        text.len(),
        base64(&signature)
    );
    let base = format!("http://localhost:{}/v2/signed", registry.port);
    for (digest, bytes) in [(&blob, text.as_bytes()), (&config, b"{}")] {
        let location = run(
            "curl",
            &["-sS", "-X", "POST", "-D", "-", "-o", "/dev/null", &format!("{base}/blobs/uploads/")],
        );
        let location = String::from_utf8(location).expect("headers");
        let location = location
            .lines()
            .find_map(|l| l.strip_prefix("Location: "))
            .expect("a location")
            .trim()
            .to_owned();
        put(&format!("{location}&digest={digest}"), "application/octet-stream", bytes);
    }
    let tag = digest.replace(':', "-");
    put(
        &format!("{base}/manifests/{tag}.sig"),
        "application/vnd.oci.image.manifest.v1+json",
        manifest.as_bytes(),
    );
    pull(&public).ended(0);
    assert!(pull(&other).ended(3).err.contains("no signature of it was made with that key"));
    let (_folder, none) = temporary("key.pub", "no key");
    assert!(pull(&none).ended(2).err.contains("BEGIN PUBLIC KEY"));
}

fn put(url: &str, kind: &str, bytes: &[u8]) {
    let (_folder, name) = temporary("body", bytes);
    run(
        "curl",
        &[
            "-sSf",
            "-X",
            "PUT",
            "-H",
            &format!("Content-Type: {kind}"),
            "--data-binary",
            &format!("@{name}"),
            url,
        ],
    );
}

fn sha256(bytes: &[u8]) -> String {
    let (_folder, name) = temporary("bytes", bytes);
    let said = String::from_utf8(run("sha256sum", &[&name])).expect("a digest");
    format!("sha256:{}", &said[..64])
}

fn base64(bytes: &[u8]) -> String {
    let (_folder, name) = temporary("bytes", bytes);
    String::from_utf8(run("base64", &["-w0", &name])).expect("text")
}

#[test]
fn bad_references_and_registries() {
    let filter = guest("probe");
    for (args, code, cause) in [
        (vec!["pull", "nonsense"], 2, "has no /"),
        (vec!["pull", "oci://h/A"], 2, "bad name"),
        (vec!["pull", "oci://h/a@sha256:12"], 2, "no digest"),
        (vec!["pull", "oci://localhost:1/a", "--allow-tag"], 3, "localhost:1"),
        (vec!["push", "/no/file", "oci://localhost:1/a"], 2, "/no/file"),
        (vec!["push", &filter, "oci://localhost:1/a"], 3, "localhost:1"),
        (vec!["push", &filter, "oci://localhost:1/a", "--password-stdin"], 2, "--username"),
        (vec!["pull", "oci://localhost:1/a", "--allow-tag", "--ca", "/no/ca"], 2, "/no/ca"),
    ] {
        let answer = proxy_wasm(&args).ended(code);
        assert!(answer.err.contains(cause), "{args:?}: {}", answer.err);
    }
    let (_folder, text) = temporary("a.wasm", "text");
    assert!(
        proxy_wasm(&["push", &text, "oci://localhost:1/a"])
            .ended(2)
            .err
            .contains("not a WebAssembly module")
    );
}
