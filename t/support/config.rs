//! What a test asks of its nginx, and the configuration file made from it.

use super::process::{self, Limit, Process, valgrind};
use super::{Running, root};
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use tempfile::TempDir;

/// An nginx to be started: one worker, everything in a directory of its own, which is also its working directory, so
/// that Lua opens a file put there by its bare name.
pub(crate) struct Nginx {
    prefix: TempDir,
    main: String,
    http: String,
    server: String,
    whole: Option<String>,
    log_level: String,
    daemon: bool,
    workers: usize,
    connections: usize,
    user: Option<String>,
    env: Vec<(String, String)>,
    limits: Vec<Limit>,
}

/// How nginx before 1.29.7 speaks to upstreams. Later ones speak HTTP/1.1 and keep connections unless told otherwise, and
/// upstreams of tests show what they get.
const PROXY: &str = "proxy_http_version 1.0;\nproxy_set_header Connection close;\n";

/// The absolute path of a guest committed in `t/guests/build`.
pub(crate) fn guest(name: &str) -> String {
    let path = root().join("t/guests/build").join(format!("{name}.wasm"));
    assert!(path.exists(), "no guest {}: see t/guests/README.md", path.display());
    path.display().to_string()
}

impl Nginx {
    pub(crate) fn new() -> Nginx {
        let prefix = tempfile::Builder::new().prefix("rpw-t-").tempdir().expect("a directory");
        for dir in ["conf", "html", "logs", "tmp"] {
            fs::create_dir(prefix.path().join(dir)).expect("a directory");
        }
        Nginx {
            prefix,
            main: String::new(),
            http: String::new(),
            server: String::new(),
            whole: None,
            log_level: "info".into(),
            daemon: false,
            workers: 1,
            connections: 256,
            user: None,
            env: Vec::new(),
            limits: Vec::new(),
        }
    }

    /// Directives outside of any block.
    pub(crate) fn main(mut self, text: &str) -> Nginx {
        self.main += text;
        self
    }

    /// Directives of the http block. `lua_package_path` and `lua_package_cpath` name this repository's library unless
    /// the text sets them itself.
    pub(crate) fn http(mut self, text: &str) -> Nginx {
        self.http += text;
        self
    }

    /// Directives of the server that [`Running::get`] and the like reach.
    pub(crate) fn server(mut self, text: &str) -> Nginx {
        self.server += text;
        self
    }

    /// The whole configuration instead of one made of pieces; `PORT` in it stands for the port.
    pub(crate) fn whole(mut self, text: &str) -> Nginx {
        self.whole = Some(text.into());
        self
    }

    /// The level of the error log; the default is `info`, where the lines of a guest's `info` show.
    pub(crate) fn log_level(mut self, level: &str) -> Nginx {
        self.log_level = level.into();
        self
    }

    /// With true, nginx forks into the background, as most installations run it.
    pub(crate) fn daemon(mut self, on: bool) -> Nginx {
        self.daemon = on;
        self
    }

    pub(crate) fn workers(mut self, count: usize) -> Nginx {
        self.workers = count;
        self
    }

    /// What `worker_connections` says, for tests that need more than a few.
    pub(crate) fn connections(mut self, count: usize) -> Nginx {
        self.connections = count;
        self
    }

    /// The user that workers run as; for tests that root runs. Everyone can read what the test put into its directory.
    pub(crate) fn user(mut self, name: &str) -> Nginx {
        fs::set_permissions(self.prefix.path(), Permissions::from_mode(0o755)).expect("a mode");
        self.user = Some(name.into());
        self
    }

