//! The spread of an expert's recent errors.

use serde::{Deserialize, Serialize};

use crate::aggregate::{Lanes, MEAN};
use crate::reading::LEVELS;

/// Quantiles of a normal distribution whose mean size is 1.
const NORMAL: [f32; 7] = [-2.06, -1.61, -0.845, 0.0, 0.845, 1.61, 2.06];
/// Step of the quantiles once settled, in mean sizes.
const STEP: f32 = 0.01;
/// Weight of the newest error in the usual size, once settled, and in the size of the moment.
const WEIGHTS: [f32; 2] = [0.005, 0.08];
/// Bound on an error, in sizes, or in as many small ones.
const BOUND: f32 = 20.0;
/// A usual size below this, in units of the scale, does not bound errors: after a constant stretch they
/// count at once.
const SMALL: f32 = 0.1;
/// Least and largest size taken over as the scale changes, in units of it.
const LEAST: f32 = 1e-4;
const MOST: f32 = 100.0;

/// Quantiles of errors in units of their size at the moment, so that the spread follows calm and lively
/// times; each is found by steps up and down in the ratio of its level.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    seen: u32,
    usual: f32,
    now: f32,
    quantiles: [f32; 7],
}

impl Default for Spread {
    fn default() -> Self {
        Spread::of_size(1.0)
    }
}

impl Spread {
    /// A normal spread, whose errors have this mean size.
    pub(crate) fn of_size(size: f32) -> Spread {
        Spread { seen: 0, usual: size, now: size, quantiles: NORMAL }
    }

    /// Size of errors at the moment.
    pub(crate) fn size(&self) -> f32 {
        (0.5 * (self.usual + self.now)).max(1e-9)
    }

    /// How lively it is now against what is usual.
    pub(crate) fn liveliness(&self) -> f32 {
        (self.now + 1e-9) / (self.usual + 1e-9)
    }

    /// Takes in an error.
    pub(crate) fn learn(&mut self, error: f32) {
        self.seen = self.seen.saturating_add(1);
        let unit = (error / self.size()).clamp(-BOUND, BOUND);
        let step = 2.0 * (1.0 / (self.seen as f32 + 10.0)).max(STEP);
        for (q, level) in self.quantiles.iter_mut().zip(LEVELS) {
            let level = level as f32;
            let below = if unit < *q { 1.0 } else { 0.0 };
            // An error just on a quantile is on both sides of it.
            let below = if unit == *q { level } else { below };
            *q += step * (level - below);
        }
        let size = error.abs().min(BOUND * self.usual.max(SMALL));
        self.usual += (size - self.usual) * (1.0 / (self.seen as f32 + 2.0)).max(WEIGHTS[0]);
        self.now += (size - self.now) * WEIGHTS[1];
        (self.usual, self.now) = (self.usual.max(LEAST), self.now.max(LEAST));
    }

    /// Takes in a new scale: errors are in units of it.
    pub(crate) fn rescale(&mut self, factor: f32) {
        self.usual = (self.usual * factor).clamp(LEAST, MOST);
        self.now = (self.now * factor).clamp(LEAST, MOST);
    }

    /// The distribution around a point.
    pub(crate) fn around(&self, point: f32) -> Lanes {
        let size = self.size();
        let mut out = [point; 8];
        for (o, q) in out[..MEAN].iter_mut().zip(self.quantiles) {
            *o += q * size;
        }
        out
    }
}
