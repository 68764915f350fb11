//! The command `proxy-wasm`: looks at filters, plays requests through them, tests them and carries them around, all by the
//! core that runs them in nginx.
//!
//! - [`args`] is the command line, [`execute`] does what it says, [`fail`] has the exit codes, [`out`] the two kinds of output.
//! - [`source`] finds a filter's bytes, [`play`] is a server without sockets that filters run in.
//! - Each command has a module of its name.

pub mod args;
pub mod bench;
pub mod compile;
mod core;
mod docs;
pub mod fail;
pub mod inspect;
pub mod oci;
mod out;
mod play;
mod printable;
pub mod run;
pub mod scenario;
pub mod serve;
mod source;
mod text;

use args::{Args, Command};
use fail::{Fail, Verdict};

/// Does what the command line says.
pub fn execute(args: Args) -> Result<Verdict, Fail> {
    match args.command {
        Command::Inspect(of) => inspect::run(&of, args.json),
        Command::Run(of) => run::run(&of, args.json),
        Command::Test(of) => scenario::command::run(&of, args.json),
        Command::Serve(of) => serve::run(of, args.json),
        Command::Bench(of) => bench::run(&of, args.json),
        Command::Compile(of) => compile::run(&of, args.json),
        Command::Pull(of) => oci::pull(&of, args.json),
        Command::Push(of) => oci::push(&of, args.json),
        Command::Completions { shell } => docs::completions(shell),
        Command::Man { folder } => docs::man(folder.as_deref()),
    }
}
