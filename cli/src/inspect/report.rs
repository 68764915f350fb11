//! The report on one filter.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use super::facts::{Custom, Facts, Import, Limits, Type};
use super::language::Origin;
use super::uses::Uses;
use crate::core::abi::{
    Callback, HOST_FUNCTIONS, LogLevel, Marker, Support, VERSION_MARKER, Version, WASI_FUNCTIONS,
};
use crate::core::error::Error;
use crate::core::ports::Host;
use crate::core::vm;
use crate::fail::Fail;
use crate::play::loader::{self, Loader};
use crate::play::server::{Clock, Server};
use crate::source;

/// See the module. This is the JSON that `inspect --json` prints.
#[derive(Debug, Serialize)]
pub struct Report {
    pub file: String,
    pub bytes: u64,
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    pub abi: Abi,
    pub origin: Origin,
    /// Callbacks that it exports, in the order of the specification.
    pub callbacks: Vec<&'static str>,
    /// What it exports besides.
    pub other_exports: Vec<String>,
    pub imports: Vec<Answered>,
    pub memories: Vec<Limits>,
    pub tables: Vec<Limits>,
    pub functions: u32,
    pub code_bytes: u64,
    pub data_bytes: u64,
    pub custom_sections: Vec<Custom>,
    pub has_start_section: bool,
    pub uses: Uses,
    /// What a log would say when it is loaded.
    pub warnings: Vec<String>,
    /// Why this host would not load it.
    pub refused: Option<String>,
    /// Whether its start code was run to find that out.
    pub started: bool,
}

/// The version of the ABI.
#[derive(Debug, Serialize)]
pub struct Abi {
    /// The version that this host takes it for; nothing when it would refuse it.
    pub version: Option<String>,
    /// The export that says so.
    pub marker: Option<String>,
}

/// An import and what this host answers for it.
#[derive(Debug, Serialize)]
pub struct Answered {
    pub module: String,
    pub name: String,
    #[serde(rename = "type")]
    pub ty: String,
    pub answer: Answer,
    /// More about that.
    pub note: Option<String>,
}

/// What an import is to this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// A function that does what the specification says.
    Supported,
    /// A function of WASI that finds nothing of the host: no file, no socket, no argument.
    Empty,
    /// Not a function of this host: calls do nothing and answer a status.
    StandIn,
    /// The same for a function that a vendor added to Proxy-Wasm.
    VendorExtension,
    /// Not a function of this host: a call of it traps.
    Traps,
    /// The filter is refused for it.
    Refused,
}

impl Answer {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Supported => "supported",
            Self::Empty => "empty",
            Self::StandIn => "stand-in",
            Self::VendorExtension => "vendor extension",
            Self::Traps => "traps",
            Self::Refused => "refused",
        }
    }
}

