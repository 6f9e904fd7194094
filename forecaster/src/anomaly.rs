//! How abnormal a reading was, from where it fell in the distribution forecast for it.

use serde::{Deserialize, Serialize};

use crate::reading::{LEVELS, Timestamp};

/// Probability of a reading as extreme at which the score is one half.
const EVEN: f64 = 1e-4;
/// A score from here on flags a reading.
const FLAGGED: f64 = 0.5;
/// Readings of a series before anything is flagged.
const WARM_UP: u32 = 64;
/// Normal readings in a row that end an anomaly.
const CALM: u32 = 3;

/// Which deviations are worth an alarm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Any.
    #[default]
    Both,
    /// Readings above what was forecast.
    Up,
    /// Readings below.
    Down,
}

/// What to raise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AnomalySettings {
    /// Alarms a week that normal data of one series may cause; 0 raises nothing.
    pub alarms_per_week: f64,
    /// Side of the forecast that matters.
    pub direction: Direction,
    /// Least distance from the forecast's median, in the series' own unit.
    pub min_deviation: f64,
    /// Readings of a series before anything is raised.
    pub warm_up: u32,
}

impl Default for AnomalySettings {
    fn default() -> Self {
        AnomalySettings { alarms_per_week: 1.0, direction: Direction::Both, min_deviation: 0.0, warm_up: 100 }
    }
}

/// Probability below `value`, by linear interpolation between the quantiles and exponential tails
/// with the slope of the outer half of the distribution.
fn below(value: f64, quantiles: &[f64; 7]) -> f64 {
    let [q05, .., q95] = *quantiles;
    let (q25, q75) = (quantiles[2], quantiles[4]);
    let tiny = 1e-9 * (1.0 + q95.abs().max(q05.abs()));
    let tail = |beyond: f64, width: f64| 0.05 * (-beyond * 5.0_f64.ln() / width.max(tiny)).exp();
    if value < q05 {
        return tail(q05 - value, q25 - q05);
    }
    if value > q95 {
        return 1.0 - tail(value - q95, q95 - q75);
    }
    for (q, level) in quantiles.windows(2).zip(LEVELS.windows(2)) {
        if value <= q[1] {
            let width = q[1] - q[0];
            let part = if width > 0.0 { (value - q[0]) / width } else { 0.5 };
            return level[0] + part * (level[1] - level[0]);
        }
    }
    LEVELS[6]
}

/// Score in [0, 1]: near 0 inside the forecast's interval, ½ where a reading as extreme comes once
/// in ten thousand, 1 = certainly abnormal.
#[must_use]
pub fn score(value: f64, quantiles: &[f64; 7]) -> f64 {
    let p = below(value, quantiles);
    let tail = 2.0 * p.min(1.0 - p);
    EVEN / (EVEN + tail.max(0.0))
}

/// Whether a series is in an anomaly, and since when.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Episode {
    readings: u32,
    calm: u32,
    /// First normal reading after the last abnormal one.
    calm_since: Timestamp,
    since: Option<Timestamp>,
}

/// A change of an [`Episode`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// An anomaly begins with this reading.
    Began,
    /// An anomaly has ended: enough normal readings followed each other.
    Ended {
        /// When it began.
        since: Timestamp,
        /// The first of those normal readings.
        at: Timestamp,
    },
}

impl Episode {
    /// Takes in the score of a reading.
    pub fn observe(&mut self, time: Timestamp, score: f64) -> Option<Change> {
        self.readings = self.readings.saturating_add(1);
        let flagged = score >= FLAGGED && self.readings > WARM_UP;
        self.calm = if flagged { 0 } else { self.calm.saturating_add(1) };
        if self.calm == 1 {
            self.calm_since = time;
        }
        match self.since {
            None if flagged => {
                self.since = Some(time);
                Some(Change::Began)
            }
            Some(since) if self.calm >= CALM => {
                self.since = None;
                Some(Change::Ended { since, at: self.calm_since })
            }
            _ => None,
        }
    }

    /// Whether the newest reading belongs to an anomaly.
    #[must_use]
    pub fn flagged(&self) -> bool {
        self.since.is_some() && self.calm == 0
    }

    /// When the present anomaly began.
    #[must_use]
    pub fn since(&self) -> Option<Timestamp> {
        self.since
    }
}
