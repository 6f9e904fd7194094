//! Adaptive calibration of quantiles: a level that readings fall below too often moves down, one that
//! they fall below too rarely moves up, so that 90 % means 90 % also after the world has changed
//! (Gibbs & Candès, NeurIPS 2021; a level at a time).

use serde::{Deserialize, Serialize};

use crate::aggregate::{Lanes, MEAN};
use crate::reading::{LEVELS, MEDIAN};

/// Step with each reading, in widths between the quartiles.
const STEP: f32 = 0.002;
/// Weight of the newest reading in what a level did of late.
const RECENT: f32 = 0.03;
/// Deviations from what is right that chance explains; beyond, steps are larger in proportion …
const TOLERATED: f32 = 2.5;
/// … up to this factor.
const HASTE: f32 = 10.0;
/// Bound on the move of a level, in widths between it and the median.
const CAP: f32 = 0.5;

/// Moves of the levels, in widths between the quartiles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Calibration {
    moves: [f32; 7],
    /// By how much readings fell below a level too rarely of late.
    drift: [f32; 7],
}

impl Calibration {
    /// Learns where a reading fell against the quantiles issued for it. The median is left alone: the
    /// experts learn it faster.
    pub(crate) fn learn(&mut self, issued: &Lanes, actual: f32) {
        for (lane, level) in LEVELS.iter().enumerate().filter(|(lane, _)| *lane != MEDIAN) {
            let level = *level as f32;
            // A reading just on a quantile is on both sides of it.
            let below = match actual.total_cmp(&issued[lane]) {
                std::cmp::Ordering::Less => 1.0,
                std::cmp::Ordering::Equal => level,
                std::cmp::Ordering::Greater => 0.0,
            };
            let (moved, drift) = (&mut self.moves[lane], &mut self.drift[lane]);
            *drift += RECENT * (level - below - *drift);
            // What chance makes of it where the level is right.
            let usual = (0.5 * RECENT * level * (1.0 - level)).sqrt();
            let haste = (drift.abs() / (TOLERATED * usual)).clamp(1.0, HASTE);
            *moved = (*moved + 2.0 * STEP * haste * (level - below)).clamp(-1.0, 1.0);
        }
    }

    /// Moves quantiles, and puts them in order.
    pub(crate) fn apply(&self, mut quantiles: Lanes) -> Lanes {
        let (width, median) = (quantiles[4] - quantiles[2], quantiles[MEDIAN]);
        for (q, moved) in quantiles[..MEAN].iter_mut().zip(self.moves) {
            let reach = CAP * (*q - median).abs();
            if !reach.is_finite() {
                continue;
            }
            *q += (moved * width).clamp(-reach, reach);
        }
        quantiles[..MEAN].sort_unstable_by(f32::total_cmp);
        quantiles
    }
}
