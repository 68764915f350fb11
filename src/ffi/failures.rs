//! What the error log is told of plugins, and of background jobs that fail.

use std::fmt;

use super::nginx;
use crate::abi::LogLevel;
use crate::callout::{self, FailureKind};
use crate::error::Error;
use crate::vm::Plugin;

/// Writes a line about the plugin of that name.
pub(super) fn log(name: &str, level: LogLevel, text: &str) {
    nginx::log(None, level, format!("wasm plugin \"{name}\": {text}").as_bytes());
}

/// A callback failed.
pub(super) fn report(plugin: &Plugin, error: &Error) {
    let line = format!("wasm plugin \"{}\": {error}", plugin.name());
    nginx::log(None, LogLevel::Error, line.as_bytes());
}

/// What a light thread says of a failure, by its word.
pub(super) fn failure(word: &[u8], details: &[u8]) -> callout::Failure {
    let kind = FailureKind::of_word(word).unwrap_or(FailureKind::Connect);
    callout::Failure::new(kind, String::from_utf8_lossy(details))
}

/// Says that a call failed on the way.
pub(super) fn report_call(plugin: &Plugin, kind: &str, upstream: &str, why: &dyn fmt::Display) {
    let name = plugin.name();
    let line = format!("wasm plugin \"{name}\": {kind} to {upstream} failed: {why}");
    nginx::log(None, LogLevel::Warn, line.as_bytes());
}
