//! Where each process is woken when there is a plan for it.
//!
//! One process says where it is woken and then looks for plans; another one makes a plan and then looks for whom to wake. A
//! processor may look before others see what it wrote, so that each misses the other: hence the fences. `loom/` runs it.

use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};

use super::process::Process;
use super::region::Region;
use super::sync::fence;
use crate::store::Address;

/// Counts plans: a later one has a larger number.
pub type PlanNumber = u32;

impl Region {
    /// The number of the last plan of any plugin; 0 when there is none.
    pub(super) fn last_plan(&self) -> PlanNumber {
        self.header().plans.load(Acquire)
    }

    /// Says where the process of that number is woken.
    pub(super) fn set_address(&self, number: u32, address: Address) {
        if let Some(place) = self.header().wakes.get(number as usize - 1) {
            place.store(address, Relaxed);
        }
        fence(SeqCst);
    }

    /// Where the processes that live are woken.
    pub(super) fn addresses(&self) -> Vec<Address> {
        fence(SeqCst);
        let header = self.header();
        let all = header.processes.iter().zip(&header.wakes);
        let living = all.filter(|(process, wake)| {
            wake.load(Relaxed) != 0 && !Process::from_bits(process.load(Relaxed)).is_gone()
        });
        living.map(|(_, wake)| wake.load(Relaxed)).collect()
    }
}