    /// A variable of nginx's environment; Lua in a worker sees it only with nginx's `env` directive.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Nginx {
        self.env.push((name.into(), value.into()));
        self
    }

    /// A limit of the process, as of `ulimit`: `libc::RLIMIT_STACK` and bytes.
    pub(crate) fn limit(mut self, resource: libc::__rlimit_resource_t, bytes: u64) -> Nginx {
        self.limits.push((resource, bytes));
        self
    }

    /// Adds a server that answers with the request that it got, head and body, at `http://unix:echo.sock`.
    pub(crate) fn echo(self) -> Nginx {
        self.http(
            r#"
            server {
                listen unix:echo.sock;
                client_max_body_size 0;
                client_body_buffer_size 64m;
                location / {
                    content_by_lua_block {
                        ngx.req.read_body()
                        ngx.print(ngx.req.raw_header(), ngx.req.get_body_data() or "")
                    }
                }
            }
            "#,
        )
    }

    /// Makes the server speak HTTP/2 without TLS at a socket, which [`Curl::http2`] goes to.
    pub(crate) fn http2(self) -> Nginx {
        self.server(&listen_http2("unix:h2.sock"))
    }

    /// Puts a file below the working directory.
    pub(crate) fn file(self, name: &str, content: impl AsRef<[u8]>) -> Nginx {
        let path = self.prefix.path().join(name);
        fs::create_dir_all(path.parent().expect("inside the prefix")).expect("a directory");
        fs::write(path, content).expect("a file");
        self
    }

    /// Puts `t/guests/build/NAME.wasm` into the working directory as `NAME.wasm`.
    pub(crate) fn guest(self, name: &str) -> Nginx {
        let content = fs::read(guest(name)).expect("a guest");
        self.file(&format!("{name}.wasm"), content)
    }

    /// Compiles `t/guests/wat/NAME.wat` into the working directory as `NAME.wasm`.
    pub(crate) fn wat(self, name: &str) -> Nginx {
        let path = root().join("t/guests/wat").join(format!("{name}.wat"));
        let binary = wat::parse_file(&path).unwrap_or_else(|error| panic!("{error}"));
        self.file(&format!("{name}.wasm"), binary)
    }

    /// Compiles a module given as text into the working directory as `NAME.wasm`.
    pub(crate) fn wat_text(self, name: &str, text: &str) -> Nginx {
        let binary = wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"));
        self.file(&format!("{name}.wasm"), binary)
    }

    /// Puts a copy of this repository's Lua files below a folder of the working directory.
    pub(crate) fn lua_files(mut self, folder: &str) -> Nginx {
        let lib = root().join("lib");
        for part in ["resty", "resty/proxy-wasm", "resty/proxy-wasm/http", "resty/proxy-wasm/jobs"]
        {
            for entry in fs::read_dir(lib.join(part)).expect("a directory") {
                let path = entry.expect("a file").path();
                if path.is_file() {
                    let name = path.strip_prefix(&lib).expect("a file in it").display();
                    let content = fs::read(&path).expect("a file");
                    self = self.file(&format!("{folder}/{name}"), content);
                }
            }
        }
        self
    }

    /// Starts nginx and waits until its workers are there.
    pub(crate) fn start(self) -> Running {
        // Another process may take the port between the look and nginx's bind.
        for _ in 0..3 {
            let process = self.launch();
            if let Err(status) = process.wait_ready(self.workers) {
                let log = process.log().text();
                if log.contains("Address already in use") {
                    fs::remove_file(process.log().path()).expect("a log");
                    continue;
                }
                panic!("nginx did not start ({status}):\n{log}{}", process.said());
            }
            return Running::new(process, self.prefix);
        }
        panic!("no free port found");
    }

    /// Starts an nginx whose configuration is meant to be refused; returns what it logged.
    pub(crate) fn start_fails(self) -> String {
        let process = self.launch();
        match process.wait_ready(self.workers) {
            Ok(()) => panic!("nginx started with a configuration that it should refuse"),
            Err(_) => process.log().text() + &process.said(),
        }
    }

    fn launch(&self) -> Process {
        let port = process::free_port();
        let conf = match &self.whole {
            Some(text) => text.replace("PORT", &port.to_string()),
            None => self.render(port),
        };
        fs::write(self.prefix.path().join("conf/nginx.conf"), conf).expect("a file");
        Process::spawn(self.prefix.path(), port, &self.env, &self.limits, self.daemon)
    }

    fn render(&self, port: u16) -> String {
        let mut conf = preamble();
        if let Some(user) = &self.user {
            conf = conf.replace("user root;", &format!("user {user};"));
        }
        let daemon = if self.daemon { "on" } else { "off" };
        let Nginx { main, http, server, log_level, workers, connections, .. } = self;
        write!(
            conf,
            "daemon {daemon};\n\
             worker_processes {workers};\n\
             pid logs/nginx.pid;\n\
             error_log logs/error.log {log_level};\n\
             {main}\n\
             events {{ worker_connections {connections}; }}\n\
             http {{\n\
             access_log off;\n\
             {PROXY}"
        )
        .expect("a string");
        if valgrind() {
            // nginx as one process does not wait for requests that linger when it is told to quit.
            conf += "lingering_close off;\n";
        }
        for dir in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            writeln!(conf, "{dir}_temp_path tmp/{dir};").expect("a string");
        }
        for (directive, value) in lua_paths() {
            if !http.contains(directive) {
                writeln!(conf, "{directive} \"{value}\";").expect("a string");
            }
        }
        write!(conf, "{http}\nserver {{\nlisten 127.0.0.1:{port};\n{server}\n}}\n}}\n")
            .expect("a string");
        conf
    }
}

