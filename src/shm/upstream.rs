//! Calls of filters by upstream, counted by all workers together.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::Shared;
use super::lock::Locked;
use super::node::Kind;
use super::region::Shareable;
use crate::limits;
use crate::store::{Refusal, Series, Type, Value};

/// What is counted of an upstream.
#[repr(C)]
struct Calls {
    all: AtomicU64,
    failed: AtomicU64,
}

// SAFETY: made of atomics.
unsafe impl Shareable for Calls {}

/// What upstreams are counted under for which there is no room.
const OTHERS: &[u8] = b"others";

impl Shared {
    /// A call of a plugin to an upstream has ended.
    pub fn count_call(&self, plugin: &str, upstream: &str, failed: bool) -> Result<(), Refusal> {
        let upstream = &upstream.as_bytes()[..upstream.len().min(limits::COUNTED_UPSTREAM_BYTES)];
        let locked = self.lock()?;
        let mut key = upstream;
        loop {
            let hash = self.hash(Kind::Upstream, plugin.as_bytes(), key);
            let link = locked.find(Kind::Upstream, hash, plugin.as_bytes(), key).link;
            if let Some(calls) = locked.value::<Calls>(link) {
                calls.all.fetch_add(1, Relaxed);
                calls.failed.fetch_add(failed.into(), Relaxed);
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
                let labels = vec![
                    ("plugin", text(self.space_of(link, node))),
                    ("upstream", text(self.key_of(link, node))),
                ];
                for (name, help, number) in [
                    (
                        "proxy_wasm_upstream_calls_total",
                        "HTTP calls of filters that ended",
                        &calls.all,
                    ),
                    (
                        "proxy_wasm_upstream_failed_calls_total",
                        "HTTP calls of filters that failed",
                        &calls.failed,
                    ),
                ] {
                    all.push(Series {
                        name: name.into(),
                        help: help.into(),
                        kind: Type::Counter,
                        labels: labels.clone(),
                        value: Value::Number(number.load(Relaxed).into()),
                    });
                }
            }
        });
        all
    }
}
