//! How rare the large values of a statistic are, by its own past.

use serde::{Deserialize, Serialize};

/// Share of readings beyond the edge of the tail.
pub(super) const SHARE: f64 = 0.02;
const RATE: f32 = SHARE as f32;
/// Readings before the statistic has settled, and after that before rarity means anything.
const SETTLING: u32 = 50;
const YOUNG: u32 = 100;
/// Readings over which the tail is learned.
const MEMORY: f32 = 4000.0;
/// Mean excess before any was seen, and the least taken for one: less does not matter to anybody.
const PRIOR: f32 = 0.5;
const FLOOR: f32 = 0.02;
/// An excess counts for at most this many mean ones.
const CLIP: f32 = 8.0;

/// The upper tail of a statistic: its edge, tracked as a quantile, and the mean excess over it.
///
/// Excesses over a high quantile are exponential for every light-tailed statistic (Pickands 1975,
/// as in SPOT, Siffer et al. 2017); a statistic given as a logarithm covers heavy tails too. With few
/// excesses seen the predictive distribution is Lomax, which promises less than the exponential.
/// Of readings in a row beyond the edge only the peak is learned, and only once it is over:
/// otherwise a slow statistic would get used to an excess while it still grows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Tail {
    seen: u32,
    /// Peaks seen, as far as they are remembered.
    peaks: f32,
    edge: f32,
    /// Mean peak over the edge.
    excess: f32,
    /// Peak of the present run.
    run: f32,
}

impl Tail {
    /// Takes in a value; returns how rare one as large is, in decades beyond [`SHARE`].
    pub(super) fn observe(&mut self, value: f64) -> f64 {
        let value = value as f32;
        self.seen = self.seen.saturating_add(1);
        if self.seen <= YOUNG {
            if self.seen > SETTLING {
                self.edge = self.edge.max(value);
                self.excess = PRIOR;
            }
            return 0.0;
        }
        let excess = value - self.edge;
        let mean = self.excess.max(FLOOR);
        let gain = mean / (RATE * (self.seen as f32).min(MEMORY));
        if excess > 0.0 {
            self.run = self.run.max(excess);
            self.edge += gain * (1.0 - RATE);
            let count = self.peaks + 1.0;
            return f64::from(count * (excess / (count * mean)).ln_1p() * std::f32::consts::LOG10_E);
        }
        if self.run > 0.0 {
            self.peaks = (self.peaks + 1.0).min(RATE * MEMORY);
            self.excess += (self.run.min(CLIP * mean) - self.excess) / (self.peaks + 1.0);
            self.run = 0.0;
        }
        self.edge = (self.edge - gain * RATE).max(0.0);
        0.0
    }
}
