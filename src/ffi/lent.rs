//! What the last answers of exports point to.

use std::cell::RefCell;

use super::plans::Plan;
use super::types::{rpw_bucket_t, rpw_metric_t, rpw_pair_t, rpw_presence_t};
use crate::store::{Presence, Series};

/// See the module.
#[derive(Default)]
pub(super) struct Lent {
    /// Of `rpw_plan_next`: the plugin and its plan.
    pub plan: RefCell<Option<(String, Plan)>>,
    /// Of shared data.
    pub shared: RefCell<SharedData>,
    /// Of metrics and plugins.
    pub metrics: RefCell<Metrics>,
}

/// An entry, or keys.
#[derive(Default)]
pub(super) struct SharedData {
    pub value: Vec<u8>,
    pub keys: Vec<Vec<u8>>,
    pub list: Vec<rpw_pair_t>,
}

/// Metrics, or plugins.
#[derive(Default)]
pub(super) struct Metrics {
    pub all: Vec<Series>,
    pub labels: Vec<Vec<rpw_pair_t>>,
    pub buckets: Vec<Vec<rpw_bucket_t>>,
    pub list: Vec<rpw_metric_t>,
    pub text: String,
    pub presences: Vec<Presence>,
    pub rows: Vec<rpw_presence_t>,
}
