//! Filters out of bytes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::server::{Clock, Server};
use super::ticker;
use crate::core::abi::LogLevel;
use crate::core::error::Error;
use crate::core::folder::Folder;
use crate::core::ports::Host;
use crate::core::vm::{Cache, Code, CodeStore, Module, Options, Plugin, Sources};
use crate::fail::Fail;

/// Where compiled filters are kept.
#[derive(Debug, Default, Args)]
pub struct CacheArgs {
    /// Keep compiled filters in this folder, as setup{ cache_dir } of the library does
    /// [default: proxy-wasm/modules in the user's cache folder]
    #[arg(long, value_name = "DIR", env = "PROXY_WASM_CACHE_DIR")]
    pub cache_dir: Option<PathBuf>,

    /// Compile filters each time
    #[arg(long, conflicts_with = "cache_dir")]
    pub no_cache: bool,
}

/// See the module.
pub struct Loader {
    cache: Cache,
    folder: Option<Folder>,
}

impl Loader {
    /// Takes the folder that the arguments name. The default one is left out when it cannot be used.
    pub fn new(args: &CacheArgs) -> Result<Self, Fail> {
        ticker::start();
        let folder = match &args.cache_dir {
            _ if args.no_cache => None,
            Some(path) => Some(Folder::set_up(path).map_err(Fail::Input)?),
            None => default_folder(),
        };
        Ok(Self { cache: Cache::default(), folder })
    }

    /// The compiled code of a module.
    pub fn code(&self, bytes: &[u8]) -> Result<Arc<Code>, Error> {
        let store = self.folder.as_ref().map(|folder| folder as &dyn CodeStore);
        Ok(self.cache.load(bytes, Sources { store, ..Sources::default() })?.code)
    }
}

/// Says whether a filter can be loaded, and with `start` whether it starts. Returns what a log would warn of.
pub fn check(code: Arc<Code>, start: bool) -> Result<Vec<String>, Error> {
    let host: Arc<dyn Host> = Server::new(Clock::Simulated, LogLevel::Critical);
    let module = Module::new(code, Options::new("filter"), &host)?;
    let warnings = module.warnings().to_vec();
    if start {
        Plugin::new(module, host)?;
    }
    Ok(warnings)
}

/// A folder of the user's own. `None` when there is no home, or when it is not safe to use.
fn default_folder() -> Option<Folder> {
    let below = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let caches = below("XDG_CACHE_HOME").or_else(|| Some(below("HOME")?.join(".cache")))?;
    let path = caches.join("proxy-wasm").join("modules");
    path.parent().map(Path::to_path_buf).map(std::fs::create_dir_all)?.ok()?;
    Folder::set_up(&path).ok()
}
