//! Looks at the files of filters, and loads the filters again when a file changes.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::worker::{Job, Worker};
use crate::core::vm::Code;
use crate::oci::reference::SCHEME;
use crate::play::chain::FilterSpec;
use crate::play::loader::Loader;
use crate::run::filters::FilterArgs;

/// How often files are looked at. A file must look the same twice: compilers write it in pieces.
const LOOK: Duration = Duration::from_millis(200);

/// What tells one state of a file from another.
pub type Looks = Vec<Option<(SystemTime, u64)>>;

/// Looks for ever. `loaded` are the looks of the files from before they were read: what changes after that is seen.
pub fn watch(args: &FilterArgs, mut loaded: Looks, loader: &Loader, worker: &Worker) {
    loop {
        std::thread::sleep(LOOK);
        let now = looks(args);
        if now == loaded {
            continue;
        }
        std::thread::sleep(LOOK);
        if looks(args) != now {
            continue;
        }
        loaded = now;
        worker.tell(match prepare(args, loader) {
            Ok((specs, codes)) => Job::Replace { specs, codes },
            Err(cause) => Job::NotReplaced(cause),
        });
    }
}

/// Reads and compiles filters on this thread, while others serve.
fn prepare(
    args: &FilterArgs,
    loader: &Loader,
) -> Result<(Vec<FilterSpec>, Vec<Arc<Code>>), String> {
    let specs = args.specs().map_err(|fail| fail.to_string())?;
    let codes = specs.iter().map(|spec| {
        let code = loader.code(&spec.bytes);
        code.map_err(|error| format!("filter \"{}\": {error}", spec.options.name))
    });
    let codes = codes.collect::<Result<_, _>>()?;
    Ok((specs, codes))
}

/// How the files look now.
pub fn looks(args: &FilterArgs) -> Looks {
    args.files()
        .map(|file| {
            let meta = std::fs::metadata(Path::new(file)).ok()?;
            Some((meta.modified().ok()?, meta.len()))
        })
        .collect()
}

impl FilterArgs {
    /// The files that these arguments name.
    fn files(&self) -> impl Iterator<Item = &str> {
        let filters =
            self.filters.iter().map(String::as_str).filter(|name| !name.starts_with(SCHEME));
        let texts = self.config.iter().chain(&self.vm_config);
        let named = texts.filter_map(|text| text.strip_prefix('@').filter(|f| !f.starts_with('@')));
        filters.chain(named)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::play::loader::CacheArgs;
    use crate::serve::worker;

    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        filters: FilterArgs,
        #[command(flatten)]
        cache: CacheArgs,
    }

    #[test]
    fn a_change_while_the_command_starts_is_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("filter.wasm");
        std::fs::write(&file, "as it was read").expect("a file");
        let words = Words::parse_from(["", file.to_str().expect("a text"), "--no-cache"]);
        let read = looks(&words.filters);
        std::fs::write(&file, "as it is when the watch begins").expect("a file");
        let loader = Loader::new(&words.cache).expect("a loader");
        let (worker, jobs) = worker::channel();
        std::thread::spawn(move || watch(&words.filters, read, &loader, &worker));
        match jobs.recv_timeout(Duration::from_secs(60)) {
            Ok(Job::NotReplaced(cause)) => {
                assert!(cause.contains("not a WebAssembly module"), "{cause}")
            }
            Ok(_) => panic!("what is no module was loaded"),
            Err(error) => panic!("the change was not seen: {error}"),
        }
    }
}
