//! Which readings to raise, and when an anomaly is over.

use serde::{Deserialize, Serialize};

use super::detector::evidence;
use super::tail::SHARE;
use crate::reading::{DAY, Timestamp};

/// Normal readings in a row that end an anomaly.
const CALM: u32 = 3;
/// Logarithm of the factor by which an alarm raises the bar for the next.
const STEP: f64 = 0.25;
/// Logarithm of the factor by which a series begins above its usual bar: its own past is short yet.
const START: f64 = 0.5;
/// Logarithm of the share of its usual height down to which the bar falls.
const LOWEST: f64 = -1.5;
/// However high the rate, some evidence there must be.
const LEAST: f64 = 0.1;
/// Readings after an anomaly began during which a further one must outdo it, less and less.
const SHADOW: u32 = 100;

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

/// What to raise. The score is left alone by all of it: what is abnormal and what is worth an alarm
/// are two questions, and an answer to the second must not change stored scores.
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
        Self::DEFAULT
    }
}

impl AnomalySettings {
    /// One alarm a week, either way.
    pub const DEFAULT: AnomalySettings = AnomalySettings {
        alarms_per_week: 1.0,
        direction: Direction::Both,
        min_deviation: 0.0,
        warm_up: 100,
    };

    fn concerns(&self, deviation: f64) -> bool {
        let side = match self.direction {
            Direction::Both => true,
            Direction::Up => deviation > 0.0,
            Direction::Down => deviation < 0.0,
        };
        side && deviation.abs() >= self.min_deviation
    }
}

/// Whether a series is in an anomaly, and since when.
///
/// The bar is tracked so that alarms come at the chosen rate: each raises it, every other reading
/// lowers it by as much as makes up for that over the time between two alarms. Whatever the data,
/// the count of alarms then stays within a constant of rate × readings (quantile tracking, as in
/// adaptive conformal inference, Gibbs and Candès 2021).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Episode {
    readings: u32,
    /// Logarithm of the bar over where the chosen rate alone would put it.
    offset: f64,
    peak: f64,
    shadow: u32,
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
    /// Takes in a reading: the strength of the evidence against it, its distance from the forecast's
    /// median, and the series' interval.
    pub fn observe(
        &mut self,
        time: Timestamp,
        strength: f64,
        deviation: f64,
        interval: Option<i64>,
        settings: &AnomalySettings,
    ) -> Option<Change> {
        self.readings = self.readings.saturating_add(1);
        let rate = interval.map_or(0.0, |i| settings.alarms_per_week * i as f64 / (7 * DAY) as f64).min(0.1);
        let ready = rate > 0.0 && self.readings > settings.warm_up;
        let mut bar = f64::INFINITY;
        if ready {
            let usual = evidence((SHARE / rate).log10().max(0.0));
            self.offset = (self.offset - STEP * rate).max(LOWEST - START);
            bar = usual.max(LEAST) * (START + self.offset).exp();
        }
        let flagged = strength >= bar && settings.concerns(deviation);
        self.calm = if flagged { 0 } else { self.calm.saturating_add(1) };
        if self.calm == 1 {
            self.calm_since = time;
        }
        self.shadow = self.shadow.saturating_sub(1);
        match self.since {
            None if flagged => {
                let shade = f64::from(self.shadow) / f64::from(SHADOW);
                if strength < bar + (self.peak - bar).max(0.0) * shade {
                    return None;
                }
                self.offset += STEP;
                (self.peak, self.shadow) = (strength, SHADOW);
                self.since = Some(time);
                Some(Change::Began)
            }
            Some(_) if flagged => {
                self.peak = self.peak.max(strength);
                None
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
