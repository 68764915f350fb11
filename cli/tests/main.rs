//! Tests of the command `proxy-wasm`: each runs it as a user would.

mod bench;
mod command;
mod compile;
mod inspect;
mod registry;
mod run;
mod scenarios;
mod serve;
