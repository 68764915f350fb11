//! `setup` and the folder of compiled modules.

use super::support::{Nginx, Running};
use std::fs::{self, DirEntry, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A user that owns nothing that a test makes.
const OTHER: u32 = 65534;

fn is_root() -> bool {
    // SAFETY: it only answers.
    unsafe { libc::geteuid() == 0 }
}

/// `init` runs in init_by_lua, its results are at `/init`; `/load?file=` loads a module that nothing holds afterwards.
fn nginx(init: &str) -> Nginx {
    Nginx::new()
        .http(&format!(
            r#"
            init_by_lua_block {{
                wasm = require("resty.proxy-wasm")
                local function init() {init} end
                said = tostring((select(2, init())))
            }}
            "#
        ))
        .server(
            r#"
            location /init { content_by_lua_block { ngx.print(said) } }
            location /load {
                content_by_lua_block {
                    local ctx = assert(wasm.on_configure(assert(wasm.load("it", ngx.var.arg_file))))
                    assert(wasm.on_http_request_headers(ctx))
                    ctx = nil
                    collectgarbage()
                    collectgarbage()
                    ngx.print("loaded")
                }
            }
            "#,
        )
        .wat("bare")
        .wat("start_section_log")
}

fn cached(dir: &Path) -> Nginx {
    nginx(&format!("return wasm.setup({{ cache_dir = \"{}\" }})", dir.display()))
}

fn load(nginx: &Running, name: &str) {
    assert_eq!(nginx.get(&format!("/load?file={name}.wasm")).text(), "loaded");
}

/// What the log says of the plugin, times left out.
fn told(nginx: &Running) -> Vec<String> {
    let texts = nginx.log_texts("wasm plugin \"it\": ");
    let without_time = |text: &String| match text.split_once(" in ") {
        Some((text, time)) if time.ends_with(" ms") => text.to_string(),
        _ => text.clone(),
    };
    texts.iter().map(without_time).collect()
}

const COMPILED: &str = "compiled";
const SHARED: &str = "shared with another process";
const TAKEN: &str = "taken from cache_dir";

/// A folder that can be made into the cache's.
fn place() -> (TempDir, PathBuf) {
    let parent = tempfile::tempdir().expect("a directory");
    let dir = parent.path().join("cache");
    (parent, dir)
}

fn files(dir: &Path) -> Vec<DirEntry> {
    fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry")).collect()
}

/// The one entry.
fn entry(dir: &Path) -> PathBuf {
    let files = files(dir);
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].path()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").mode() & 0o7777
}

#[test]
fn the_next_start_compiles_nothing() {
    let (_parent, dir) = place();
    let cold = cached(&dir).start();
    assert_eq!(cold.get("/init").text(), "nil");
    load(&cold, "bare");
    load(&cold, "bare");
    assert_eq!(told(&cold), [COMPILED, TAKEN]);
    cold.finish();
    let file = entry(&dir);
    assert_eq!((mode(&dir), mode(&file)), (0o755, 0o644));
    let written = fs::metadata(&file).expect("a file").ino();

    let warm = cached(&dir).start();
    load(&warm, "bare");
    load(&warm, "start_section_log");
    load(&warm, "start_section_log");
    assert_eq!(told(&warm), [TAKEN, COMPILED, TAKEN]);
    assert_eq!(fs::metadata(&file).expect("a file").ino(), written);
    assert_eq!(files(&dir).len(), 2);
}

#[test]
fn without_a_folder_nothing_is_kept() {
    let nginx = nginx("return wasm.setup({})").start();
    load(&nginx, "bare");
    load(&nginx, "bare");
    assert_eq!(told(&nginx), [COMPILED, COMPILED]);
    assert_eq!(nginx.get("/init").text(), "nil");
}

#[test]
fn what_a_new_configuration_does_not_set_is_not_set() {
    let (_parent, dir) = place();
    let nginx = nginx(&format!(
        r#"if not io.open("without") then return wasm.setup({{ cache_dir = "{}" }}) end"#,
        dir.display()
    ))
    .start();
    load(&nginx, "bare");
    nginx.reload();
    load(&nginx, "bare");
    fs::write(nginx.path("without"), "").expect("a file");
    nginx.reload();
    load(&nginx, "bare");
    assert_eq!(told(&nginx), [COMPILED, TAKEN, COMPILED]);
}

/// `setup` refuses this folder with this cause, and nginx continues without it.
fn refused(dir: &Path, shown: &Path, cause: &str) {
    let nginx = cached(dir).start();
    let expected = format!("failed to set cache_dir: {} {cause}", shown.display());
    assert_eq!(nginx.get("/init").text(), expected);
    load(&nginx, "bare");
    assert_eq!(told(&nginx), [COMPILED]);
}

