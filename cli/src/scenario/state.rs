//! What filters of a chain have made that lasts: metrics and shared data.

use std::collections::BTreeMap;

use crate::core::ports::Stores as _;
use crate::play::chain::{Chain, text};
use crate::run::report::{Number, guest_metrics};

/// Metrics of all filters, by name alone.
pub fn metrics(chain: &Chain) -> BTreeMap<String, i128> {
    let mut all = BTreeMap::new();
    for (name, number) in guest_metrics(chain) {
        let plain = name.rsplit_once('{').map_or(name.as_str(), |(plain, _)| plain).to_owned();
        let count = match number {
            Number::Count(count) => count,
            Number::Histogram { count, .. } => count.into(),
        };
        *all.entry(plain).or_insert(0) += count;
    }
    all
}

/// A value of shared data.
pub fn shared(chain: &Chain, vm_id: &str, key: &str) -> Option<String> {
    let mut value = Vec::new();
    let found = chain.server.shared()?.get(vm_id.as_bytes(), key.as_bytes(), &mut value);
    matches!(found, Ok(Some(_))).then(|| text(&value))
}
