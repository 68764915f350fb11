//! `proxy-wasm run`: one request and its response through filters.

pub mod filters;
pub mod report;
pub mod show;

use clap::{Args, ValueEnum};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::core::abi::LogLevel;
use crate::core::callout::Upstream;
use crate::fail::{Fail, Verdict};
use crate::play::calls::{Canned, Source, Upstreams};
use crate::play::chain::Chain;
use crate::play::flow::Planned;
use crate::play::loader::{CacheArgs, Loader};
use crate::play::properties;
use crate::play::request::Request;
use crate::play::server::{Clock, Server};
use crate::{out, text};
use filters::FilterArgs;
use report::Report;

/// Play one request and its response through a filter, and show what it does.
///
/// Time stands still but for what is waited for: a filter that pauses until a tick gets that tick at once.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub filters: FilterArgs,

    #[command(flatten)]
    pub message: MessageArgs,

    /// Let so many milliseconds pass after the request, for ticks
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub wait: u64,

    /// The least severe lines of the log to show
    #[arg(long, default_value = "info")]
    pub log_level: Level,

    #[command(flatten)]
    pub cache: CacheArgs,
}

/// A request, what the upstream answers, and what answers the calls that filters make.
#[derive(Debug, Args)]
pub struct MessageArgs {
    /// The method of the request
    #[arg(short = 'X', long, default_value = "GET")]
    pub method: String,

    /// Path and query of the request
    #[arg(short, long, default_value = "/")]
    pub path: String,

    /// A header of the request
    #[arg(short = 'H', long, value_name = "NAME: VALUE", value_parser = text::header)]
    pub header: Vec<(String, String)>,

    /// The body of the request
    #[arg(short, long, value_name = "TEXT|@FILE")]
    pub body: Option<String>,

    /// The status that the upstream answers
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(200..600))]
    pub response_status: u16,

    /// A header that the upstream answers
    #[arg(long, value_name = "NAME: VALUE", value_parser = text::header)]
    pub response_header: Vec<(String, String)>,

    /// The body that the upstream answers; given several times, it comes in as many pieces
    #[arg(long, value_name = "TEXT|@FILE")]
    pub response_body: Vec<String>,

    /// A property of the request (source.address=192.0.2.1:4000) or a variable of nginx
    #[arg(long, value_name = "NAME=VALUE", value_parser = text::pair)]
    pub property: Vec<(String, String)>,

    /// What answers the filter's calls to an upstream: a server that is called (NAME=http://HOST:PORT), or a file with the
    /// answer (NAME=@FILE): a whole response when it begins with HTTP/, else the body of a 200
    #[arg(short, long, value_name = "NAME=URL|NAME=@FILE", value_parser = text::pair)]
    pub upstream: Vec<(String, String)>,
}

/// Levels of the log, as nginx names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
    Crit,
}

impl From<Level> for LogLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::Debug => Self::Trace,
            Level::Info => Self::Info,
            Level::Warn => Self::Warn,
            Level::Error => Self::Error,
            Level::Crit => Self::Critical,
        }
    }
}

/// Plays one request.
pub fn run(args: &RunArgs, json: bool) -> Result<Verdict, Fail> {
    let specs = args.filters.specs()?;
    let (request, body) = args.message.request()?;
    let planned = args.message.response()?;
    let upstreams = upstreams("--upstream", &args.message.upstream)?;
    let loader = Loader::new(&args.cache)?;
    let server = Server::new(Clock::Paused, args.log_level.into());
    let vm_ids: Vec<String> = specs.iter().map(|spec| spec.options.vm_id.clone()).collect();

    let (chain, loaded) = Chain::load(&server, &loader, specs, upstreams);
    let report = match loaded {
        Ok(()) => Report::play(chain, args.wait, request, body, &planned, &vm_ids),
        Err(error) => match error.input(&args.filters.filters) {
            Some(fail) => return Err(fail),
            None => Report::not_loaded(chain, error),
        },
    };
    if json {
        out::json(&report)?;
    } else {
        out::text(&show::report(&report))?;
    }
    Ok(report.failed.is_empty().into())
}

impl MessageArgs {
    /// The request and its body.
    pub fn request(&self) -> Result<(Request, Vec<u8>), Fail> {
        text::is_method(&self.method).map_err(|cause| Fail::input(format!("--method {cause}")))?;
        text::is_path(&self.path).map_err(|cause| Fail::input(format!("--path {cause}")))?;
        let mut request = Request {
            method: self.method.clone().into_bytes(),
            is_head: self.method == "HEAD",
            target: self.path.clone().into_bytes(),
            ..Request::default()
        };
        for (name, value) in &self.header {
            if name.eq_ignore_ascii_case("host") {
                request.authority = Some(value.clone().into_bytes());
            } else {
                request.headers.add(name.as_bytes(), value.as_bytes());
            }
        }
        for (name, value) in &self.property {
            properties::set(&mut request, name, value)
                .map_err(|cause| Fail::input(format!("--property {name}: {cause}")))?;
        }
        let body = self.body.as_deref().map(text::or_file).transpose()?.unwrap_or_default();
        request.set_length(&body);
        Ok((request, body))
    }

    /// What the upstream answers.
    pub fn response(&self) -> Result<Planned, Fail> {
        let pieces = self.response_body.iter().map(|text| text::or_file(text));
        let headers = self.response_header.iter().map(|(name, value)| (name, value));
        let pieces = pieces.collect::<Result<_, _>>()?;
        Ok(Planned::new(self.response_status, headers.collect(), pieces))
    }
}

/// What an option says of upstreams that filters call.
pub fn upstreams(option: &str, args: &[(String, String)]) -> Result<Upstreams, Fail> {
    let mut upstreams = Upstreams::default();
    for (name, value) in args {
        let wrong = |cause: &str| Fail::input(format!("{option} {name}={value}: {cause}"));
        let source = if value.starts_with('@') {
            let (status, headers, body) =
                text::response(&text::or_file(value)?).map_err(|cause| wrong(&cause))?;
            Source::Canned(vec![Canned { status, headers, body, ..Canned::default() }])
        } else {
            let upstream = Upstream::parse(value.as_bytes(), false);
            Source::Real(upstream.ok_or_else(|| wrong("it is neither http://HOST:PORT nor @FILE"))?)
        };
        upstreams.insert(name, source);
    }
    Ok(upstreams)
}
