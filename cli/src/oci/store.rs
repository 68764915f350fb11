//! Filters that were pulled, by the digests of their manifests. `wasm.load(name, "oci://…@sha256:…")` reads them from here.
//!
//! `sha256/DIGEST.wasm` is a filter, `sha256/DIGEST.json` the manifest that it came with, `partial/DIGEST` what has come so far
//! of a blob. Files are written beside their places and renamed, so a reader finds a whole file or none.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use clap::Args;

use super::reference::hexadecimal;
use crate::fail::Fail;

/// Where filters are kept.
#[derive(Clone, Debug, Default, Args)]
pub struct StoreArgs {
    /// The folder of filters, which setup{ filter_store } names [default: proxy-wasm/filters in the user's data folder]
    #[arg(long, value_name = "DIR", env = "PROXY_WASM_STORE")]
    pub store: Option<PathBuf>,
}

/// See the module.
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The store that the arguments name.
    pub fn new(args: &StoreArgs) -> Result<Self, Fail> {
        let below = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let data = || below("XDG_DATA_HOME").or_else(|| Some(below("HOME")?.join(".local/share")));
        let root = args.store.clone().or_else(|| Some(data()?.join("proxy-wasm/filters")));
        let root =
            root.ok_or_else(|| Fail::input("--store: there is no home folder, so name one"))?;
        Ok(Self { root })
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the filter of a manifest's digest is, or would be.
    pub fn filter(&self, digest: &str) -> PathBuf {
        self.root.join("sha256").join(format!("{}.wasm", name(digest)))
    }

    /// A filter, when it is there.
    pub fn read(&self, digest: &str) -> Result<Option<Vec<u8>>, Fail> {
        let path = self.filter(digest);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(&path)(error)),
        }
    }

    /// Where a blob is collected. Another command that collects the same one is waited for.
    pub fn partial(&self, digest: &str) -> Result<Partial, Fail> {
        let folder = self.root.join("partial");
        fs::create_dir_all(&folder).map_err(failed(&folder))?;
        let path = folder.join(name(digest));
        loop {
            let file = File::options().create(true).append(true).open(&path);
            let file = file.map_err(failed(&path))?;
            match file.lock() {
                // Some file systems of networks have no locks.
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
                locked => locked.map_err(failed(&path))?,
            }
            // The command that was waited for may have removed what is locked now.
            let locked = file.metadata().map_err(failed(&path))?;
            if fs::metadata(&path).is_ok_and(|there| there.ino() == locked.ino()) {
                return Ok(Partial { path, _lock: file });
            }
        }
    }

    /// Keeps a filter and its manifest.
    pub fn keep(&self, digest: &str, manifest: &[u8], filter: &[u8]) -> Result<PathBuf, Fail> {
        let folder = self.root.join("sha256");
        fs::create_dir_all(&folder).map_err(failed(&folder))?;
        let path = self.filter(digest);
        write(&path.with_extension("json"), manifest)?;
        write(&path, filter)?;
        Ok(path)
    }
}

/// What has come so far of a blob. It is this command's alone until the value is dropped.
pub struct Partial {
    path: PathBuf,
    _lock: File,
}

impl Partial {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the file away.
    pub fn remove(self) {
        // Left behind, it costs only its place.
        let _ = fs::remove_file(&self.path);
    }
}

/// A digest as a name of a file.
fn name(digest: &str) -> &str {
    hexadecimal(digest).unwrap_or("none")
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Fail> {
    let random = getrandom::u64().map_err(|error| Fail::outside(error.to_string()))?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{random:016x}"));
    let temporary = PathBuf::from(temporary);
    let fill = || {
        let mut file = File::create_new(&temporary)?;
        // Workers of nginx run as another user.
        file.set_permissions(Permissions::from_mode(0o644))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    fill().map_err(|error| {
        let _ = fs::remove_file(&temporary);
        failed(path)(error)
    })
}

fn failed(path: &Path) -> impl Fn(io::Error) -> Fail + '_ {
    move |error| Fail::outside(format!("{}: {error}", path.display()))
}
