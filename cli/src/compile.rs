//! `proxy-wasm compile`: fills the folder of `setup{ cache_dir }` ahead of time, and looks after it.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use clap::{ArgGroup, Args};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::core::folder::Folder;
use crate::core::vm::{
    BASELINES, Baseline, Cache, CodeStore, EntryState, KeepError, Kept, Origin, Sources,
    StoreError, examine,
};
use crate::fail::{Fail, Verdict};
use crate::{out, printable, source};

/// Compile filters for the folder of setup{ cache_dir }, so that nginx need not.
///
/// Entries are for this version of the library, and for this processor or a named baseline.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").args(["filters", "check"]).required(true)))]
pub struct CompileArgs {
    /// The filters: .wasm files, or oci:// references of what was pulled
    #[arg(value_name = "FILE|REF")]
    pub filters: Vec<String>,

    /// The folder; it is made when it is not there
    #[arg(long, value_name = "DIR", required_unless_present = "check")]
    pub cache_dir: Option<PathBuf>,

    /// The processor: native, or a baseline that many have (x86-64, x86-64-v2, x86-64-v3)
    #[arg(long, value_name = "NAME", default_value = "native", value_parser = cpu)]
    pub cpu: String,

    /// List what a folder holds: modules, ages, and which entries are of use to this version
    #[arg(long, value_name = "DIR", conflicts_with = "cache_dir")]
    pub check: Option<PathBuf>,

    /// With --check: remove what is of no use to this version on this machine
    #[arg(long)]
    pub prune: bool,
}

const NATIVE: &str = "native";

fn cpu(name: &str) -> Result<String, String> {
    if name == NATIVE || BASELINES.iter().any(|baseline| baseline.name == name) {
        return Ok(name.into());
    }
    let names: Vec<&str> = BASELINES.iter().map(|baseline| baseline.name).collect();
    Err(format!("it is none of {NATIVE}, {}", names.join(", ")))
}

/// What became of one file.
#[derive(Debug, Serialize)]
struct Compiled {
    file: String,
    digest: String,
    /// compiled, or there already
    state: &'static str,
    seconds: f64,
}

/// Compiles, or looks after a folder.
pub fn run(args: &CompileArgs, json: bool) -> Result<Verdict, Fail> {
    if args.prune && args.check.is_none() {
        return Err(Fail::input("--prune goes with --check DIR"));
    }
    match (&args.check, &args.cache_dir) {
        (Some(folder), _) => check(folder, args.prune, json),
        (None, Some(folder)) => compile(args, folder, json),
        (None, None) => Err(Fail::input("--cache-dir says where to")),
    }
}

fn compile(args: &CompileArgs, path: &Path, json: bool) -> Result<Verdict, Fail> {
    let path = std::path::absolute(path).map_err(|error| Fail::input(error.to_string()))?;
    let folder = Folder::set_up(&path).map_err(Fail::Input)?;
    let baseline = BASELINES.iter().find(|baseline| baseline.name == args.cpu);
    // All are read first, so that a wrong name is told before minutes have passed.
    let modules = args.filters.iter().map(|file| Ok((file, source::filter(file)?)));
    let modules = modules.collect::<Result<Vec<_>, Fail>>()?;
    let total = modules.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let bar = progress(total);
    let mut done = Vec::new();
    for (file, bytes) in modules {
        bar.set_message(printable::line(file));
        let started = Instant::now();
        let kept = keep(&folder, baseline, file, &bytes).inspect_err(|_| bar.finish_and_clear())?;
        bar.inc(bytes.len() as u64);
        done.push(Compiled {
            file: file.clone(),
            digest: source::digest(&bytes),
            state: match kept {
                Kept::Compiled => "compiled",
                Kept::There => "there already",
            },
            seconds: started.elapsed().as_secs_f64(),
        });
    }
    bar.finish_and_clear();
    if json {
        out::json(&done)?;
    } else {
        for one in &done {
            out::text(&format!(
                "{}: {} ({:.2} s)\n",
                printable::line(&one.file),
                one.state,
                one.seconds
            ))?;
        }
    }
    Ok(Verdict::Good)
}

