//! Running the command.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a parent").to_path_buf()
}

/// A file of the repository.
pub fn file(path: &str) -> String {
    root().join(path).to_string_lossy().into_owned()
}

/// A guest of `t/guests/build`.
pub fn guest(name: &str) -> String {
    file(&format!("t/guests/build/{name}.wasm"))
}

/// What the command answered.
pub struct Answer {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Answer {
    /// Its JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.out, self.err))
    }

    /// Panics unless it ended so.
    pub fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
        self
    }
}

/// Runs `proxy-wasm` with these arguments, at the root of the repository.
pub fn proxy_wasm<A: AsRef<str>>(args: &[A]) -> Answer {
    proxy_wasm_in(&root(), args)
}

/// The same in another folder.
pub fn proxy_wasm_in<A: AsRef<str>>(folder: &Path, args: &[A]) -> Answer {
    answer(command(folder, args).output().expect("the command runs"))
}

/// The command, ready to be run.
pub fn command<A: AsRef<str>>(folder: &Path, args: &[A]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_proxy-wasm"));
    command.current_dir(folder).args(args.iter().map(AsRef::as_ref));
    // All tests share what was compiled.
    command.env("XDG_CACHE_HOME", Path::new(env!("CARGO_TARGET_TMPDIR")));
    command
}

fn answer(output: Output) -> Answer {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Answer {
        code: output.status.code().expect("an exit code"),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// A file with these bytes, and its folder, which goes with the value.
pub fn temporary(name: &str, bytes: impl AsRef<[u8]>) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).expect("a file");
    (folder, path.to_string_lossy().into_owned())
}
