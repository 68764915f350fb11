//! See the library.

use std::process::ExitCode;

use clap::Parser as _;
use proxy_wasm_cli::args::Args;

fn main() -> ExitCode {
    let args = Args::parse();
    let json = args.json;
    match proxy_wasm_cli::execute(args) {
        Ok(verdict) => verdict.into(),
        Err(fail) => fail.tell(json),
    }
}
