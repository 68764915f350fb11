//! Calls of filters by upstream, counted by all workers together.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::Shared;
use super::layout::Kind;
use super::lock::Locked;
use super::region::Shareable;
use crate::limits;
use crate::store::{Refusal, Series, Type, Value};

/// What kind of call is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    Http,
    /// Calls and streams.
    Grpc,
}

/// What is counted of an upstream, by [`CallKind`].
#[repr(C)]
struct Calls {
    all: [AtomicU64; 2],
    failed: [AtomicU64; 2],
}

// SAFETY: made of atomics.
unsafe impl Shareable for Calls {}

/// The values of the label `kind`.
const KINDS: [&str; 2] = ["http", "grpc"];

/// What upstreams are counted under for which there is no room.
const OTHERS: &[u8] = b"others";

impl Shared {
    /// A call of a plugin to an upstream has ended.
    pub fn count_call(
        &self,
        plugin: &str,
        upstream: &str,
        kind: CallKind,
        failed: bool,
    ) -> Result<(), Refusal> {
        let upstream = &upstream.as_bytes()[..upstream.len().min(limits::COUNTED_UPSTREAM_BYTES)];
        let locked = self.lock()?;
        let mut key = upstream;
        loop {
            let hash = self.hash(Kind::Upstream, plugin.as_bytes(), key);
            let link = locked.find(Kind::Upstream, hash, plugin.as_bytes(), key).link;
            if let Some(calls) = locked.value::<Calls>(link) {
                calls.all[kind as usize].fetch_add(1, Relaxed);
                calls.failed[kind as usize].fetch_add(failed.into(), Relaxed);
                return Ok(());
            }
            let names = &locked.header().upstreams;
            if key != OTHERS && names.load(Relaxed) as usize >= limits::COUNTED_UPSTREAM_NAMES {
                key = OTHERS;
                continue;
            }
            locked.change(|| {
                names.store(names.load(Relaxed) + 1, Relaxed);
                let empty = [0; size_of::<Calls>()];
                locked.add(Kind::Upstream, hash, plugin.as_bytes(), key, &empty)
            })?;
        }
    }
}

impl Locked<'_> {
    /// What was counted of each upstream.
    pub(super) fn upstream_metrics(&self) -> Vec<Series> {
        let mut all = Vec::new();
        self.for_each(|link, node| {
            if node.is(Kind::Upstream)
                && let Some(calls) = self.value::<Calls>(link)
            {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let (plugin, upstream) =
                    (text(self.space_of(link, node)), text(self.key_of(link, node)));
                let counted = KINDS.iter().zip(calls.all.iter().zip(&calls.failed));
                for (kind, (ended, failed)) in counted {
                    let (ended, failed) = (ended.load(Relaxed), failed.load(Relaxed));
                    if ended == 0 {
                        continue;
                    }
                    for (name, help, number) in [
                        ("proxy_wasm_upstream_calls_total", "Calls of filters that ended", ended),
                        (
                            "proxy_wasm_upstream_failed_calls_total",
                            "Calls of filters that failed",
                            failed,
                        ),
                    ] {
                        all.push(Series {
                            name: name.into(),
                            help: help.into(),
                            kind: Type::Counter,
                            labels: vec![
                                ("plugin", plugin.clone()),
                                ("upstream", upstream.clone()),
                                ("kind", (*kind).into()),
                            ],
                            value: Value::Number(number.into()),
                        });
                    }
                }
            }
        });
        all
    }
}
