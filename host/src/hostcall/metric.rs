//! Metrics. A guest knows one by its place among those that its VM has defined, from 1: so it reaches no others.

use wasmtime::Caller;

use super::memory::{Answer, slice, split, write_u32, write_u64};
use super::shared_data::refused;
use crate::abi::{MetricType, Status};
use crate::guest::State;
use crate::store::Metric;

pub(super) fn proxy_define_metric(
    caller: &mut Caller<'_, State>,
    kind: u32,
    name: u32,
    name_size: u32,
    return_id: u32,
) -> Answer {
    let (memory, state) = split(caller)?;
    let name = slice(memory, name, name_size)?;
    slice(memory, return_id, 4)?;
    let kind = MetricType::try_from(kind).map_err(|_| Status::BadArgument)?;
    let host = state.host.clone();
    let shared = host.shared().ok_or(Status::InternalFailure)?;
    let metric = match shared.define(state.plugin.name.as_bytes(), kind, name) {
        Ok(metric) => metric,
        Err(refusal) => return Err(refused(state, refusal)),
    };
    let known = state.metrics.iter().position(|known| *known == metric);
    let at = known.unwrap_or_else(|| {
        state.metrics.push(metric);
        state.metrics.len() - 1
    });
    // `limits::METRIC_NAMES` is less.
    Ok(write_u32(memory, return_id, at as u32 + 1)?)
}

pub(super) fn proxy_increment_metric(
    caller: &mut Caller<'_, State>,
    id: u32,
    delta: i64,
) -> Answer {
    let state = caller.data();
    let metric = find(state, id)?;
    if metric.kind == MetricType::Counter && delta <= 0 {
        return Err(Status::BadArgument.into());
    }
    let shared = state.host.shared().ok_or(Status::NotFound)?;
    if shared.add(metric, delta) { Ok(()) } else { Err(Status::BadArgument.into()) }
}

pub(super) fn proxy_record_metric(caller: &mut Caller<'_, State>, id: u32, value: i64) -> Answer {
    let state = caller.data();
    let metric = find(state, id)?;
    if metric.kind != MetricType::Gauge && value < 0 {
        return Err(Status::BadArgument.into());
    }
    state.host.shared().ok_or(Status::NotFound)?.record(metric, value);
    Ok(())
}

pub(super) fn proxy_get_metric(
    caller: &mut Caller<'_, State>,
    id: u32,
    return_value: u32,
) -> Answer {
    let (memory, state) = split(caller)?;
    slice(memory, return_value, 8)?;
    let metric = find(state, id)?;
    let shared = state.host.shared().ok_or(Status::NotFound)?;
    let value = shared.read(metric).ok_or(Status::BadArgument)?;
    Ok(write_u64(memory, return_value, value)?)
}

fn find(state: &State, id: u32) -> Result<Metric, Status> {
    let at = (id as usize).checked_sub(1);
    at.and_then(|at| state.metrics.get(at)).copied().ok_or(Status::NotFound)
}
