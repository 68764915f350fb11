//! `./build.sh install`: what goes where, and that it leaves the files of other modules alone.

use super::support::{Nginx, library, root};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A checkout of which only what `install` takes is there, and a library that was built before.
struct Checkout {
    dir: TempDir,
}

/// What a run said, and whether it succeeded.
struct Said {
    ok: bool,
    text: String,
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).expect("a folder");
        for entry in fs::read_dir(from).expect("a folder") {
            let entry = entry.expect("an entry");
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        fs::copy(from, to).expect("a file");
    }
}

impl Checkout {
    fn new() -> Checkout {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("checkout");
        fs::create_dir(&path).expect("a folder");
        for name in ["build.sh", "lib", "include", "packaging", "tools"] {
            copy(&root().join(name), &path.join(name));
        }
        fs::create_dir_all(path.join("target/release")).expect("a folder");
        fs::write(path.join("target/release/libresty_proxy_wasm.so"), library()).expect("a file");
        // Building is not what is tested.
        fs::create_dir(dir.path().join("bin")).expect("a folder");
        for name in ["cargo", "cc"] {
            let stub = dir.path().join("bin").join(name);
            fs::write(&stub, "#!/bin/sh\n").expect("a file");
            fs::set_permissions(&stub, fs::Permissions::from_mode(0o755)).expect("a mode");
        }
        fs::write(path.join("tools/target-dir"), "#!/bin/sh\necho target\n").expect("a file");
        Checkout { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn install(&self, arguments: &[&str], environment: &[(&str, &Path)]) -> Said {
        let stubs = self.path("bin").display().to_string();
        let path = std::env::var("PATH").expect("a path");
        let run = Command::new(self.path("checkout/build.sh"))
            .arg("install")
            .args(arguments)
            .env("PATH", format!("{stubs}:{path}"))
            .envs(environment.iter().copied())
            .output()
            .expect("a script");
        let text = [run.stdout, run.stderr].concat();
        Said { ok: run.status.success(), text: String::from_utf8(text).expect("text") }
    }
}

/// Another module's file of that name, which knows nothing of ours.
const OTHER: &str = "local _M = {}\nfunction _M.load(name, path)\nend\nreturn _M\n";

#[test]
fn below_openresty_and_below_others() {
    let checkout = Checkout::new();
    let (openresty, plain) = (checkout.path("openresty"), checkout.path("plain"));
    fs::create_dir_all(openresty.join("lualib")).expect("a folder");
    for (prefix, lua, lib) in
        [(&openresty, "lualib", "lualib"), (&plain, "share/lua/5.1", "lib/lua/5.1")]
    {
        // The second time over what the first has put there.
        for _ in 0..2 {
            let said = checkout.install(&[prefix.to_str().expect("text")], &[]);
            assert!(said.ok, "{}", said.text);
            assert!(!said.text.contains("another module"), "{}", said.text);
        }
        let files = [
            format!("{lib}/libresty_proxy_wasm.so"),
            format!("{lua}/resty/proxy-wasm.lua"),
            format!("{lua}/resty/proxy-wasm/clib.lua"),
            format!("{lua}/resty/proxy-wasm/http/chain.lua"),
            "include/resty_proxy_wasm.h".into(),
        ];
        for file in files {
            assert!(prefix.join(&file).is_file(), "{file}");
        }
    }
    let nginx = Nginx::new()
        .http(&format!(
            "lua_package_path '{0}/lualib/?.lua;;';\nlua_package_cpath '{0}/lualib/?.so;;';\n",
            openresty.display()
        ))
        .server(
            "location /t { content_by_lua_block { ngx.print(require('resty.proxy-wasm')._NAME) } }",
        )
        .start();
    assert_eq!(nginx.get("/t").text(), "lua-resty-proxy-wasm");
}

#[test]
fn files_of_another_module_are_left_alone() {
    let names = [
        "lualib/resty/proxy-wasm.lua",
        "lualib/resty/proxy-wasm/clib.lua",
        "lualib/resty/proxy-wasm/http/chain.lua",
        "lualib/libresty_proxy_wasm.so",
        "include/resty_proxy_wasm.h",
    ];
    for name in names {
        let checkout = Checkout::new();
        let prefix = checkout.path("openresty");
        let file = prefix.join(name);
        fs::create_dir_all(prefix.join("lualib")).expect("a folder");
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        fs::write(&file, OTHER).expect("a file");
        let count = || walk(&prefix).len();
        let prefix_text = prefix.to_str().expect("text");

        let said = checkout.install(&[prefix_text], &[]);
        let told = format!("another module has installed {}\n", file.display());
        assert!(!said.ok && said.text.contains(&told), "{}", said.text);
        assert!(said.text.contains("nothing was installed"), "{}", said.text);
        assert!(said.text.contains("--force"), "{}", said.text);
        assert_eq!((fs::read_to_string(&file).expect("a file").as_str(), count()), (OTHER, 1));

        for arguments in [["--force", prefix_text], [prefix_text, "--force"]] {
            for installed in walk(&prefix) {
                fs::remove_file(installed).expect("a file");
            }
            fs::write(&file, OTHER).expect("a file");
            let said = checkout.install(&arguments, &[]);
            assert!(said.ok && said.text.contains(&told), "{}", said.text);
            assert_ne!(fs::read(&file).expect("a file"), OTHER.as_bytes());
        }

        // The upgrade of a package has brought the other file back.
        if name.ends_with("resty/proxy-wasm.lua") {
            fs::write(&file, OTHER).expect("a file");
            assert!(!checkout.install(&[prefix_text], &[]).ok);
        }
    }
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn packagers_are_told_too() {
    let checkout = Checkout::new();
    let stage = checkout.path("stage");
    let (lua, lib) = (Path::new("/x/lua"), Path::new("/x/lib"));
    let environment = [("DESTDIR", stage.as_path()), ("LUADIR", lua), ("LIBDIR", lib)];
    assert!(checkout.install(&[], &environment).ok);
    let file = stage.join("x/lua/resty/proxy-wasm.lua");
    assert!(file.is_file() && stage.join("x/lib/libresty_proxy_wasm.so").is_file());
    fs::write(&file, OTHER).expect("a file");
    let said = checkout.install(&[], &environment);
    assert!(!said.ok && said.text.contains(&file.display().to_string()), "{}", said.text);
}

#[test]
fn removal_leaves_nothing_but_files_of_others() {
    let checkout = Checkout::new();
    let prefix = checkout.path("plain");
    let prefix_text = prefix.to_str().expect("text");
    assert!(checkout.install(&[prefix_text], &[]).ok);
    let other = prefix.join("share/lua/5.1/resty/other.lua");
    fs::write(&other, OTHER).expect("a file");
    let said = checkout.install(&["--remove", prefix_text], &[]);
    assert!(said.ok && said.text.contains("removed "), "{}", said.text);
    assert_eq!(walk(&prefix), [other]);

    // Another module's file of one of our names.
    assert!(checkout.install(&[prefix_text], &[]).ok);
    let foreign = prefix.join("include/resty_proxy_wasm.h");
    fs::write(&foreign, OTHER).expect("a file");
    assert!(checkout.install(&["--remove", prefix_text], &[]).ok);
    assert_eq!(walk(&prefix).len(), 2);
    assert!(foreign.is_file());
}

#[test]
fn wrong_arguments() {
    let checkout = Checkout::new();
    for (arguments, text) in [
        (&["--forced"][..], "install takes --force, --remove and a PREFIX, not --forced"),
        (&["/a", "/b"], "install takes one PREFIX, not /a and /b"),
    ] {
        let said = checkout.install(arguments, &[]);
        assert!(!said.ok && said.text.contains(text), "{}", said.text);
    }
}
