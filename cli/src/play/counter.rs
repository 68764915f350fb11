//! Instructions, counted by the processor where the system lets us.

/// Counts the instructions of this thread outside of the kernel.
#[derive(Clone)]
pub struct Instructions(imp::Counter);

impl Instructions {
    /// The error says why they are not counted here.
    pub fn new() -> Result<Self, String> {
        imp::new().map(Self)
    }

    /// How many there were so far.
    pub fn read(&mut self) -> Option<u64> {
        imp::read(&mut self.0)
    }
}

#[cfg(target_os = "linux")]
mod imp {
    use std::cell::RefCell;
    use std::rc::Rc;

    use perf_event::Builder;
    use perf_event::events::Hardware;

    pub type Counter = Rc<RefCell<perf_event::Counter>>;

    pub fn new() -> Result<Counter, String> {
        let not = |error: std::io::Error| format!("perf_event_open: {error}");
        let mut counter = Builder::new(Hardware::INSTRUCTIONS).build().map_err(not)?;
        counter.enable().map_err(not)?;
        Ok(Rc::new(RefCell::new(counter)))
    }

    pub fn read(counter: &mut Counter) -> Option<u64> {
        counter.borrow_mut().read().ok()
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    #[derive(Clone)]
    pub enum Counter {}

    pub fn new() -> Result<Counter, String> {
        Err("it takes Linux".into())
    }

    pub fn read(counter: &mut Counter) -> Option<u64> {
        match *counter {}
    }
}
