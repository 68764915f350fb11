//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::bench::BenchArgs;
use crate::compile::CompileArgs;
use crate::inspect::InspectArgs;
use crate::oci::{PullArgs, PushArgs};
use crate::run::RunArgs;
use crate::scenario::command::TestArgs;
use crate::serve::ServeArgs;

/// Looks at Proxy-Wasm filters, plays requests through them, tests, serves and measures them and carries them around, without
/// nginx.
///
/// Exit codes: 0 when all is well; 1 when a filter would be refused, a test failed or the like; 2 when an argument, a file or
/// a scenario is not what it must be; 3 when something outside failed (a disk, a network, a registry).
#[derive(Debug, Parser)]
#[command(name = "proxy-wasm", version = proxy_wasm_host::version::TEXT, propagate_version = true)]
pub struct Args {
    /// Print the result as JSON.
    #[arg(long, global = true)]
    pub json: bool,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one of it")]
pub enum Command {
    /// Say what a filter is, what it needs, and what it would be refused for
    Inspect(InspectArgs),
    /// Play one request and its response through filters, and show what they do
    Run(RunArgs),
    /// Play scenarios of filters, and say what is not as they expect
    Test(TestArgs),
    /// Serve filters in front of an upstream, as a local HTTP proxy
    Serve(ServeArgs),
    /// Measure what the callbacks of filters cost
    Bench(BenchArgs),
    /// Compile filters ahead of time for the folder of setup{ cache_dir }
    Compile(CompileArgs),
    /// Fetch a filter from an OCI registry into the local store
    Pull(PullArgs),
    /// Upload a filter to an OCI registry
    Push(PushArgs),
    /// Print a script that completes this command's arguments in a shell
    Completions {
        /// The shell that it is for
        shell: Shell,
    },
    /// Print the manual page, or write the pages of all commands into a folder
    Man {
        /// The folder, which must be there
        folder: Option<PathBuf>,
    },
}
