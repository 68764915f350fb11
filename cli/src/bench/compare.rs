//! Two filters beside each other.

use serde::Serialize;

use crate::play::meter::{Callback, Figures};

/// Each callback that both have.
#[derive(Debug, Serialize)]
pub struct Comparison {
    pub callbacks: Vec<Row>,
}

/// What a callback takes in the first filter and in the other one.
#[derive(Debug, Serialize)]
pub struct Row {
    pub name: String,
    /// The medians, in nanoseconds.
    pub nanoseconds: (u64, u64),
    pub instructions: Option<(u64, u64)>,
    /// How much more the first one takes, in percent: by instructions where they are counted, else by time.
    pub percent: f64,
}

impl Comparison {
    pub fn new(first: &Figures, other: &Figures) -> Self {
        let beside = |callback: &Callback| {
            let same = other.callbacks.iter().find(|same| same.name == callback.name)?;
            let instructions = callback.instructions.zip(same.instructions);
            let nanoseconds = (callback.median, same.median);
            let (a, b) = instructions.unwrap_or(nanoseconds);
            let percent = (a as f64 / b.max(1) as f64 - 1.0) * 100.0;
            Some(Row { name: callback.name.clone(), nanoseconds, instructions, percent })
        };
        Self { callbacks: first.callbacks.iter().filter_map(beside).collect() }
    }

    /// The most that the first filter takes more, in percent.
    pub fn worst(&self) -> Option<f64> {
        self.callbacks.iter().map(|row| row.percent).max_by(f64::total_cmp)
    }
}
