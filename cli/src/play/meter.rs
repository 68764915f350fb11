//! The time, memory and instructions of callbacks.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;

use super::counter::Instructions;

/// See the module.
pub struct Meter {
    instructions: Option<Instructions>,
    callbacks: BTreeMap<String, Series>,
    /// Bytes of memory that filters have, at equal distances.
    memory: Samples,
}

/// What is measured of one callback.
#[derive(Default)]
struct Series {
    times: Histogram,
    instructions: Histogram,
}

/// Values in buckets that are an eighth of an octave wide: good for percentiles to nine percent.
#[derive(Default)]
struct Histogram {
    buckets: BTreeMap<u32, u64>,
    count: u64,
    sum: u64,
    least: u64,
    most: u64,
}

const PARTS: u32 = 8;

/// Values over time, of which so many are kept at most that a line of a terminal shows them.
struct Samples {
    values: Vec<u64>,
    /// How many values each kept one stands for.
    step: u64,
    count: u64,
}

const MOST_SAMPLES: usize = 64;

/// What was measured.
#[derive(Debug, Default, Serialize)]
pub struct Figures {
    /// Callbacks for each second that they ran.
    pub callbacks_per_second: f64,
    /// Seconds that they ran in all.
    pub seconds: f64,
    pub callbacks: Vec<Callback>,
    /// Bytes of memory that filters had, at equal distances from the first request to the last.
    pub memory_bytes: Vec<u64>,
}

/// What one callback takes. Times are in nanoseconds.
#[derive(Debug, Serialize)]
pub struct Callback {
    /// Its name; several names where the host runs them at one go.
    pub name: String,
    pub count: u64,
    pub mean: f64,
    pub least: u64,
    pub median: u64,
    pub p99: u64,
    pub most: u64,
    /// The median; nothing where they are not counted.
    pub instructions: Option<u64>,
    /// How many took less than so many nanoseconds, and not less than half of that.
    pub histogram: Vec<(u64, u64)>,
}

/// What a callback began with.
pub struct Start {
    instructions: Option<u64>,
    time: Instant,
}

impl Meter {
    pub fn new(instructions: Option<Instructions>) -> Self {
        Self { instructions, callbacks: BTreeMap::new(), memory: Samples::new() }
    }

    /// Forgets what it has.
    pub fn reset(&mut self) {
        self.callbacks.clear();
        self.memory = Samples::new();
    }

    /// Before a filter is entered.
    pub fn start(&mut self) -> Start {
        let instructions = self.instructions.as_mut().and_then(Instructions::read);
        Start { instructions, time: Instant::now() }
    }

    /// After it.
    pub fn stop(
        &mut self,
        start: &Start,
        name: impl FnOnce() -> String,
        memory: impl FnOnce() -> u64,
    ) {
        let nanoseconds = u64::try_from(start.time.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let instructions = self.instructions.as_mut().and_then(Instructions::read);
        let name = name();
        self.memory.add(memory());
        if name.is_empty() {
            return;
        }
        let series = self.callbacks.entry(name).or_default();
        series.times.add(nanoseconds);
        if let Some((before, after)) = start.instructions.zip(instructions) {
            series.instructions.add(after.saturating_sub(before));
        }
    }

    pub fn finish(self) -> Figures {
        let callbacks: Vec<Callback> = self
            .callbacks
            .into_iter()
            .map(|(name, Series { times, instructions })| Callback {
                name,
                count: times.count,
                mean: times.sum as f64 / times.count.max(1) as f64,
                least: times.least,
                median: times.percentile(50),
                p99: times.percentile(99),
                most: times.most,
                instructions: (instructions.count > 0).then(|| instructions.percentile(50)),
                histogram: times.octaves(),
            })
            .collect();
        let count: u64 = callbacks.iter().map(|callback| callback.count).sum();
        let seconds =
            callbacks.iter().map(|callback| callback.mean * callback.count as f64).sum::<f64>()
                / 1e9;
        let callbacks_per_second = if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        Figures { callbacks_per_second, seconds, callbacks, memory_bytes: self.memory.values }
    }
}

impl Histogram {
    fn add(&mut self, value: u64) {
        *self.buckets.entry(bucket(value)).or_insert(0) += 1;
        self.least = if self.count == 0 { value } else { self.least.min(value) };
        self.most = self.most.max(value);
        self.count += 1;
        self.sum = self.sum.saturating_add(value);
    }

