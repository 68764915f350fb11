//! `proxy-wasm test`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use serde_json::json;

use super::model::File;
use super::values::Short;
use super::{Outcome, Scenario, junit, runner};
use crate::fail::{Fail, Verdict};
use crate::out;
use crate::play::loader::{CacheArgs, Loader};
use crate::printable;

/// Play scenarios, and say what is not as they expect.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// Files of scenarios [default: all *.test.yaml, *.test.yml and *.test.toml from here on]
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// Only tests whose name holds this
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    pub filter: String,

    /// Write the results as JUnit XML into this file, too
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,

    /// Run again whenever a scenario or a filter changes
    #[arg(short, long, conflicts_with = "schema")]
    pub watch: bool,

    /// Show the log of tests that pass, too
    #[arg(short, long)]
    pub verbose: bool,

    /// Print the JSON Schema of the format and run nothing
    #[arg(long)]
    pub schema: bool,

    #[command(flatten)]
    pub cache: CacheArgs,
}

/// Runs the tests.
pub fn run(args: &TestArgs, json: bool) -> Result<Verdict, Fail> {
    if args.schema {
        out::json(&schemars::schema_for!(File))?;
        return Ok(Verdict::Good);
    }
    let loader = Loader::new(&args.cache)?;
    if !args.watch {
        return once(args, &loader, json);
    }
    loop {
        let before = changes(args);
        match once(args, &loader, json) {
            Err(Fail::Outside(cause)) => return Err(Fail::Outside(cause)),
            Err(fail) => out::text(&format!("{fail}\n"))?,
            Ok(_) => {}
        }
        out::text("waiting for a change …\n")?;
        while changes(args) == before {
            std::thread::sleep(LOOK);
        }
    }
}

/// How often files are looked at.
const LOOK: Duration = Duration::from_millis(200);

fn once(args: &TestArgs, loader: &Loader, json: bool) -> Result<Verdict, Fail> {
    let names = names(args)?;
    if names.is_empty() {
        return Err(Fail::input("there is no file of scenarios (*.test.yaml, *.test.toml) here"));
    }
    let scenarios = names.iter().map(|name| Scenario::read(name)).collect::<Result<Vec<_>, _>>()?;
    let mut files = Vec::new();
    for scenario in &scenarios {
        let mut outcomes = Vec::new();
        let mut shown = format!("{}\n", printable::line(&scenario.name));
        for test in scenario.tests() {
            if !test.value.name.contains(&args.filter) {
                continue;
            }
            let outcome = runner::play(scenario, &test.value, test.line, loader)?;
            shown += &show(&outcome, args.verbose);
            outcomes.push(outcome);
        }
        if !json && !outcomes.is_empty() {
            out::text(&shown)?;
        }
        files.push((scenario.name.clone(), outcomes));
    }
    if let Some(path) = &args.junit {
        std::fs::write(path, junit::report(&files))
            .map_err(|error| Fail::outside(format!("{}: {error}", path.display())))?;
    }
    finish(&files, json)
}

fn finish(files: &[(String, Vec<Outcome>)], json: bool) -> Result<Verdict, Fail> {
    let all: Vec<&Outcome> = files.iter().flat_map(|(_, outcomes)| outcomes).collect();
    let failed = all.iter().filter(|outcome| !outcome.failures.is_empty()).count();
    if json {
        let files: Vec<_> = files
            .iter()
            .map(|(file, outcomes)| json!({ "file": file, "tests": outcomes }))
            .collect();
        out::json(&json!({ "tests": all.len(), "failed": failed, "files": files }))?;
    } else if all.is_empty() {
        out::text("no test has such a name\n")?;
    } else {
        out::text(&format!("\n{} passed, {failed} failed\n", all.len() - failed))?;
    }
    // Tests that do not run show nothing.
    Ok((failed == 0 && !all.is_empty()).into())
}

fn show(outcome: &Outcome, verbose: bool) -> String {
    let passed = outcome.failures.is_empty();
    let word = if passed { "ok  " } else { "FAIL" };
    let mut out = format!("  {word}  {}\n", printable::line(&outcome.name));
    for (line, cause) in &outcome.failures {
        let _ = writeln!(out, "        line {line}: {}", printable::line(cause));
    }
    if verbose || !passed {
        for line in &outcome.log {
            let _ = writeln!(out, "        {}", printable::line(line));
        }
    }
    out
}

fn names(args: &TestArgs) -> Result<Vec<String>, Fail> {
    let mut names = Vec::new();
    let given = if args.files.is_empty() { vec![PathBuf::from(".")] } else { args.files.clone() };
    for path in given {
        if path.is_dir() {
            find(&path, &mut names, 0)?;
        } else {
            names.push(path.to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

/// Folders of what others made.
const SKIPPED: [&str; 3] = ["target", "node_modules", "vendor"];

fn find(folder: &Path, names: &mut Vec<String>, depth: usize) -> Result<(), Fail> {
    let failed =
        |error| Fail::input(format!("{}: {}", folder.display(), crate::source::plain(&error)));
    let entries = std::fs::read_dir(folder).map_err(failed)?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        if path.is_dir() && !path.is_symlink() {
            if depth < DEPTH && !name.starts_with('.') && !SKIPPED.contains(&name.as_str()) {
                find(&path, names, depth + 1)?;
            }
        } else if [".test.yaml", ".test.yml", ".test.toml"].iter().any(|end| name.ends_with(end)) {
            let path = path.strip_prefix("./").unwrap_or(&path);
            names.push(path.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

/// Folders below folders that are looked into.
const DEPTH: usize = 32;

/// When the files that matter were changed.
fn changes(args: &TestArgs) -> BTreeMap<PathBuf, Option<SystemTime>> {
    let changed = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let mut all = BTreeMap::new();
    for name in names(args).unwrap_or_default() {
        let path = PathBuf::from(&name);
        all.insert(path.clone(), changed(&path));
        let Ok(scenario) = Scenario::read(&name) else { continue };
        for filter in scenario.all_filters() {
            let file = match filter {
                Short::Text(file) => file,
                Short::Long(filter) => &filter.file,
            };
            let path = scenario.folder.join(file);
            let time = changed(&path);
            all.insert(path, time);
        }
    }
    all
}
