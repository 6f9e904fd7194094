//! Online robust scaling: where a series' values lie and how far they move between readings.

use serde::{Deserialize, Serialize};

use crate::differences::Differences;

/// Values kept while a series is young and medians stand in for running means.
const YOUNG: usize = 32;
/// Readings over which the movement is averaged.
const MOVE_MEMORY: f64 = 200.0;
/// Readings over which the movement of the moment is averaged.
const FAST_MEMORY: f64 = 16.0;
/// Readings over which the level is averaged.
const LEVEL_MEMORY: f64 = 500.0;
/// A movement counts for at most this many times the usual one.
const CLIP: f64 = 6.0;
/// Readings far outside in a row after which the level is taken to have shifted.
const SHIFTED: u32 = 8;

/// Location and scale of one series. A wild value counts for little, a lasting shift is followed,
/// and a constant stretch leaves a floor.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Scale {
    young: Vec<f64>,
    values: u32,
    moves: u32,
    movement: f64,
    fast: f64,
    level: f64,
    deviation: f64,
    outliers: u32,
}

fn median(values: &mut [f64]) -> f64 {
    let middle = values.len() / 2;
    if values.is_empty() { 0.0 } else { *values.select_nth_unstable_by(middle, f64::total_cmp).1 }
}

impl Scale {
    /// Takes in a value, and the latest movements if it was one; those of a gap count per square
    /// root of the intervals in it.
    pub(crate) fn observe(&mut self, value: f64, movement: Option<(f64, &Differences)>) {
        self.observe_level(value);
        if let Some((movement, recent)) = movement {
            self.observe_movement(movement.abs(), recent);
        }
    }

    fn observe_movement(&mut self, size: f64, recent: &Differences) {
        self.moves = self.moves.saturating_add(1);
        if recent.len() <= YOUNG {
            let mean = recent.trimmed_mean();
            // Where nothing but repetitions is left, the plain mean: a unit that is lost and comes back makes
            // nonsense of all that was learned in it.
            let plain = self.movement * (1.0 - 1.0 / f64::from(self.moves));
            self.movement = if mean > 0.0 { mean } else { plain };
            self.fast = self.movement;
            return;
        }
        // What a twentieth of the latest movements exceeds is no fault, however large.
        let size = size.min((CLIP * self.scale()).max(recent.bound()));
        self.movement += (size - self.movement) / f64::from(self.moves).min(MOVE_MEMORY);
        self.fast += (size - self.fast) / FAST_MEMORY;
    }

    fn observe_level(&mut self, value: f64) {
        self.values = self.values.saturating_add(1);
        if self.values as usize <= YOUNG {
            self.young.push(value);
            let mut sorted = self.young.clone();
            self.level = median(&mut sorted);
            let mut sizes: Vec<f64> = self.young.iter().map(|v| (v - self.level).abs()).collect();
            self.deviation = 1.25 * median(&mut sizes);
            return;
        }
        self.young = Vec::new();
        let away = value - self.level;
        let reach = CLIP * self.deviation.max(self.scale());
        self.outliers = if away.abs() > 3.0 * reach { self.outliers + 1 } else { 0 };
        if self.outliers >= SHIFTED {
            self.level = value;
            self.outliers = 0;
            return;
        }
        self.level += away.clamp(-reach, reach) / LEVEL_MEMORY;
        self.deviation += (away.abs().min(reach) - self.deviation) / LEVEL_MEMORY;
    }

    /// Usual size of a movement between readings, never zero.
    #[must_use]
    pub(crate) fn scale(&self) -> f64 {
        self.movement.max(0.5 * self.fast).max(1e-9 * self.level.abs()).max(1e-12)
    }

    /// Where values usually lie.
    #[must_use]
    pub(crate) fn level(&self) -> f64 {
        self.level
    }

    /// How far values usually lie from the level, never zero.
    #[must_use]
    pub(crate) fn deviation(&self) -> f64 {
        self.deviation.max(self.scale())
    }

    /// Whether it has ever moved: until then there is no unit to speak of.
    #[must_use]
    pub(crate) fn moved(&self) -> bool {
        self.movement > 0.0
    }

    /// Values seen.
    #[must_use]
    pub(crate) fn values(&self) -> u32 {
        self.values
    }

    /// Movements seen.
    #[must_use]
    pub(crate) fn moves(&self) -> u32 {
        self.moves
    }

    /// How lively the series is now against what is usual: logarithm of the ratio of the recent to
    /// the usual movement.
    #[must_use]
    pub(crate) fn liveliness(&self) -> f64 {
        ((self.fast + 0.05 * self.scale()) / self.scale()).ln()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However many repetitions come between.
        #[test]
        fn a_unit_is_never_lost(steps in prop::collection::vec(prop::sample::select(&[0.0, 0.0, 0.1, -3.0, 40.0]), 1..100)) {
            let (mut scale, mut differences, mut value) = (Scale::default(), Differences::default(), 20.0);
            scale.observe(value, None);
            let mut before = None;
            for step in steps {
                value += step;
                differences.observe(step);
                scale.observe(value, Some((step, &differences)));
                if let Some(before) = before {
                    prop_assert!(scale.moved());
                    prop_assert!(scale.scale() > 1e-4 * before, "{} after {before}", scale.scale());
                }
                before = scale.moved().then(|| scale.scale());
            }
        }
    }
}