    /// The middle of the bucket that this part of all values does not pass.
    fn percentile(&self, percent: u64) -> u64 {
        let wanted = (self.count * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (bucket, count) in &self.buckets {
            seen += count;
            if seen >= wanted {
                return middle(*bucket).clamp(self.least, self.most);
            }
        }
        self.most
    }

    /// How many values are below each power of two and not below the one before.
    fn octaves(&self) -> Vec<(u64, u64)> {
        let mut all: BTreeMap<u32, u64> = BTreeMap::new();
        for (bucket, count) in &self.buckets {
            *all.entry(bucket / PARTS).or_insert(0) += count;
        }
        let (Some((first, _)), Some((last, _))) = (all.first_key_value(), all.last_key_value())
        else {
            return Vec::new();
        };
        let octaves = *first..=*last;
        let end = |octave: u32| 1u64.checked_shl(octave + 1).unwrap_or(u64::MAX);
        octaves.map(|octave| (end(octave), all.get(&octave).copied().unwrap_or(0))).collect()
    }
}

/// The bucket of a value: its octave, and the part of that.
fn bucket(value: u64) -> u32 {
    let value = value.max(1);
    let octave = value.ilog2();
    let part = if octave >= 3 { (value >> (octave - 3)) & 7 } else { (value << (3 - octave)) & 7 };
    octave * PARTS + part as u32
}

fn middle(bucket: u32) -> u64 {
    let (octave, part) = (bucket / PARTS, f64::from(bucket % PARTS));
    ((1.0 + (part + 0.5) / f64::from(PARTS)) * 2f64.powi(octave as i32)) as u64
}

impl Samples {
    fn new() -> Self {
        Self { values: Vec::new(), step: 1, count: 0 }
    }

    fn add(&mut self, value: u64) {
        if self.count.is_multiple_of(self.step) {
            if self.values.len() == MOST_SAMPLES {
                // Every other one is enough from here on.
                let mut index = 0;
                self.values.retain(|_| {
                    index += 1;
                    index % 2 == 1
                });
                self.step *= 2;
            }
            if self.count.is_multiple_of(self.step) {
                self.values.push(value);
            }
        }
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_near() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|value| histogram.add(value * 10));
        for (percent, value) in [(50, 5000.0), (99, 9900.0)] {
            let found = histogram.percentile(percent) as f64;
            assert!((found / value - 1.0).abs() < 0.1, "{percent}: {found}");
        }
        assert_eq!((histogram.least, histogram.most, histogram.count), (10, 10_000, 1000));
        let octaves = histogram.octaves();
        assert_eq!(octaves.iter().map(|(_, count)| count).sum::<u64>(), 1000);
        assert_eq!(octaves.first(), Some(&(16, 1)));
        assert_eq!(octaves.last(), Some(&(16_384, 181)));
    }

    #[test]
    fn the_least_and_the_largest_values_have_buckets() {
        let mut histogram = Histogram::default();
        for value in [0, 1, 2, 3, u64::MAX] {
            histogram.add(value);
        }
        assert_eq!((histogram.least, histogram.most), (0, u64::MAX));
        assert!(histogram.percentile(100) > u64::MAX / 2);
        assert_eq!(histogram.octaves().len(), 64);
    }

    #[test]
    fn samples_keep_their_distances() {
        let mut samples = Samples::new();
        (0..1000).for_each(|value| samples.add(value));
        assert!(samples.values.len() <= MOST_SAMPLES);
        let steps: Vec<u64> = samples.values.windows(2).map(|two| two[1] - two[0]).collect();
        assert!(steps.iter().all(|step| *step == samples.step), "{steps:?}");
    }
}
