//! `proxy-wasm inspect`: what a filter is, what it needs, and what it would be refused for.

pub mod facts;
mod language;
mod report;
mod show;
mod uses;

use clap::Args;

use crate::fail::{Fail, Verdict};
use crate::play::loader::{CacheArgs, Loader};
use crate::{out, source};
use report::Report;

/// Say what a filter is, what it needs, and what it would be refused for.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The filter: a .wasm file, or the oci:// reference of one that was pulled
    #[arg(value_name = "FILE|REF")]
    pub filter: String,

    /// Do not run its start code; then nothing is known of what only shows there
    #[arg(long)]
    pub no_start: bool,

    #[command(flatten)]
    pub cache: CacheArgs,
}

/// What is said of a module, as text and as JSON, when none of it is run. It is what the fuzz target tries.
pub fn describe(name: &str, bytes: &[u8]) -> Result<(String, serde_json::Value), Fail> {
    let loader = Loader::new(&CacheArgs { cache_dir: None, no_cache: true })?;
    let report = Report::of(name, bytes, &loader, false)?;
    let json = serde_json::to_value(&report);
    let json = json.map_err(|error| Fail::outside(format!("{name}: {error}")))?;
    Ok((show::report(&report), json))
}

/// Inspects one file.
pub fn run(args: &InspectArgs, json: bool) -> Result<Verdict, Fail> {
    let bytes = source::filter(&args.filter)?;
    let loader = Loader::new(&args.cache)?;
    let report = Report::of(&args.filter, &bytes, &loader, !args.no_start)?;
    if json {
        out::json(&report)?;
    } else {
        out::text(&show::report(&report))?;
    }
    Ok(report.refused.is_none().into())
}
