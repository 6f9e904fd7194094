//! The naive forecast: the last value, spread as the series' own recent differences were.

use serde::{Deserialize, Serialize};

use crate::reading::{LEVELS, MEDIAN};

/// Differences remembered.
const WINDOW: usize = 128;
/// Below this many differences their spread is taken as normal instead of empirical.
const EMPIRICAL: usize = 16;
/// Quantiles of the standard normal distribution at [`LEVELS`].
const NORMAL: [f64; 7] = [-1.6449, -1.2816, -0.6745, 0.0, 0.6745, 1.2816, 1.6449];

/// The latest one-step differences of a series, in order of time and in order of size.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Ring", into = "Ring")]
pub(crate) struct Differences {
    ring: Vec<f32>,
    sorted: Vec<f32>,
    next: u32,
}

/// What is stored of [`Differences`]: the order of size follows from the order of time.
#[derive(Serialize, Deserialize)]
struct Ring {
    ring: Vec<f32>,
    next: u32,
}

impl From<Ring> for Differences {
    fn from(Ring { ring, next }: Ring) -> Self {
        let mut sorted = ring.clone();
        sorted.sort_unstable_by(f32::total_cmp);
        Differences { ring, sorted, next }
    }
}

impl From<Differences> for Ring {
    fn from(Differences { ring, next, .. }: Differences) -> Self {
        Ring { ring, next }
    }
}

impl Differences {
    /// Takes in a difference.
    pub(crate) fn observe(&mut self, difference: f64) {
        let difference = difference as f32;
        if self.ring.len() < WINDOW {
            self.ring.push(difference);
        } else if let Some(oldest) = self.ring.get_mut(self.next as usize) {
            let at = self.sorted.partition_point(|x| x.total_cmp(oldest).is_lt());
            self.sorted.remove(at);
            *oldest = difference;
            self.next = (self.next + 1) % WINDOW as u32;
        }
        let at = self.sorted.partition_point(|x| x.total_cmp(&difference).is_lt());
        self.sorted.insert(at, difference);
    }

    /// Quantiles of the next difference at [`LEVELS`]; none before the first.
    ///
    /// From few differences a normal spread around zero, widened as its scale is uncertain; then
    /// the empirical quantiles, with linear interpolation, around the last value.
    #[must_use]
    pub(crate) fn quantiles(&self) -> Option<[f64; 7]> {
        let n = self.sorted.len();
        if n == 0 {
            return None;
        }
        if n < EMPIRICAL {
            let mean_size = self.sorted.iter().map(|d| f64::from(d.abs())).sum::<f64>() / n as f64;
            let sigma = mean_size * 1.2533 * (1.0 + 2.0 / n as f64);
            return Some(NORMAL.map(|z| z * sigma));
        }
        let mut quantiles = LEVELS.map(|level| {
            let position = level * (n - 1) as f64;
            let at = position as usize;
            let low = f64::from(self.sorted.get(at).copied().unwrap_or_default());
            let high = f64::from(self.sorted.get(at + 1).copied().unwrap_or(low as f32));
            low + (high - low) * (position - at as f64)
        });
        // The last value, unless the series moves one way only, as a counter does.
        if quantiles[MEDIAN - 1] <= 0.0 && quantiles[MEDIAN + 1] >= 0.0 {
            quantiles[MEDIAN] = 0.0;
        }
        Some(quantiles)
    }
}
