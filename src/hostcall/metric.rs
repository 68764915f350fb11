//! Metrics: not built yet. Arguments are checked, so that a guest's mistake shows now and not later.

use wasmtime::Caller;

use super::memory::{Answer, slice, split};
use crate::abi::{MetricType, Status};
use crate::guest::State;

pub fn proxy_define_metric(
    caller: &mut Caller<'_, State>,
    kind: u32,
    name: u32,
    name_size: u32,
    return_id: u32,
) -> Answer {
    let (memory, state) = split(caller)?;
    MetricType::try_from(kind).map_err(|_| Status::BadArgument)?;
    slice(memory, name, name_size)?;
    slice(memory, return_id, 4)?;
    state.warn_once("metrics are not built yet in this version");
    Err(Status::InternalFailure.into())
}

pub fn proxy_increment_metric(_: &mut Caller<'_, State>, _id: u32, _delta: i64) -> Answer {
    Err(Status::NotFound.into())
}

pub fn proxy_record_metric(_: &mut Caller<'_, State>, _id: u32, _value: i64) -> Answer {
    Err(Status::NotFound.into())
}

pub fn proxy_get_metric(caller: &mut Caller<'_, State>, _id: u32, return_value: u32) -> Answer {
    let (memory, _) = split(caller)?;
    slice(memory, return_value, 8)?;
    Err(Status::NotFound.into())
}
