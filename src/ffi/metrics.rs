//! Metrics: a list for Lua, a text for Prometheus.

use std::ffi::c_char;

use sha2::{Digest as _, Sha256};

use super::boundary::{boundary, with_worker};
use super::failure::Failure;
use super::lent::Metrics;
use super::process::PROCESS;
use super::shared_memory::{none, refused};
use super::types::{
    self, RPW_CONTINUE, rpw_bucket_t, rpw_error_t, rpw_metric_t, rpw_pair_t, rpw_presence_t,
};
use crate::store::{Presence, Series, Value, exposition};

/// Lists all metrics: those of filters and those of the host.
///
/// # Returns
/// `RPW_CONTINUE` with the metrics in `*list`, good until the next call of this function; `RPW_ERROR`.
/// # Safety
/// `list` and `count` are valid, `error` NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_metrics(
    list: *mut *const rpw_metric_t,
    count: *mut usize,
    error: *mut rpw_error_t,
) -> i32 {
    with_worker(error, |worker| {
        // SAFETY: as promised by the caller.
        let (Some(list), Some(count)) = (unsafe { (list.as_mut(), count.as_mut()) }) else {
            return Err(Failure::new("rpw_metrics: NULL argument"));
        };
        let all = PROCESS.shared.get_for_data().ok_or_else(none)?.metrics().map_err(refused)?;
        let out = &mut *worker.lent.metrics.borrow_mut();
        *out = Metrics { all, ..Metrics::default() };
        out.labels.extend(out.all.iter().map(labels));
        out.buckets.extend(out.all.iter().map(buckets));
        let lists = out.labels.iter().zip(&out.buckets);
        out.list.extend(out.all.iter().zip(lists).map(|(series, (labels, buckets))| {
            let kind = series.kind.name();
            rpw_metric_t {
                name: series.name.as_ptr().cast(),
                name_length: series.name.len(),
                kind: kind.as_ptr().cast(),
                kind_length: kind.len(),
                labels: labels.as_ptr(),
                labels_length: labels.len(),
                value: match &series.value {
                    Value::Number(number) => *number as f64,
                    Value::Histogram { sum, .. } => *sum,
                },
                buckets: buckets.as_ptr(),
                buckets_length: buckets.len(),
            }
        }));
        *list = out.list.as_ptr();
        *count = out.list.len();
        Ok(RPW_CONTINUE)
    })
}

fn labels(series: &Series) -> Vec<rpw_pair_t> {
    let pair = |(name, value): &(&'static str, String)| rpw_pair_t {
        name_length: name.len() as i32,
        name: name.as_ptr().cast(),
        value_length: i32::try_from(value.len()).unwrap_or(i32::MAX),
        value: value.as_ptr().cast(),
    };
    series.labels.iter().map(pair).collect()
}

fn buckets(series: &Series) -> Vec<rpw_bucket_t> {
    match &series.value {
        Value::Number(_) => Vec::new(),
        Value::Histogram { buckets, .. } => {
            buckets.iter().map(|(end, count)| rpw_bucket_t { le: *end, count: *count }).collect()
        }
    }
}

/// Shows all metrics in Prometheus' text format.
///
/// # Returns
/// `RPW_CONTINUE` with the text in `*text`, good until the next call of this function; `RPW_ERROR`.
/// # Safety
/// `text` and `length` are valid, `error` NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_prometheus(
    text: *mut *const c_char,
    length: *mut usize,
    error: *mut rpw_error_t,
) -> i32 {
    with_worker(error, |worker| {
        // SAFETY: as promised by the caller.
        let (Some(text), Some(length)) = (unsafe { (text.as_mut(), length.as_mut()) }) else {
            return Err(Failure::new("rpw_prometheus: NULL argument"));
        };
        let all = PROCESS.shared.get_for_data().ok_or_else(none)?.metrics().map_err(refused)?;
        let out = &mut *worker.lent.metrics.borrow_mut();
        out.text = exposition(&all);
        *text = out.text.as_ptr().cast();
        *length = out.text.len();
        Ok(RPW_CONTINUE)
    })
}

/// Lists the plugins of all processes.
///
/// # Returns
/// `RPW_CONTINUE` with one for each plugin and process in `*list`, by name, good until the next call of this function;
/// `RPW_ERROR`.
/// # Safety
/// `list` and `count` are valid, `error` NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_presences(
    list: *mut *const rpw_presence_t,
    count: *mut usize,
    error: *mut rpw_error_t,
) -> i32 {
    with_worker(error, |worker| {
        // SAFETY: as promised by the caller.
        let (Some(list), Some(count)) = (unsafe { (list.as_mut(), count.as_mut()) }) else {
            return Err(Failure::new("rpw_presences: NULL argument"));
        };
        let all = PROCESS.shared.get_for_data().ok_or_else(none)?.presences().map_err(refused)?;
        let out = &mut *worker.lent.metrics.borrow_mut();
        out.presences = all;
        out.rows = out.presences.iter().map(row).collect();
        *list = out.rows.as_ptr();
        *count = out.rows.len();
        Ok(RPW_CONTINUE)
    })
}

fn row(of: &Presence) -> rpw_presence_t {
    rpw_presence_t {
        name: of.name.as_ptr().cast(),
        name_length: of.name.len(),
        error: of.error.as_ptr().cast(),
        error_length: of.error.len(),
        pid: of.pid,
        version: of.version as u32,
        failing: of.failing.into(),
        digest: of.digest,
        since: of.since as f64,
        contexts: of.contexts as f64,
        streams: of.streams as f64,
        memory: of.memory as f64,
        memory_limit: of.memory_limit as f64,
        traps: of.traps as f64,
        loading: of.loading as f64,
        loading_since: of.loading_since as f64,
        loading_stage: of.loading_at[0] as u32,
        loading_compiled: of.loading_at[1] as u32,
        loading_functions: of.loading_at[2] as u32,
        error_at: of.error_at as f64,
    }
}

/// SHA-256 of a text.
///
/// # Returns
/// `RPW_CONTINUE` with 32 bytes in `*digest`.
/// # Safety
/// `text` has the given length, `digest` has room for 32 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_sha256(
    text: *const c_char,
    length: usize,
    digest: *mut c_char,
) -> i32 {
    boundary(std::ptr::null_mut(), || {
        // SAFETY: as promised by the caller.
        let found = Sha256::digest(unsafe { types::bytes(text, length) });
        // SAFETY: as promised by the caller.
        unsafe { std::ptr::copy_nonoverlapping(found.as_ptr(), digest.cast(), found.len()) };
        Ok(RPW_CONTINUE)
    })
}
