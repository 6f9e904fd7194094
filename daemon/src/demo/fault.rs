//! What goes wrong with a sensor: readings lost, and now and then a fault in what it measures.

use rand::RngExt;
use rand::rngs::StdRng;

/// How many readings pass between two on average.
const READINGS_BETWEEN_FAULTS: f64 = 288.0 * 8.0;
const READINGS_BETWEEN_OUTAGES: f64 = 288.0 * 12.0;
/// Share of readings lost one by one.
const LOST: f64 = 0.003;

/// Something wrong with a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// One wild value.
    Spike,
    /// The same value for hours.
    Stuck,
    /// A growing offset for hours.
    Drift,
}

#[derive(Debug, Clone, Copy)]
enum Course {
    Spike(f64),
    Stuck(Option<f64>),
    Drift { by: f64, length: u32 },
}

/// What is wrong with one device, reading by reading. A fault has one of its fields.
#[derive(Debug)]
pub(super) struct Faults {
    fields: usize,
    /// The present fault: field, readings passed, readings left, what.
    fault: Option<(usize, u32, u32, Course)>,
    silent: u32,
    /// Readings before the first may go wrong, so that a model first sees how things are.
    quiet: u32,
}

impl Faults {
    pub(super) fn new(fields: usize) -> Self {
        Faults { fields: fields.max(1), fault: None, silent: 0, quiet: 288 }
    }

    /// Goes on to the next reading; false if it is lost.
    pub(super) fn step(&mut self, rng: &mut StdRng) -> bool {
        self.quiet = self.quiet.saturating_sub(1);
        self.fault = match self.fault {
            Some((field, passed, left, course)) if left > 1 => Some((field, passed + 1, left - 1, course)),
            _ => None,
        };
        if self.fault.is_none() && self.quiet == 0 && rng.random_bool(1.0 / READINGS_BETWEEN_FAULTS) {
            let sign = if rng.random_bool(0.5) { 1.0 } else { -1.0 };
            let (course, length) = match rng.random_range(0..4) {
                0 | 1 => (Course::Spike(sign * rng.random_range(1.0..2.0)), 1),
                2 => (Course::Stuck(None), rng.random_range(18..60)),
                _ => {
                    let length = rng.random_range(30..90);
                    (Course::Drift { by: sign * rng.random_range(0.6..1.2), length }, length)
                }
            };
            self.fault = Some((rng.random_range(0..self.fields), 0, length, course));
        }
        self.silent = self.silent.saturating_sub(1);
        if self.silent == 0 && self.quiet == 0 && rng.random_bool(1.0 / READINGS_BETWEEN_OUTAGES) {
            self.silent = rng.random_range(8..40);
        }
        self.silent == 0 && !rng.random_bool(LOST)
    }

    /// What the device reports for a field, given what is true; `scale` is how far the field
    /// usually strays within a day.
    pub(super) fn apply(&mut self, field: usize, truth: f64, scale: f64) -> (f64, Option<Fault>) {
        match &mut self.fault {
            Some((at, passed, _, course)) if *at == field => match course {
                Course::Spike(by) => (truth + *by * scale, Some(Fault::Spike)),
                Course::Stuck(value) => (*value.get_or_insert(truth), Some(Fault::Stuck)),
                Course::Drift { by, length } => {
                    let share = f64::from(*passed + 1) / f64::from((*length).max(1));
                    (truth + *by * scale * share, Some(Fault::Drift))
                }
            },
            _ => (truth, None),
        }
    }
}
