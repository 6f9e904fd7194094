//! Drift: whether a stream's forecasts have become worse than they were after its model came in.
//!
//! Two figures are watched, each the mean over a block of readings of all series: the error of the median
//! over that of the last value on the same readings, which a livelier world raises alike, and the share
//! of readings outside the calibrated 90 % interval. Each has a one-sided CUSUM (Page, Continuous
//! Inspection Schemes, Biometrika 41, 1954): what lies more than half a usual deviation above the mean of
//! the first blocks adds up, and drift is said once the sum passes a bound.

use crate::series::Verification;

/// Readings of a block at least; with many series, one reading each.
const BLOCK: u32 = 50;
/// First blocks, that say what is usual.
const USUAL: u32 = 40;
/// Deviations above the mean that are not yet drift.
const SLACK: f64 = 0.5;
/// Sum of deviations at which it is drift: by Siegmund's approximation (Sequential Analysis, 1985) one false
/// alarm in some 10^5 blocks of independent ones.
const BOUND: f64 = 10.0;
/// Bound on a block's error over the naive forecast's: where hardly anything moved it says little.
const WORST: f64 = 3.0;
/// Bound on what one block adds: a single bad one is a fault, not drift.
const MOST: f64 = 4.0;

/// What has drifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drift {
    /// The error, over the naive forecast's.
    Error,
    /// The share of readings outside the 90 % interval.
    Coverage,
}

impl Drift {
    /// In words.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Drift::Error => "the error grows against the naive forecast's",
            Drift::Coverage => "more readings than before fall outside the 90 % interval",
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Cusum {
    blocks: u32,
    mean: f64,
    squares: f64,
    sum: f64,
}

impl Cusum {
    fn add(&mut self, x: f64) {
        if self.blocks < USUAL {
            self.blocks += 1;
            let off = x - self.mean;
            self.mean += off / f64::from(self.blocks);
            self.squares += off * (x - self.mean);
            return;
        }
        let deviation = (self.squares / f64::from(USUAL - 1)).sqrt().max(0.01 * self.mean.abs()).max(1e-6);
        self.sum = (self.sum + ((x - self.mean) / deviation - SLACK).min(MOST)).max(0.0);
    }
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Detector {
    readings: u32,
    error: f64,
    naive_error: f64,
    missed: u32,
    errors: Cusum,
    misses: Cusum,
}

impl Detector {
    /// Takes in how a forecast did, on a stream of so many series.
    pub(super) fn observe(&mut self, v: &Verification, series: u32) {
        self.readings += 1;
        self.error += v.error;
        self.naive_error += v.naive_error;
        self.missed += u32::from(!v.inside);
        if self.readings >= series.max(BLOCK) {
            // Where nothing moved, nothing is said of the error.
            if self.naive_error > 0.0 {
                self.errors.add((self.error / self.naive_error).min(WORST));
            }
            self.misses.add(f64::from(self.missed) / f64::from(self.readings));
            (self.readings, self.missed, self.error, self.naive_error) = (0, 0, 0.0, 0.0);
        }
    }

    /// What has drifted since it began.
    pub(super) fn drift(&self) -> Option<Drift> {
        if self.errors.sum > BOUND {
            return Some(Drift::Error);
        }
        (self.misses.sum > BOUND).then_some(Drift::Coverage)
    }
}
