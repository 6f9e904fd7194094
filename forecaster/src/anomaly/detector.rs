//! The statistic: how unlike its own past a reading is.

use serde::{Deserialize, Serialize};

use super::places::Places;
use super::tail::Tail;
use crate::reading::MEDIAN;

/// Readings over which the level of the moment is averaged, and the one it is compared with.
const FAST: f64 = 12.0;
const SLOW: f64 = 144.0;
/// Readings over which the liveliness of the moment is averaged, and the usual.
const LIVELY: f64 = 24.0;
const USUAL: f64 = 2000.0;
/// A movement counts for at most this many usual ones: one jump is no agitation.
const WILD: f64 = 8.0;
/// Weight of a level shift never seen against a value never seen.
const SHIFT: f64 = 1.5;
/// Weight of a decade of rarity, and the most that one kind of it can give.
const DECADE: f64 = 0.4;
const RAREST: f64 = 3.0;
/// From this strength on a reading is abnormal as such, and what follows belongs to it.
const ABNORMAL: f64 = 1.0;
/// Readings after an abnormal one that score less: half at first.
const REST: u32 = 100;
/// Values beyond it are not looked at, so that differences of differences stay finite.
const LARGEST: f64 = 1e300;

/// What a reading looked like.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Assessment {
    /// Evidence that it is abnormal, 0 and above, comparable over series.
    pub strength: f64,
    /// Score in [0, 1]; from ½ on abnormal as such.
    pub score: f64,
}

/// Scores the readings of one series by what the series itself did before: nothing else enters.
///
/// Evidence of five kinds adds up. Two are novelty, which grows without bound and stays until it was
/// seen: a value where none has been, and a shift of the recent level against the slower one of a
/// size that has not been. Three are rarity by the tail of the series' own past, bounded:
/// distance from the forecast, in widths of
/// its interval; distance of the recent level from the slow one; and the recent movement against the
/// usual, up (agitation) or down (a flat line).
///
/// The score is made for one alarm per anomaly: readings that follow an abnormal one score less. The
/// strength is not: it says how abnormal each is by itself. Rarity alone never scores ½, however rare:
/// for a certain score something must have happened that never did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Detector {
    values: Places,
    shifts: Places,
    surprise: Tail,
    drift: Tail,
    liveliness: Tail,
    seen: u32,
    last: f64,
    /// Recent and slower level. They follow a wild value at once, unlike those of `level`.
    fast: f64,
    slow: f64,
    level: Level,
    lively: f64,
    usual: f64,
    rest: u32,
}

/// Logarithm of 1 + a/b, for any two sizes.
fn log_ratio(a: f64, b: f64) -> f64 {
    (a / b.max(f64::MIN_POSITIVE)).min(1e12).ln_1p()
}

/// Evidence from rarity: proportional to the decades at first, bounded.
pub(super) fn evidence(decades: f64) -> f64 {
    -RAREST * (-decades * DECADE / RAREST).exp_m1()
}

/// A recent level against the usual one, where a wild value counts for little.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Level {
    recent: f64,
    usual: f64,
    spread: f64,
    apart: f64,
}

impl Level {
    /// Takes in the value of that many; returns how far the recent level is from the usual, against how far it is on
    /// average, as a logarithm.
    fn observe(&mut self, value: f64, seen: f64, rounding: f64) -> f64 {
        let reach = if seen < FAST { f64::MAX } else { WILD * self.spread };
        let off = (value - self.usual).clamp(-reach, reach);
        self.recent += (self.usual + off - self.recent) / seen.min(FAST);
        self.usual += off / seen.min(SLOW);
        self.spread += (off.abs() - self.spread) / seen.min(USUAL);
        let apart = (self.recent - self.usual).abs();
        self.apart += (apart - self.apart) / seen.min(USUAL);
        log_ratio(3.0 * apart, self.apart.max(rounding))
    }
}

impl Detector {
    /// Takes in a reading and the quantiles that were forecast for it.
    pub fn observe(&mut self, value: f64, quantiles: Option<&[f64; 7]>) -> Assessment {
        if value.is_nan() || value.abs() > LARGEST {
            return Assessment::default();
        }
        self.seen = self.seen.saturating_add(1);
        let seen = f64::from(self.seen);
        if self.seen == 1 {
            (self.last, self.fast, self.slow) = (value, value, value);
        }
        let rounding = 1e-9 * value.abs().max(self.slow.abs());

        let movement = (value - self.last).abs();
        self.last = value;
        self.usual += (movement - self.usual) / seen.min(USUAL);
        self.fast += (value - self.fast) / seen.min(FAST);
        self.slow += (value - self.slow) / seen.min(SLOW);
        self.lively += (movement.min(WILD * self.usual) - self.lively) / seen.min(LIVELY);

        let novelty = self.values.observe(value);
        let away = self.fast - self.slow;
        let shift = self.shifts.observe(away);
        // The recent level lags: it must not speak on when a fault is over.
        let there = (value - self.slow) * away.signum() > 0.5 * away.abs();
        let shift = if there { shift } else { 0.0 };

        let surprise = quantiles.map_or(0.0, |q| {
            let width = (q[6] - q[0]).max(rounding);
            self.surprise.observe(log_ratio((value - q[MEDIAN]).abs(), width))
        });
        let drift = self.drift.observe(self.level.observe(value, seen, rounding));
        let floor = 0.01 * self.usual + rounding + f64::MIN_POSITIVE;
        let change = ((self.lively + floor) / (self.usual + floor)).ln();
        let liveliness = self.liveliness.observe(change.abs());

        let rarity = evidence(surprise) + evidence(drift) + evidence(liveliness);
        let novelty = novelty + SHIFT * shift;
        let strength = novelty + rarity;
        let abnormal = novelty.max(0.95 * ABNORMAL * (1.0 - (-rarity).exp()));
        let mut score = abnormal / (abnormal + ABNORMAL);
        if self.rest > 0 {
            self.rest -= 1;
            score *= 1.0 - 0.5 * f64::from(self.rest) / f64::from(REST);
        } else if abnormal >= ABNORMAL {
            self.rest = REST;
        }
        Assessment { strength, score }
    }
}