/// What every configuration begins with on this machine: the modules that nginx needs for Lua, say.
pub(crate) fn preamble() -> String {
    static PREAMBLE: OnceLock<String> = OnceLock::new();
    PREAMBLE
        .get_or_init(|| {
            let lines = Command::new(root().join("tools/nginx-preamble"))
                .arg(process::nginx())
                .output()
                .expect("tools/nginx-preamble");
            let complaint = String::from_utf8_lossy(&lines.stderr);
            assert!(lines.status.success(), "{complaint}");
            let mut text = String::from_utf8(lines.stdout).expect("text");
            if valgrind() {
                text += "master_process off;\n";
            }
            text
        })
        .clone()
}

/// Where Lua finds this repository's library, by nginx directive.
pub(crate) fn lua_paths() -> [(&'static str, String); 2] {
    [
        ("lua_package_path", format!("{}/lib/?.lua;;", root().display())),
        ("lua_package_cpath", format!("{}/?.so;;", library_dir().display())),
    ]
}

/// Directives of a server that speaks HTTP/2 at an address, in the words of the nginx that there is.
pub(crate) fn listen_http2(address: &str) -> String {
    static IN_LISTEN: OnceLock<bool> = OnceLock::new();
    let in_listen = IN_LISTEN.get_or_init(|| version() < (1, 25, 1));
    if *in_listen {
        format!("listen {address} http2;\n")
    } else {
        format!("listen {address};\nhttp2 on;\n")
    }
}

/// Whether this nginx accepts these directives outside of any block.
pub(crate) fn nginx_takes(directives: &str) -> bool {
    let prefix = tempfile::tempdir().expect("a directory");
    fs::create_dir(prefix.path().join("logs")).expect("a directory");
    let conf = format!("{}pid logs/nginx.pid;\nevents {{}}\n{directives}\n", preamble());
    fs::write(prefix.path().join("nginx.conf"), conf).expect("a file");
    let mut command = Command::new(process::nginx());
    command.arg("-p").arg(prefix.path()).args(["-t", "-q", "-c", "nginx.conf", "-e", "stderr"]);
    command.output().expect("nginx -t").status.success()
}

/// nginx's version.
pub(crate) fn version() -> (u32, u32, u32) {
    let said = Command::new(process::nginx()).arg("-v").output().expect("nginx -v").stderr;
    let said = String::from_utf8_lossy(&said).into_owned();
    let (_, version) = said.trim().split_once('/').expect("a version");
    let mut parts =
        version.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok());
    let mut part = || parts.next().unwrap_or(0);
    (part(), part(), part())
}

/// The library that tests use.
pub(crate) fn library() -> Vec<u8> {
    fs::read(library_dir().join("libresty_proxy_wasm.so")).expect("the library")
}

/// Cargo builds the shared library beside this test's executable, in `deps`, whenever it builds the test. The copy one
/// level up is renewed by `cargo build` only and may be stale.
fn library_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("RPW_LIBRARY_DIR") {
        return dir.into();
    }
    let executable = std::env::current_exe().expect("this executable");
    let dir = executable.parent().expect("a directory");
    let library = dir.join("libresty_proxy_wasm.so");
    assert!(library.exists(), "no {}: run `./build.sh test`, or `cargo build`", library.display());
    Path::to_path_buf(dir)
}
