//! Looking at the files of filters, and loading them anew when they change.

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
type Looks = Vec<Option<(SystemTime, u64)>>;

/// Looks for ever.
pub fn watch(args: &FilterArgs, loader: &Loader, worker: &Worker) {
    let mut loaded = looks(args);
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

fn looks(args: &FilterArgs) -> Looks {
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