impl Report {
    /// Reports on a file. One that is no module is bad input.
    pub fn of(file: &str, bytes: &[u8], loader: &Loader, start: bool) -> Result<Self, Fail> {
        let invalid = |error: String| Fail::input(format!("{file}: {error}"));
        let code = match loader.code(bytes) {
            Err(error @ Error::Module(_)) => return Err(invalid(error.to_string())),
            other => other,
        };
        let facts = Facts::of(bytes).map_err(|error| invalid(error.to_string()))?;
        let tried = code.and_then(|code| loader::check(code, start));
        let (warnings, refused) = match tried {
            Ok(warnings) => (warnings, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        Ok(Self {
            file: file.into(),
            bytes: bytes.len() as u64,
            digest: source::digest(bytes),
            abi: Abi::of(&facts),
            origin: Origin::of(&facts, bytes),
            callbacks: callbacks(&facts),
            other_exports: other_exports(&facts),
            imports: answers(&facts.imports)?,
            uses: Uses::of(&facts),
            memories: facts.memories,
            tables: facts.tables,
            functions: facts.functions,
            code_bytes: facts.code_bytes,
            data_bytes: facts.data_bytes,
            custom_sections: facts.customs,
            has_start_section: facts.has_start_section,
            warnings,
            refused,
            started: start,
        })
    }
}

impl Abi {
    /// The first marker in export order decides.
    fn of(facts: &Facts) -> Self {
        for export in &facts.exports {
            let version = match Marker::parse(&export.name) {
                None => continue,
                Some(Marker::Known(version)) => Some(version),
                Some(Marker::Vendor) => Some(Version::V0_2_1),
                Some(Marker::Unknown) => None,
            };
            let version = version.map(|version| version.to_string());
            return Self { version, marker: Some(export.name.clone()) };
        }
        Self { version: Some(Version::V0_2_0.to_string()), marker: None }
    }
}

fn callbacks(facts: &Facts) -> Vec<&'static str> {
    let names = Callback::ALL.iter().map(|callback| callback.name());
    names.filter(|name| facts.exports_function(name)).collect()
}

fn other_exports(facts: &Facts) -> Vec<String> {
    let is_callback = |name: &str| Callback::ALL.iter().any(|callback| callback.name() == name);
    let others = facts.exports.iter().map(|export| &export.name);
    others.filter(|name| !is_callback(name) && !name.starts_with(VERSION_MARKER)).cloned().collect()
}

fn answers(imports: &[Import]) -> Result<Vec<Answered>, Fail> {
    let host: Arc<dyn Host> = Server::new(Clock::Simulated, LogLevel::Critical);
    let functions = vm::host_functions(&host)
        .map_err(|error| Fail::outside(format!("the host's functions: {error}")))?;
    let mut known = HashMap::new();
    for (module, name, ty) in functions {
        let list = |types: Vec<String>| types.join(", ");
        let params = list(ty.params().map(|ty| ty.to_string()).collect());
        let results = list(ty.results().map(|ty| ty.to_string()).collect());
        known.insert((module, name), format!("({params}) -> ({results})"));
    }
    let answered = imports.iter().map(|import| {
        let (ty, (answer, note)) = match &import.ty {
            Type::Other(kind) => {
                let note = "a host gives functions only".to_owned();
                ((*kind).to_owned(), (Answer::Refused, Some(note)))
            }
            Type::Function(ty) => {
                let of_host = known.get(&(import.module.clone(), import.name.clone()));
                (ty.clone(), answer(import, ty, of_host))
            }
        };
        let Import { module, name, .. } = import.clone();
        Answered { module, name, ty, answer, note }
    });
    Ok(answered.collect())
}

fn answer(import: &Import, ty: &str, of_host: Option<&String>) -> (Answer, Option<String>) {
    let is_wasi = import.module.starts_with("wasi_");
    if of_host.is_some_and(|of_host| of_host == ty) {
        return if is_wasi { of_wasi(&import.name) } else { of_spec(&import.name) };
    }
    let other_type = of_host.map(|of_host| format!("this host's has the type {of_host}; "));
    let note = |text: &str| Some(other_type.clone().unwrap_or_default() + text);
    let proxy = import.module == "env" && import.name.starts_with("proxy_");
    match import.module.as_str() {
        "wasi_snapshot_preview1" | "wasi_unstable" => {
            (Answer::StandIn, note("calls do nothing and answer 52 (ENOSYS)"))
        }
        "env" if proxy && of_host.is_none() => {
            (Answer::VendorExtension, note("calls do nothing and answer 12 (UNIMPLEMENTED)"))
        }
        "env" if proxy => (Answer::StandIn, note("calls do nothing and answer 12 (UNIMPLEMENTED)")),
        "env" => (Answer::Traps, note("a call ends the filter's VM")),
        _ => (Answer::Refused, note("neither Proxy-Wasm (module \"env\") nor WASI")),
    }
}

fn of_spec(name: &str) -> (Answer, Option<String>) {
    match HOST_FUNCTIONS.iter().find(|function| function.name == name) {
        Some(function) => match function.support {
            Support::Full => (Answer::Supported, None),
            Support::Answers(text) => (Answer::StandIn, Some(text.into())),
        },
        None => (Answer::Supported, None),
    }
}

fn of_wasi(name: &str) -> (Answer, Option<String>) {
    match WASI_FUNCTIONS.iter().find(|(function, _)| *function == name) {
        Some((_, text)) => (Answer::Supported, Some((*text).into())),
        None => (Answer::Empty, Some("finds no file, no socket and no argument".into())),
    }
}
