//! See the library.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use proxy_wasm_cli::args::Args;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) if error.use_stderr() && std::env::args_os().any(|arg| arg == "--json") => {
            // As other errors, for readers of the output only.
            let _ = error.print();
            let text = error.render().to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            let error = serde_json::json!({ "error": text.lines().next().unwrap_or(text) });
            // A reader that is gone changes nothing.
            let _ = writeln!(io::stdout(), "{error}");
            return ExitCode::from(2);
        }
        Err(error) => error.exit(),
    };
    let json = args.json;
    match proxy_wasm_cli::execute(args) {
        Ok(verdict) => verdict.into(),
        Err(fail) => fail.tell(json),
    }
}
