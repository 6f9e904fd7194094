//! The cheap experts of a series: points that it might move to next, each with the spread of its own
//! recent errors. All are offsets from the last value in units of the series' scale.

use serde::{Deserialize, Serialize};

use crate::aggregate::{Lanes, MEAN};
use crate::reading::LEVELS;
use crate::rls::Rls;

/// Inputs of the wide autoregressions.
pub(crate) const WIDE: usize = 24;
/// Inputs of the narrow one.
pub(crate) const NARROW: usize = 6;
/// Smoothing constants of the exponentially weighted means.
pub(crate) const SMOOTH: [f32; 3] = [0.6, 0.3, 0.1];
/// Experts with a point and a spread.
pub(crate) const POINTS: usize = 8;
/// Bound on what an autoregression answers and learns from.
const BOUND: f32 = 30.0;

/// What the experts are told of a reading.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Inputs {
    /// Inputs of the autoregressions.
    pub(crate) wide: [f32; WIDE],
    /// Offset to where the mean day goes next, if it is known.
    pub(crate) seasonal: Option<f32>,
}

/// The experts and what they remember.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Experts {
    /// Exponentially weighted means and the trend's level less the last value, in units of the scale.
    means: [f32; 3],
    trend: [f32; 2],
    slow: Rls<WIDE>,
    fast: Rls<WIDE>,
    narrow: Rls<NARROW>,
    wide_inputs: [f32; WIDE],
    /// Mean size of the autoregressions' errors, to bound a wild one.
    sizes: [f32; 3],
    points: [Option<f32>; POINTS],
    spreads: [Spread; POINTS],
}

impl Default for Experts {
    fn default() -> Self {
        Experts {
            means: [0.0; 3],
            trend: [0.0; 2],
            slow: Rls::new(0.3),
            fast: Rls::new(0.3),
            narrow: Rls::new(0.3),
            wide_inputs: [0.0; WIDE],
            sizes: [1.0; 3],
            points: [None; POINTS],
            spreads: Default::default(),
        }
    }
}

fn narrow(wide: &[f32; WIDE]) -> [f32; NARROW] {
    [wide[0], wide[1], wide[2], wide[12], wide[13], wide[23]]
}

impl Experts {
    /// Learns where the series went: `actual` in the units and from the value the points were given in.
    pub(crate) fn learn(&mut self, actual: f32) {
        for (point, spread) in self.points.iter().zip(&mut self.spreads) {
            if let Some(point) = point {
                spread.learn(actual - point);
            }
        }
        let target = actual.clamp(-BOUND, BOUND);
        let x = &self.wide_inputs;
        let errors = [
            target - self.slow.predict(x),
            target - self.fast.predict(x),
            target - self.narrow.predict(&narrow(x)),
        ];
        let mut bounded = errors;
        for (size, error) in self.sizes.iter_mut().zip(&mut bounded) {
            *error = error.clamp(-5.0 * *size, 5.0 * *size);
            *size += 0.02 * (error.abs() - *size);
            *size = size.max(1e-3);
        }
        self.slow.learn(x, bounded[0], 0.9995);
        self.fast.learn(x, bounded[1], 0.998);
        self.narrow.learn(&narrow(x), bounded[2], 0.99);
        // Offsets are from the last value, which has moved.
        for (mean, alpha) in self.means.iter_mut().zip(SMOOTH) {
            *mean = (1.0 - alpha) * (*mean - actual);
        }
        let [level, slope] = self.trend;
        let error = (actual - level - slope).clamp(-BOUND, BOUND);
        self.trend = [level + slope + 0.5 * error - actual, 0.97 * slope + 0.05 * error];
    }

    /// Takes in the new scale: offsets are in units of it.
    pub(crate) fn rescale(&mut self, factor: f32) {
        let all = self.means.iter_mut().chain(&mut self.trend);
        all.for_each(|x| *x = (*x * factor).clamp(-1e6, 1e6));
        for spread in &mut self.spreads {
            spread.rescale(factor);
        }
    }

    /// Exponentially weighted means less the last value.
    pub(crate) fn means(&self) -> &[f32; 3] {
        &self.means
    }

    /// Gives the points for the next reading.
    pub(crate) fn forecast(&mut self, inputs: &Inputs) {
        self.wide_inputs = inputs.wide;
        let bound = |x: f32| x.clamp(-BOUND, BOUND);
        let x = &inputs.wide;
        self.points = [
            Some(0.0),
            Some(self.means[0]),
            Some(self.means[1]),
            Some(self.means[2]),
            Some(self.trend[0] + self.trend[1]),
            Some(bound(self.slow.predict(x))),
            Some(bound(self.fast.predict(x))),
            Some(bound(self.narrow.predict(&narrow(x)))),
        ];
    }

    /// The points given.
    pub(crate) fn points(&self) -> &[Option<f32>; POINTS] {
        &self.points
    }

    /// The distributions given.
    pub(crate) fn answers(&self) -> impl Iterator<Item = Option<Lanes>> {
        self.points.iter().zip(&self.spreads).map(|(point, spread)| Some(spread.around((*point)?)))
    }
}

/// Quantiles of an expert's errors in units of their usual size at the moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    seen: u32,
    slow: f32,
    fast: f32,
    quantiles: [f32; 7],
}

/// Quantiles of a normal distribution whose mean size is 1.
const NORMAL: [f32; 7] = [-2.06, -1.61, -0.845, 0.0, 0.845, 1.61, 2.06];

impl Default for Spread {
    fn default() -> Self {
        Spread { seen: 0, slow: 1.0, fast: 1.0, quantiles: NORMAL }
    }
}

impl Spread {
    fn size(&self) -> f32 {
        (0.5 * (self.slow + self.fast)).max(1e-9)
    }

    fn learn(&mut self, error: f32) {
        self.seen = self.seen.saturating_add(1);
        let unit = (error / self.size()).clamp(-20.0, 20.0);
        let step = (1.0 / (self.seen as f32 + 10.0)).max(STEP);
        for (q, level) in self.quantiles.iter_mut().zip(LEVELS) {
            let below = if unit < *q {
                1.0
            } else if unit == *q {
                level as f32
            } else {
                0.0
            };
            *q += 2.0 * step * (level as f32 - below);
        }
        let size = error.abs().min(20.0 * self.slow);
        self.slow += (size - self.slow) * (1.0 / (self.seen as f32 + 2.0)).max(0.005);
        self.fast += (size - self.fast) * FAST;
    }

    fn rescale(&mut self, factor: f32) {
        self.slow *= factor;
        self.fast *= factor;
    }

    fn around(&self, point: f32) -> Lanes {
        let size = self.size();
        let mut out = [point; 8];
        for (o, q) in out.iter_mut().zip(self.quantiles) {
            *o += q * size;
        }
        out[MEAN] = point;
        out
    }
}

/// Step of the quantiles.
const STEP: f32 = 0.01;
/// Weight of the newest error in the size of the moment.
const FAST: f32 = 0.08;