#[test]
fn folders_that_are_refused() {
    let (parent, dir) = place();
    let no_parent = dir.join("below");
    refused(&no_parent, &no_parent, "cannot be made: No such file or directory (os error 2)");

    fs::write(&dir, "").expect("a file");
    refused(&dir, &dir, "is not a folder");
    fs::remove_file(&dir).expect("a file");

    let real = parent.path().join("real");
    fs::create_dir(&real).expect("a folder");
    symlink(&real, &dir).expect("a link");
    let link = "is a symbolic link: name the folder itself";
    refused(&dir, &dir, link);
    refused(&dir.join(""), &dir, link);
    refused(&dir.join("."), &dir, link);
    fs::remove_file(&dir).expect("a link");

    for mode in [0o770, 0o777, 0o1702, 0o720] {
        fs::set_permissions(&real, Permissions::from_mode(mode)).expect("a mode");
        let cause = format!("can be written to by others (mode {mode:03o}): chmod go-w");
        refused(&real, &real, &cause);
    }
    fs::set_permissions(&real, Permissions::from_mode(0o755)).expect("a mode");
    cached(&real).start().finish();
    assert_eq!(mode(&real), 0o755);
    assert_eq!(files(&real).len(), 0);

    if is_root() {
        chown(&real, Some(OTHER), None).expect("an owner");
        refused(&real, &real, "belongs to user 65534, and this process runs as user 0");
    }
}

type Spoil<'a> = Box<dyn Fn() + 'a>;

#[test]
fn entries_that_are_not_trusted_are_replaced() {
    let (_parent, dir) = place();
    let nginx = cached(&dir).start();
    load(&nginx, "bare");
    let file = entry(&dir);
    let good = fs::read(&file).expect("a file");
    let mut spoils: Vec<(Spoil<'_>, &str)> = vec![
        (
            Box::new(|| {
                let mut bytes = good.clone();
                bytes[good.len() / 2] ^= 1;
                fs::write(&file, bytes).expect("a file");
            }),
            "is damaged: its digest is another",
        ),
        (Box::new(|| fs::write(&file, &good[..good.len() - 1]).expect("a file")), "is cut off"),
        (Box::new(|| fs::write(&file, "").expect("a file")), "is cut off"),
        (
            Box::new(|| {
                fs::set_permissions(&file, Permissions::from_mode(0o620)).expect("a mode");
            }),
            "can be written to by others (mode 620): chmod go-w",
        ),
        (
            Box::new(|| {
                let moved = dir.join("moved");
                fs::rename(&file, &moved).expect("a file");
                symlink(&moved, &file).expect("a link");
            }),
            "is a symbolic link",
        ),
    ];
    if is_root() {
        spoils.push((
            Box::new(|| chown(&file, Some(OTHER), None).expect("an owner")),
            "belongs to user 65534, and this process runs as user 0",
        ));
    }
    let mut expected = vec![COMPILED.to_string()];
    for (spoil, cause) in spoils {
        spoil();
        load(&nginx, "bare");
        let warning =
            format!("cache entry {} {cause}; the module was compiled again", file.display());
        nginx.expect_log(&warning);
        expected.extend([warning, COMPILED.into()]);
        assert_eq!(told(&nginx), expected);
        load(&nginx, "bare");
        expected.push(TAKEN.into());
        assert_eq!(told(&nginx), expected);
        let meta = fs::symlink_metadata(&file).expect("a file");
        assert!(meta.is_file() && meta.mode() & 0o7777 == 0o644);
    }
}

#[test]
fn a_folder_that_fails_later_is_warned_of_once() {
    let (_parent, dir) = place();
    let nginx = cached(&dir).workers(2).start();
    load(&nginx, "bare");
    let file = entry(&dir);
    // A folder cannot be replaced by a file.
    fs::remove_file(&file).expect("a file");
    fs::create_dir(&file).expect("a folder");
    nginx.reload();
    for _ in 0..3 {
        load(&nginx, "bare");
    }
    fs::remove_dir_all(&dir).expect("a folder");
    nginx.reload();
    fs::remove_dir_all(&dir).expect("a folder that the reload made");
    for _ in 0..20 {
        load(&nginx, "bare");
    }
    let told = told(&nginx);
    let name = file.file_name().expect("a name").to_str().expect("text");
    for (cause, most) in [
        (format!(" cannot take {name}: Is a directory (os error 21)"), 2),
        (" cannot be opened: No such file or directory (os error 2)".into(), 2),
    ] {
        let warning =
            format!("cache_dir {}{cause}; modules are compiled without it", dir.display());
        nginx.expect_log(&warning);
        let count = told.iter().filter(|line| **line == warning).count();
        assert!((1..=most).contains(&count), "{warning}: {told:?}");
    }
    nginx.expect_log("is not a file; the module was compiled again");
    // Code that another worker still has is taken from there.
    let ready = told.iter().filter(|line| [COMPILED, SHARED].contains(&line.as_str()));
    assert_eq!(ready.count(), 24);
}

