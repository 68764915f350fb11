//! Metrics: a list for Lua, a text for Prometheus.

use std::cell::RefCell;
use std::ffi::c_char;

use super::shared::{none, refused, shared_by_all};
use super::{Failure, RPW_CONTINUE, boundary, rpw_bucket_t, rpw_error_t, rpw_metric_t, rpw_pair_t};
use crate::store::{Series, Value, exposition};

thread_local! {
    static OUT: RefCell<Out> = RefCell::default();
}

/// What the last answers point to.
#[derive(Default)]
struct Out {
    all: Vec<Series>,
    labels: Vec<Vec<rpw_pair_t>>,
    buckets: Vec<Vec<rpw_bucket_t>>,
    list: Vec<rpw_metric_t>,
    text: String,
}

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
    boundary(error, || {
        // SAFETY: as promised by the caller.
        let (Some(list), Some(count)) = (unsafe { (list.as_mut(), count.as_mut()) }) else {
            return Err(Failure::new("rpw_metrics: NULL argument"));
        };
        let all = shared_by_all().ok_or_else(none)?.metrics().map_err(refused)?;
        OUT.with_borrow_mut(|out| {
            *out = Out { all, ..Out::default() };
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
        });
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
    boundary(error, || {
        // SAFETY: as promised by the caller.
        let (Some(text), Some(length)) = (unsafe { (text.as_mut(), length.as_mut()) }) else {
            return Err(Failure::new("rpw_prometheus: NULL argument"));
        };
        let all = shared_by_all().ok_or_else(none)?.metrics().map_err(refused)?;
        OUT.with_borrow_mut(|out| {
            out.text = exposition(&all);
            *text = out.text.as_ptr().cast();
            *length = out.text.len();
        });
        Ok(RPW_CONTINUE)
    })
}
