//! Tests of the command `proxy-wasm`: each runs it as a user would.

mod bench;
mod command;
mod compile;
mod corpus;
mod hostile;
mod inspect;
mod pages;
mod registry;
mod run;
mod scenarios;
mod serve;
