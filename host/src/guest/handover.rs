//! Values on their way to the guest, which makes room for them with its own allocator.

use crate::limits;

/// Where a host function writes the address and the size of a value.
#[derive(Clone, Copy, Default)]
pub struct Return {
    /// Address of the address.
    pub data: u32,
    /// Address of the size.
    pub size: u32,
}

/// A value on its way.
#[derive(Default)]
pub struct Handover {
    /// The value.
    pub value: Vec<u8>,
    /// Where it is told where the value is.
    pub to: Return,
    /// A number that goes with the value, and the address where it is written.
    pub number: Option<(u32, u32)>,
}

/// All of a VM: the allocator may ask for values, too, and each of these has a place of its own, of which the buffer is
/// used again.
#[derive(Default)]
pub struct Handovers {
    places: [Handover; limits::HANDOVERS + 1],
    running: usize,
}

impl Handovers {
    /// The one that is built or handed over now.
    pub fn current(&mut self) -> &mut Handover {
        &mut self.places[self.running]
    }

    /// The allocator is about to run for the current one. False when it runs for as many as may be.
    pub fn begin(&mut self) -> bool {
        let begins = self.running < limits::HANDOVERS;
        self.running += usize::from(begins);
        begins
    }

    /// The allocator has run, and the one that it ran for is the current one again.
    pub fn end(&mut self) {
        self.running = self.running.saturating_sub(1);
    }
}