/// Bytes of modules; nothing where no one looks.
fn progress(total: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total);
    let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {elapsed} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn keep(
    folder: &Folder,
    baseline: Option<&Baseline>,
    file: &str,
    bytes: &[u8],
) -> Result<Kept, Fail> {
    let module = |error: crate::core::error::Error| Fail::input(format!("{file}: {error}"));
    let unkept = |cause: &str| Fail::outside(format!("{} {cause}", folder.path().display()));
    if let Some(baseline) = baseline {
        return baseline.keep(bytes, folder).map_err(|error| match error {
            KeepError::Module(error) => module(error),
            KeepError::Store(
                StoreError::Unusable(cause)
                | StoreError::ReadOnly(cause)
                | StoreError::Entry(cause),
            ) => unkept(&cause),
        });
    }
    let sources = Sources { store: Some(folder as &dyn CodeStore), ..Sources::default() };
    let loaded = Cache::default().load(bytes, sources).map_err(module)?;
    if let Some(cause) = loaded.unusable.or(loaded.not_kept) {
        return Err(unkept(&cause));
    }
    // An entry for a baseline serves as well.
    Ok(if loaded.origin == Origin::Compiled { Kept::Compiled } else { Kept::There })
}

/// An entry of a folder.
#[derive(Debug, Serialize)]
struct Entry {
    entry: String,
    /// The digest of its module; nothing of what is no entry.
    module: Option<String>,
    bytes: u64,
    age_seconds: u64,
    state: String,
    usable: bool,
    removed: bool,
}

fn check(path: &Path, prune: bool, json: bool) -> Result<Verdict, Fail> {
    let failed = |error: std::io::Error| {
        Fail::input(format!("{}: {}", path.display(), source::plain(&error)))
    };
    let folder = Folder::open_existing(path).map_err(Fail::Input)?;
    let mut names: Vec<String> = std::fs::read_dir(path)
        .map_err(failed)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    let mut entries = Vec::new();
    for name in names {
        let mut entry = look(&folder, path, name)?;
        if prune && !entry.usable && is_ours(&entry) {
            let removed = std::fs::remove_file(path.join(&entry.entry));
            entry.removed = removed
                .map(|()| true)
                .map_err(|error| Fail::outside(format!("{}: {error}", entry.entry)))?;
        }
        entries.push(entry);
    }
    if json {
        out::json(&entries)?;
    } else {
        let rows = entries.iter().map(|entry| {
            vec![
                printable::line(entry.module.as_deref().unwrap_or(&entry.entry)),
                out::bytes(entry.bytes),
                age(entry.age_seconds),
                format!("{}{}", entry.state, if entry.removed { ": removed" } else { "" }),
            ]
        });
        out::text(&out::table(&["module", "size", "age", "state"], rows))?;
    }
    Ok(entries.iter().all(|entry| entry.usable || entry.removed).into())
}

fn look(folder: &Folder, path: &Path, name: String) -> Result<Entry, Fail> {
    let meta = std::fs::symlink_metadata(path.join(&name)).ok();
    let changed = meta.as_ref().and_then(|meta| meta.modified().ok());
    let age = changed.and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or_default();
    let state = match folder.read(&name) {
        Ok(content) => examine(&name, &content.unwrap_or_default())
            .map_err(|error| Fail::outside(error.to_string()))?,
        Err(
            StoreError::Entry(cause) | StoreError::Unusable(cause) | StoreError::ReadOnly(cause),
        ) => {
            let cause = cause.strip_prefix(&name).unwrap_or(&cause).trim_start();
            EntryState::Broken(cause.into())
        }
    };
    let (state, usable) = match state {
        EntryState::Own => ("for this processor".into(), true),
        EntryState::Of(baseline) => (format!("for {baseline}"), true),
        EntryState::Other => ("of another version, or for another processor".into(), false),
        EntryState::Broken(cause) => (format!("not usable: {cause}"), false),
        EntryState::Alien => ("no entry of a cache".into(), false),
    };
    let module =
        name.get(..64).filter(|_| is_entry(&name)).map(|digest| format!("sha256:{digest}"));
    Ok(Entry {
        module,
        bytes: meta.map_or(0, |meta| meta.len()),
        age_seconds: age.as_secs(),
        state,
        usable,
        removed: false,
        entry: name,
    })
}

/// Only what a cache made is removed: entries, and what a process that was killed left of one.
fn is_ours(entry: &Entry) -> bool {
    const UNFINISHED_SECONDS: u64 = 3600;
    let unfinished = entry.entry.starts_with('.') && entry.entry.contains(".cwasm.");
    is_entry(&entry.entry) || (unfinished && entry.age_seconds > UNFINISHED_SECONDS)
}

fn is_entry(name: &str) -> bool {
    name.ends_with(".cwasm")
        && name.len() == 64 + 1 + 16 + ".cwasm".len()
        && name.bytes().take(64).all(|b| b.is_ascii_hexdigit())
}

/// Seconds for people.
fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
