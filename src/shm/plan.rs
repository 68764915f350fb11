//! Which module a plugin was replaced with at run time, for all workers to follow.

use std::sync::atomic::Ordering::{Relaxed, Release};

use super::Shared;
use super::layout::Kind;
use super::wake::PlanNumber;
use crate::limits;
use crate::store::{Address, Refusal};

/// Bytes of the number in front of a plan.
const NUMBER: usize = size_of::<PlanNumber>();

impl Shared {
    /// The number of the last plan of any plugin; 0 when there is none. Takes no lock.
    pub fn last_plan(&self) -> PlanNumber {
        self.region.last_plan()
    }

    /// Makes a plan for the plugins of that name, in place of the one before. Returns its number.
    pub fn set_plan(&self, plugin: &[u8], plan: &[u8]) -> Result<PlanNumber, Refusal> {
        if plugin.len() > limits::SHARED_KEY || plan.len() > limits::SHARED_VALUE {
            return Err(Refusal::TooLarge);
        }
        let hash = self.hash(Kind::Plan, b"", plugin);
        let locked = self.lock()?;
        locked.change(|| {
            let plans = &locked.header().plans;
            let number = plans.load(Relaxed).checked_add(1).ok_or(Refusal::TooMany)?;
            let mut value = number.to_le_bytes().to_vec();
            value.extend_from_slice(plan);
            locked.add(Kind::Plan, hash, b"", plugin, &value)?;
            plans.store(number, Release);
            Ok(number)
        })
    }

    /// The plan for the plugins of that name.
    pub fn plan(&self, plugin: &[u8]) -> Result<Option<(PlanNumber, Vec<u8>)>, Refusal> {
        let hash = self.hash(Kind::Plan, b"", plugin);
        let locked = self.lock()?;
        let link = locked.find(Kind::Plan, hash, b"", plugin).link;
        let value = locked.node(link).map(|node| locked.value_of(link, node));
        Ok(value.and_then(|value| {
            let (number, plan) = value.split_first_chunk::<NUMBER>()?;
            Some((PlanNumber::from_le_bytes(*number), plan.to_vec()))
        }))
    }

    /// Says where this process is woken. A plan that was made before is the last one from then on; a process that makes a later one
    /// finds the address.
    pub fn set_address(&self, address: Address) -> Result<(), Refusal> {
        let number = self.region.number()?;
        self.region.set_address(number, address);
        Ok(())
    }

    /// Where the processes that live are woken.
    pub fn addresses(&self) -> Vec<Address> {
        self.region.addresses()
    }
}
