//! `proxy-wasm serve`: a local HTTP proxy with filters in front of an upstream.
//!
//! [`stage`] runs filters, all on one thread, as a worker of nginx does; [`worker`] is how other threads ask it. Each
//! connection of a client has a thread of its own ([`connection`]), which asks the [`upstream`] too, so that a slow upstream
//! holds up no other. [`reload`] looks at files, [`log`] says what happens.

mod body;
mod connection;
mod log;
mod reload;
mod socket;
mod stage;
mod upstream;
mod worker;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use clap::Args;

use crate::fail::{Fail, Verdict};
use crate::play::chain::FilterSpec;
use crate::play::loader::{CacheArgs, Loader};
use crate::play::properties;
use crate::play::request::Request;
use crate::play::server::{Clock, Server};
use crate::run::filters::FilterArgs;
use crate::run::{self, Level};
use crate::text;
use connection::Site;
use log::Log;
use stage::{Stage, Unloaded};
use upstream::Upstream;

/// Serve filters in front of an upstream as a local HTTP proxy, and say what they do to each request.
///
/// Filters whose files change are loaded again. When that fails, those before stay. Filters work on one request at a time: one
/// that holds a request holds the others too.
#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub filters: FilterArgs,

    /// Where to listen; port 0 takes a free one
    #[arg(short, long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    /// The server behind the filters: http://HOST:PORT or https://HOST
    #[arg(short, long, value_name = "URL", required_unless_present = "respond")]
    pub upstream: Option<String>,

    /// Answer requests with this in place of an upstream: a whole response when it begins with HTTP/, else the body of a 200
    #[arg(long, value_name = "TEXT|@FILE", conflicts_with = "upstream")]
    pub respond: Option<String>,

    /// Send the upstream its own name as Host, in place of the client's
    #[arg(long, conflicts_with = "respond")]
    pub rewrite_host: bool,

    /// What answers the filters' calls to an upstream: a server that is called (NAME=http://HOST:PORT), or a file with the
    /// answer (NAME=@FILE): a whole response when it begins with HTTP/, else the body of a 200
    #[arg(long, value_name = "NAME=URL|NAME=@FILE", value_parser = text::pair)]
    pub call: Vec<(String, String)>,

    /// A property of each request (request.id=1) or a variable of nginx
    #[arg(long, value_name = "NAME=VALUE", value_parser = text::pair)]
    pub property: Vec<(String, String)>,

    /// Bytes that the body of a request may have; it is read as a whole before filters see it
    #[arg(long, value_name = "BYTES", default_value_t = 16 * 1024 * 1024)]
    pub max_body: usize,

    /// Keep the filters that are loaded at the start
    #[arg(long)]
    pub no_reload: bool,

    /// The least severe lines of the log to show
    #[arg(long, default_value = "info")]
    pub log_level: Level,

    /// Show callbacks that changed nothing, too
    #[arg(short, long)]
    pub verbose: bool,

    #[command(flatten)]
    pub cache: CacheArgs,
}

/// Serves until the process is ended.
pub fn run(args: ServeArgs, json: bool) -> Result<Verdict, Fail> {
    let log = Log { json, verbose: args.verbose };
    let looks = reload::looks(&args.filters);
    let specs = args.filters.specs()?;
    let calls = run::upstreams("--call", &args.call)?;
    let upstream = Upstream::new(&args)?;
    let mut pattern = Request::default();
    for (name, value) in &args.property {
        properties::set(&mut pattern, name, value)
            .map_err(|cause| Fail::input(format!("--property {name}: {cause}")))?;
    }
    let outside = |error| {
        Fail::outside(format!("--listen {}: {}", args.listen, crate::source::plain(&error)))
    };
    let listener = TcpListener::bind(args.listen).map_err(outside)?;
    let address = listener.local_addr().map_err(outside)?;

    let names: Vec<String> =
        specs.iter().map(|spec: &FilterSpec| spec.options.name.clone()).collect();
    let loader = Arc::new(Loader::new(&args.cache)?);
    let server = Server::new(Clock::Real, args.log_level.into());
    let (worker, jobs) = worker::channel();
    let mut stage = Stage::new(server, loader.clone(), calls, log);
    if let Err(cause) = stage.load(specs) {
        if let Unloaded::Filter(error) = &cause
            && let Some(fail) = error.input(&args.filters.filters)
        {
            return Err(fail);
        }
        log.not_loaded(&cause.to_string())?;
        return Ok(Verdict::Bad);
    }
    log.listening(address, &names)?;

    let site = Site { worker: worker.clone(), upstream, pattern, max_body: args.max_body, log };
    std::thread::spawn(move || connection::accept(&listener, &Arc::new(site)));
    if !args.no_reload {
        std::thread::spawn(move || reload::watch(&args.filters, looks, &loader, &worker));
    }
    stage.run(&jobs)?;
    Ok(Verdict::Good)
}
