//! The filters of a command line.

use std::ops::RangeInclusive;
use std::path::Path;

use clap::{Args, value_parser};

use crate::core::vm::Options;
use crate::fail::Fail;
use crate::play::chain::FilterSpec;
use crate::{source, text};

/// Bytes of memory that a filter may be given, as `load` has it.
pub const MEMORY: RangeInclusive<u64> = 65_536..=1 << 32;

/// Which filters run, and how they are set up. Several filters make a chain: requests pass it in order, responses in reverse.
#[derive(Clone, Debug, Args)]
pub struct FilterArgs {
    /// The filters: .wasm files, or oci:// references of what was pulled
    #[arg(value_name = "FILE|REF", required = true)]
    pub filters: Vec<String>,

    /// The configuration of a filter; given once for each, in their order
    #[arg(short, long, value_name = "TEXT|@FILE")]
    pub config: Vec<String>,

    /// The name of a filter's root context; given once for each [default: what the file is called]
    #[arg(long, value_name = "ID")]
    pub root_id: Vec<String>,

    /// What proxy_on_vm_start reads
    #[arg(long, value_name = "TEXT|@FILE")]
    pub vm_config: Option<String>,

    /// Filters with one id share data with each other
    #[arg(long, value_name = "ID", default_value = "")]
    pub vm_id: String,

    /// An environment variable of the filters
    #[arg(long, value_name = "NAME=VALUE", value_parser = text::variable)]
    pub env: Vec<(String, String)>,

    /// Milliseconds that a callback may run [default: 1000]
    #[arg(long, value_name = "MS", value_parser = value_parser!(u32).range(1..1 << 31))]
    pub time_limit: Option<u32>,

    /// Bytes of memory that a filter may have [default: 256 MiB]
    #[arg(long, value_name = "BYTES", value_parser = value_parser!(u64).range(MEMORY))]
    pub memory_limit: Option<u64>,

    /// A request continues without a filter that fails
    #[arg(long)]
    pub fail_open: bool,
}

impl FilterArgs {
    /// Reads the files.
    pub fn specs(&self) -> Result<Vec<FilterSpec>, Fail> {
        for (option, count) in [("--config", self.config.len()), ("--root-id", self.root_id.len())]
        {
            if count > self.filters.len() {
                return Err(Fail::input(format!(
                    "{option} is given {count} times, and there are fewer filters: {}",
                    self.filters.len()
                )));
            }
        }
        let mut specs: Vec<FilterSpec> = Vec::new();
        for (index, file) in self.filters.iter().enumerate() {
            let mut options = Options::new(&unique(&stem(file), &specs));
            options.root_id = self.root_id.get(index).cloned().unwrap_or_else(|| stem(file));
            options.vm_id.clone_from(&self.vm_id);
            options.env.clone_from(&self.env);
            options.fail_open = self.fail_open;
            if let Some(text) = &self.vm_config {
                options.vm_config = text::or_file(text)?;
            }
            if let Some(milliseconds) = self.time_limit {
                options.time_limits.callback = milliseconds;
            }
            if let Some(bytes) = self.memory_limit {
                options.memory_limit = bytes;
            }
            let configuration = self.config.get(index).map(|text| text::or_file(text));
            let configuration = configuration.transpose()?;
            specs.push(FilterSpec { bytes: source::filter(file)?, options, configuration });
        }
        Ok(specs)
    }
}

/// A name for a filter that none before has.
pub fn unique(name: &str, specs: &[FilterSpec]) -> String {
    let is_free = |name: &str| specs.iter().all(|spec| spec.options.name != name);
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    std::iter::once(name.to_owned()).chain(numbered).find(|n| is_free(n)).unwrap_or_default()
}

/// What a file is called, without its folder and ending. SDKs' folders have one `release.wasm` each, so such a file is
/// called as the folder that it was built in.
pub fn stem(file: &str) -> String {
    let path = Path::new(file);
    let stem = |path: &Path| path.file_stem().map(|name| name.to_string_lossy().into_owned());
    let generic = ["release", "debug", "plugin", "main", "filter", "build", "target"];
    let mut names = path.ancestors().filter_map(stem);
    let first = names.next().unwrap_or_else(|| "filter".into());
    if !generic.contains(&first.as_str()) {
        return first;
    }
    names.find(|name| !generic.contains(&name.as_str())).unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files() {
        assert_eq!(stem("a/b/auth.wasm"), "auth");
        assert_eq!(stem("examples/add-header/build/release.wasm"), "add-header");
        assert_eq!(stem("release.wasm"), "release");
    }
}