/// A root master whose workers run as another user; `master` is what it loads.
fn workers_of_another_user(dir: &Path, user: &str, master: &str) -> Nginx {
    nginx(&format!(
        r#"
        -- As in a shell with `umask 077`: it must not close the folder to workers.
        ffi = require("ffi")
        ffi.cdef("unsigned umask(unsigned)")
        local before = ffi.C.umask(63)
        assert(wasm.setup({{ cache_dir = "{}" }}))
        for _, name in ipairs({{ {master} }}) do
            assert(wasm.load("master's", name .. ".wasm"))
        end
        -- Not kept in memory, where workers would find it.
        collectgarbage()
        collectgarbage()
        ffi.C.umask(before)
        "#,
        dir.display()
    ))
    .user(user)
}

/// A folder in a parent that all may enter; None when this user cannot start workers of another one.
fn open_place() -> Option<(TempDir, PathBuf)> {
    let (parent, dir) = is_root().then(place)?;
    fs::set_permissions(parent.path(), Permissions::from_mode(0o755)).expect("a mode");
    Some((parent, dir))
}

fn only_read(dir: &Path, user: u32) -> String {
    format!(
        "cache_dir {} belongs to user 0, so this process (user {user}) only reads it: a module that is not in it is \
         compiled in each worker; a master of user 0 keeps those that init_by_lua loads",
        dir.display()
    )
}

#[test]
fn workers_of_another_user_take_what_their_master_compiled() {
    for (user, id) in [("daemon", 1), ("nobody nogroup", OTHER)] {
        let Some((_parent, dir)) = open_place() else { return };
        let nginx = workers_of_another_user(&dir, user, "'bare'").start();
        load(&nginx, "bare");
        assert_eq!(told(&nginx), [TAKEN]);
        // It can add nothing, and says so once.
        for name in ["start_section_log", "bare", "start_section_log"] {
            load(&nginx, name);
        }
        nginx.expect_log(&only_read(&dir, id));
        assert_eq!(told(&nginx), [TAKEN, &only_read(&dir, id), COMPILED, TAKEN, COMPILED]);
        assert_eq!((mode(&dir), mode(&entry(&dir))), (0o755, 0o644));
        assert_eq!(fs::metadata(entry(&dir)).expect("a file").uid(), 0);
        nginx.finish();

        let again = workers_of_another_user(&dir, user, "'bare', 'start_section_log'").start();
        for name in ["start_section_log", "bare"] {
            load(&again, name);
        }
        assert_eq!(told(&again), [TAKEN, TAKEN]);
        assert_eq!(files(&dir).len(), 2);
    }
}

#[test]
fn a_folder_that_the_workers_may_not_read_is_left_as_it_is() {
    let Some((_parent, dir)) = open_place() else { return };
    fs::create_dir(&dir).expect("a folder");
    fs::set_permissions(&dir, Permissions::from_mode(0o700)).expect("a mode");
    let nginx = workers_of_another_user(&dir, "daemon", "'bare'").start();
    for name in ["bare", "bare", "start_section_log"] {
        load(&nginx, name);
    }
    let warning = format!(
        "cache_dir {} cannot be opened by user 1: Permission denied (os error 13): chmod go+rx; \
         modules are compiled without it",
        dir.display()
    );
    nginx.expect_log(&warning);
    assert_eq!(told(&nginx), [warning.as_str(), COMPILED, COMPILED, COMPILED]);
    assert_eq!((mode(&dir), files(&dir).len()), (0o700, 1));
    fs::set_permissions(&dir, Permissions::from_mode(0o755)).expect("a mode");
    load(&nginx, "bare");
    assert_eq!(told(&nginx)[4..], [TAKEN]);
}

