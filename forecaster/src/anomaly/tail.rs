//! How rare the large values of a statistic are, by its own past.

use serde::{Deserialize, Serialize};

/// Share of readings beyond the edge of the tail.
pub(super) const SHARE: f64 = 0.02;
/// Readings before rarity means anything.
const YOUNG: u32 = 50;
/// Readings over which the tail is learned.
const MEMORY: f64 = 4000.0;
/// An excess counts for at most this many mean ones, and is no smaller than this on average.
const CLIP: f64 = 8.0;
const FLOOR: f64 = 0.02;

/// The upper tail of a statistic: its edge, tracked as a quantile, and the mean excess over it.
///
/// Excesses over a high quantile are exponential for every light-tailed statistic (Pickands 1975,
/// as in SPOT, Siffer et al. 2017); a statistic given as a logarithm covers heavy tails too. With few
/// excesses seen the predictive distribution is Lomax, which promises less than the exponential.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Tail {
    seen: u32,
    beyond: f64,
    edge: f64,
    excess: f64,
}

impl Tail {
    /// Takes in a value; returns how rare one as large is, in decades beyond [`SHARE`].
    pub(super) fn observe(&mut self, value: f64) -> f64 {
        self.seen = self.seen.saturating_add(1);
        if self.seen <= YOUNG {
            self.edge = self.edge.max(value);
            self.excess = 0.5;
            return 0.0;
        }
        let mean = self.excess.max(FLOOR);
        let excess = value - self.edge;
        let mut decades = 0.0;
        let gain = mean / (SHARE * f64::from(self.seen).min(MEMORY));
        if excess > 0.0 {
            let count = self.beyond + 1.0;
            decades = count * (excess / (count * mean)).ln_1p() * std::f64::consts::LOG10_E;
            self.beyond = count.min(SHARE * MEMORY);
            self.excess += (excess.min(CLIP * mean) - self.excess) / (self.beyond + 1.0);
            self.edge += gain * (1.0 - SHARE);
        } else {
            self.edge = (self.edge - gain * SHARE).max(0.0);
        }
        decades
    }
}
