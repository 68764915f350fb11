//! Ops of the probe side by side with what each must answer.

use super::support::{Outcome, Probe};

/// Pairs of an op and what stands behind the arrow of its log line.
pub type Ops<'a> = &'a [(&'a str, &'a str)];

/// The script that runs them in a callback.
pub fn script(callback: &str, ops: Ops<'_>) -> String {
    ops.iter()
        .map(|(op, _)| format!("{callback}: {op}\n"))
        .collect()
}

/// What [`Outcome::of`] gives when each answered as it must.
pub fn answers(ops: Ops<'_>) -> Vec<String> {
    ops.iter()
        .map(|(op, answer)| format!("{op} -> {answer}"))
        .collect()
}

/// Runs them in a callback of `GET /`.
pub fn check(callback: &str, ops: Ops<'_>) -> Outcome {
    check_on(callback, ops, |probe| probe)
}

/// The same with a probe that the closure completes.
pub fn check_on(callback: &str, ops: Ops<'_>, complete: impl FnOnce(Probe) -> Probe) -> Outcome {
    let run = complete(Probe::new(&script(callback, ops))).run();
    assert_eq!(run.of(callback), answers(ops));
    run
}

/// The request that the echo server got: its request line, and its headers in order, names as sent.
pub fn echoed(body: &str) -> (&str, Vec<(&str, &str)>) {
    let head = body.split("\r\n\r\n").next().unwrap_or_default();
    let (line, headers) = head.split_once("\r\n").unwrap_or((head, ""));
    let headers = headers
        .lines()
        .filter_map(|header| header.split_once(": "))
        .collect();
    (line, headers)
}