#[test]
fn what_a_worker_could_have_written_is_not_run() {
    let Some((_parent, dir)) = open_place() else { return };
    let nginx = workers_of_another_user(&dir, "daemon", "'bare'").start();
    load(&nginx, "bare");
    let file = entry(&dir);
    let spoils: [(Spoil<'_>, &str); 4] = [
        (
            Box::new(|| chown(&file, Some(1), None).expect("an owner")),
            "belongs to user 1, and not to user 0",
        ),
        (
            Box::new(|| chown(&file, Some(2), None).expect("an owner")),
            "belongs to user 2, and this process runs as user 1",
        ),
        (
            Box::new(|| {
                chown(&file, Some(0), None).expect("an owner");
                fs::set_permissions(&file, Permissions::from_mode(0o664)).expect("a mode");
            }),
            "can be written to by others (mode 664): chmod go-w",
        ),
        (
            Box::new(|| {
                fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("a mode");
            }),
            "cannot be opened by user 1: Permission denied (os error 13): chmod go+r",
        ),
    ];
    let mut expected = vec![TAKEN.to_string()];
    for (i, (spoil, cause)) in spoils.iter().enumerate() {
        spoil();
        load(&nginx, "bare");
        let name = file.display();
        let warning = format!("cache entry {name} {cause}; the module was compiled again");
        nginx.expect_log(&warning);
        expected.push(warning);
        if i == 0 {
            nginx.expect_log(&only_read(&dir, 1));
            expected.push(only_read(&dir, 1));
        }
        expected.push(COMPILED.into());
        assert_eq!(told(&nginx), expected);
    }
}

#[test]
fn a_folder_in_the_place_of_the_masters_is_not_used() {
    let Some((parent, dir)) = open_place() else { return };
    let nginx = workers_of_another_user(&dir, "daemon", "'bare'").start();
    let moved = parent.path().join("moved");
    fs::rename(&dir, &moved).expect("a folder");
    fs::create_dir(&dir).expect("a folder");
    fs::copy(entry(&moved), dir.join(entry(&moved).file_name().expect("a name"))).expect("a file");
    for path in [&dir, &entry(&dir)] {
        chown(path, Some(1), None).expect("an owner");
    }
    load(&nginx, "bare");
    let warning = format!(
        "cache_dir {} belongs to user 1, and not to user 0; modules are compiled without it",
        dir.display()
    );
    nginx.expect_log(&warning);
    assert_eq!(told(&nginx), [warning.as_str(), COMPILED]);
}

#[test]
fn wrong_calls_of_setup_raise_an_error_where_they_are() {
    let cases = [
        ("", "bad argument #1 to 'setup' (table expected, got nil)"),
        ("'x'", "bad argument #1 to 'setup' (table expected, got string)"),
        ("{ cache = '/x' }", "bad argument #1 to 'setup' (unknown key \"cache\")"),
        ("{ '/x' }", "bad argument #1 to 'setup' (unknown key \"1\")"),
        ("{ cache_dir = true }", "bad argument #1 to 'setup' (cache_dir must be an absolute path)"),
        ("{ cache_dir = 'x' }", "bad argument #1 to 'setup' (cache_dir must be an absolute path)"),
        ("{ cache_dir = '' }", "bad argument #1 to 'setup' (cache_dir must be an absolute path)"),
        (
            "{ cache_dir = '/x\\0y' }",
            "bad argument #1 to 'setup' (cache_dir must be an absolute path)",
        ),
    ];
    let mut init = "local said = {}\n".to_string();
    let mut call = |arguments: &str| {
        init += &format!(
            "said[#said + 1] = select(2, pcall(function() local ok = wasm.setup({arguments}) return ok end))\n"
        );
    };
    for (arguments, _) in cases {
        call(arguments);
    }
    call("{}");
    call("{}");
    init += "return nil, table.concat({ unpack(said, 1, 8) }, '\\n') .. '\\n' .. tostring(said[9]) .. '\\n' .. said[10]";
    let nginx = nginx(&init)
        .server(
            r#"location /late {
                content_by_lua_block { ngx.print(select(2, pcall(wasm.setup, {}))) }
            }"#,
        )
        .start();
    let text = nginx.get("/init").text();
    let lines: Vec<&str> = text.lines().collect();
    let wanted = cases.iter().map(|(_, error)| *error).chain(["true", "setup was called before"]);
    for (line, wanted) in lines.iter().zip(wanted) {
        let caller = *line == "true" || line.starts_with("init_by_lua");
        assert!(caller && line.ends_with(wanted), "{line}: {wanted}");
    }
    assert_eq!(lines.len(), 10);
    assert_eq!(nginx.get("/late").text(), "setup must be called in init_by_lua");
}

#[test]
fn setup_comes_before_the_first_load_and_can_be_tried_again() {
    let (_parent, dir) = place();
    let late = nginx(
        r#"
        plugin = assert(wasm.load("it", "bare.wasm"))
        return nil, select(2, pcall(wasm.setup, {}))
        "#,
    )
    .start();
    assert_eq!(
        late.get("/init").text(),
        "setup must be called before the first load, shared, metrics or prometheus"
    );
    let again = nginx(&format!(
        r#"
        assert(not wasm.setup({{ cache_dir = "{0}/no/parent" }}))
        assert(not wasm.load("it", "missing.wasm"))
        assert(wasm.setup({{ cache_dir = "{0}" }}))
        plugin = assert(wasm.load("it", "bare.wasm"))
        "#,
        dir.display()
    ))
    .start();
    assert_eq!(again.get("/init").text(), "nil");
    assert_eq!(files(&dir).len(), 1);
}
