//! What the command says of itself: completions for shells and manual pages.

use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::args::Args;
use crate::fail::{Fail, Verdict};
use crate::out;

/// Prints a completion script.
pub fn completions(shell: Shell) -> Result<Verdict, Fail> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "proxy-wasm", &mut script);
    out::text(&String::from_utf8_lossy(&script))?;
    Ok(Verdict::Good)
}

/// Prints the manual page of the command, or writes one for it and each of its commands into a folder.
pub fn man(folder: Option<&Path>) -> Result<Verdict, Fail> {
    match folder {
        Some(folder) => {
            clap_mangen::generate_to(Args::command(), folder)
                .map_err(|error| Fail::outside(format!("{}: {error}", folder.display())))?;
        }
        None => {
            let mut page = Vec::new();
            Man::new(Args::command())
                .render(&mut page)
                .map_err(|error| Fail::outside(format!("the manual page: {error}")))?;
            out::text(&String::from_utf8_lossy(&page))?;
        }
    }
    Ok(Verdict::Good)
}
