//! Online robust scaling: where a series' values lie and how far they move between readings.

use serde::{Deserialize, Serialize};

/// Values kept while a series is young and medians stand in for running means.
const YOUNG: usize = 32;
/// Readings over which the movement is averaged.
const MOVE_MEMORY: f64 = 200.0;
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
    /// Mean size of the movements that are not zero: the floor in constant stretches.
    nonzero: f64,
    nonzero_moves: u32,
    level: f64,
    deviation: f64,
    outliers: u32,
}

fn median(values: &mut [f64]) -> f64 {
    let middle = values.len() / 2;
    if values.is_empty() { 0.0 } else { *values.select_nth_unstable_by(middle, f64::total_cmp).1 }
}

impl Scale {
    /// Takes in a value, and its movement since the reading before (per square root of the
    /// intervals between them).
    pub(crate) fn observe(&mut self, value: f64, movement: Option<f64>) {
        self.observe_level(value);
        if let Some(movement) = movement {
            self.observe_movement(movement.abs());
        }
    }

    fn observe_movement(&mut self, size: f64) {
        self.moves = self.moves.saturating_add(1);
        let memory = f64::from(self.moves).min(MOVE_MEMORY);
        if self.young.len() > 2 {
            // Mean of the movements within the young values, the largest tenth left out.
            let mut sizes: Vec<f64> = self.young.windows(2).map(|w| (w[1] - w[0]).abs()).collect();
            sizes.sort_unstable_by(f64::total_cmp);
            let kept = sizes.len() - sizes.len().div_ceil(10).min(sizes.len() - 1);
            self.movement = sizes.iter().take(kept).sum::<f64>() / kept as f64;
            self.fast = self.movement;
        } else {
            let size = if self.moves > 1 { size.min(CLIP * self.scale()) } else { size };
            self.movement += (size - self.movement) / memory;
            self.fast += (size - self.fast) / memory.min(16.0);
        }
        if size > 0.0 {
            let clipped = if self.nonzero_moves > 0 { size.min(CLIP * self.nonzero) } else { size };
            self.nonzero_moves = self.nonzero_moves.saturating_add(1);
            self.nonzero += (clipped - self.nonzero) / f64::from(self.nonzero_moves).min(MOVE_MEMORY);
        }
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
        self.movement.max(0.1 * self.nonzero).max(1e-9 * self.level.abs()).max(1e-12)
    }

    /// Movements seen.
    #[must_use]
    pub(crate) fn moves(&self) -> u32 {
        self.moves
    }

    /// How far a value lies from the usual level, in usual deviations.
    #[must_use]
    pub(crate) fn place(&self, value: f64) -> f64 {
        (value - self.level) / self.deviation.max(self.scale())
    }

    /// How lively the series is now against what is usual: logarithm of the ratio of the recent to
    /// the usual movement.
    #[must_use]
    pub(crate) fn liveliness(&self) -> f64 {
        ((self.fast + 0.05 * self.scale()) / self.scale()).ln()
    }
}
