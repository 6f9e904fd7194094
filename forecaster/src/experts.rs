//! The cheap experts of a series: points that it might move to next, each with the spread of its own
//! recent errors. All are offsets from the last value in units of the series' scale.

use serde::{Deserialize, Serialize};

use crate::aggregate::Lanes;
use crate::rls::Rls;
use crate::spread::Spread;

/// Inputs of the wide autoregressions.
pub(crate) const WIDE: usize = 24;
/// Inputs of the middle one.
const MIDDLE: usize = 12;
/// Inputs of the narrow one.
const NARROW: usize = 6;
/// Smoothing constants of the exponentially weighted means.
const SMOOTH: [f32; 3] = [0.6, 0.3, 0.1];
/// Experts with a point and a spread.
pub(crate) const POINTS: usize = 7;
/// Position among the points of the middle one of the exponentially weighted means.
pub(crate) const MEAN_POINT: usize = 1;
/// Position of the damped trend (Gardner & McKenzie, Management Science 31, 1985).
pub(crate) const TREND_POINT: usize = 3;
/// Position of the slow autoregression; the fast and the narrow one follow it.
pub(crate) const SLOW_POINT: usize = 4;
/// Share of their past that the autoregressions keep with each reading.
const KEEP: [f32; 3] = [0.9999, 0.997, 0.99];
/// Bound on what an autoregression answers and learns from.
const BOUND: f32 = 30.0;
/// Smoothing of the damped trend's level and slope, and what is left of the slope with each reading.
const TREND: [f32; 3] = [0.5, 0.05, 0.97];

/// What moves with the last value: smoothed levels, as offsets from it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Levels {
    /// Exponentially weighted means.
    pub(crate) means: [f32; 3],
    /// Level and slope of the damped trend.
    trend: [f32; 2],
}

impl Levels {
    /// Follows a move of the last value.
    pub(crate) fn moved(&mut self, offset: f32) {
        for (mean, alpha) in self.means.iter_mut().zip(SMOOTH) {
            // A wild value pulls them no further than a large one.
            *mean += alpha * (offset - *mean).clamp(-BOUND, BOUND) - offset;
        }
        let ([level, slope], [alpha, beta, damping]) = (self.trend, TREND);
        let error = (offset - level - slope).clamp(-BOUND, BOUND);
        self.trend = [level + slope + alpha * error - offset, damping * slope + beta * error];
    }
}

/// The experts and what they remember.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Experts {
    levels: Levels,
    slow: Rls<WIDE>,
    fast: Rls<MIDDLE>,
    narrow: Rls<NARROW>,
    wide: [f32; WIDE],
    /// Usual size of the autoregressions' errors, to bound a wild one.
    sizes: [f32; 3],
    /// Points given for the next reading; none before the first.
    points: Option<[f32; POINTS]>,
    spreads: [Spread; POINTS],
    /// Errors of the slow and of the narrow autoregression when the last reading came.
    errors: [f32; 2],
}

impl Default for Experts {
    fn default() -> Self {
        Experts {
            levels: Levels::default(),
            slow: Rls::new(0.3),
            fast: Rls::new(0.3),
            narrow: Rls::new(0.3),
            wide: [0.0; WIDE],
            sizes: [1.0; 3],
            points: None,
            spreads: Default::default(),
            errors: [0.0; 2],
        }
    }
}

fn middle(x: &[f32; WIDE]) -> [f32; MIDDLE] {
    [0, 1, 2, 3, 5, 11, 12, 13, 15, 17, 19, 23].map(|i: usize| x[i])
}

fn narrow(x: &[f32; WIDE]) -> [f32; NARROW] {
    [0, 1, 2, 12, 13, 23].map(|i: usize| x[i])
}

impl Experts {
    /// Learns where the series went: `offset` in the units and from the value the points were given in.
    pub(crate) fn learn(&mut self, offset: f32) {
        if let Some(points) = &self.points {
            for (point, spread) in points.iter().zip(&mut self.spreads) {
                spread.learn(offset - point);
            }
            let target = offset.clamp(-BOUND, BOUND);
            self.errors = [target - points[SLOW_POINT], target - points[SLOW_POINT + 2]];
            let mut errors = [0, 1, 2].map(|k: usize| target - points[SLOW_POINT + k]);
            for (size, error) in self.sizes.iter_mut().zip(&mut errors) {
                *error = error.clamp(-5.0 * *size, 5.0 * *size);
                *size = (*size + 0.02 * (error.abs() - *size)).max(1e-3);
            }
            self.slow.learn(&self.wide, errors[0], KEEP[0]);
            self.fast.learn(&middle(&self.wide), errors[1], KEEP[1]);
            self.narrow.learn(&narrow(&self.wide), errors[2], KEEP[2]);
        }
        self.levels.moved(offset);
    }

    /// Takes in a new scale: offsets are in units of it.
    pub(crate) fn rescale(&mut self, factor: f32) {
        let levels = self.levels.means.iter_mut().chain(&mut self.levels.trend);
        levels.for_each(|x| *x = (*x * factor).clamp(-1e6, 1e6));
        self.errors.iter_mut().for_each(|e| *e = (*e * factor).clamp(-BOUND, BOUND));
        self.sizes.iter_mut().for_each(|s| *s = (*s * factor).clamp(1e-3, BOUND));
        for spread in &mut self.spreads {
            spread.rescale(factor);
        }
    }

    /// Smoothed levels.
    pub(crate) fn levels(&self) -> Levels {
        self.levels
    }

    /// Errors of the slow and of the narrow autoregression when the last reading came.
    pub(crate) fn errors(&self) -> [f32; 2] {
        self.errors
    }

    /// The errors of the slow autoregression.
    pub(crate) fn slow_spread(&self) -> &Spread {
        &self.spreads[SLOW_POINT]
    }

    /// What the points would be.
    pub(crate) fn points_for(&self, levels: &Levels, wide: &[f32; WIDE]) -> [f32; POINTS] {
        let bound = |x: f32| if x.is_finite() { x.clamp(-BOUND, BOUND) } else { 0.0 };
        let [_, mean, mean_slow] = levels.means;
        [
            0.0,
            mean,
            mean_slow,
            levels.trend[0] + levels.trend[1],
            bound(self.slow.predict(wide)),
            bound(self.fast.predict(&middle(wide))),
            bound(self.narrow.predict(&narrow(wide))),
        ]
    }

    /// Gives the points for the next reading.
    pub(crate) fn forecast(&mut self, wide: &[f32; WIDE]) -> [f32; POINTS] {
        let points = self.points_for(&self.levels, wide);
        self.wide = *wide;
        self.points = Some(points);
        points
    }

    /// The distributions given.
    pub(crate) fn answers(&self) -> [Option<Lanes>; POINTS] {
        std::array::from_fn(|k| Some(self.spreads[k].around(self.points?[k])))
    }
}
