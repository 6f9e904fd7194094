//! Which readings to raise, and when an anomaly is over.

use serde::{Deserialize, Serialize};

use super::detector::evidence;
use super::lessons::{Moment, Taught};
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

    /// Alarms that normal data may cause, a reading.
    fn rate(&self, interval: Option<i64>) -> f64 {
        interval.map_or(0.0, |i| self.alarms_per_week * i as f64 / (7 * DAY) as f64).min(0.1)
    }

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
/// adaptive conformal inference, Gibbs and Candès 2021). Feedback bounds the bar; while a bound holds it,
/// tracking waits, since it would only run away.
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
    /// Checkpointed apart, since checkpoints of version 3 have none.
    #[serde(skip)]
    taught: Taught,
}

/// What feedback did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tuned {
    /// What it was about.
    pub moment: Moment,
    /// The bar before; none while nothing would be raised: in the warm-up, or with a rate of 0.
    pub before: Option<f64>,
    /// The bar after.
    pub after: Option<f64>,
    /// Whether the series has learnt anything from it: what was said before may say as much.
    pub news: bool,
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
        let (mut bar, mut tracked) = (f64::INFINITY, f64::INFINITY);
        if let Some(usual) = self.usual(interval, settings) {
            if let (Some(lessons), Some(interval)) = (self.taught.get_mut(), interval) {
                lessons.fade(interval);
            }
            let before = self.offset;
            self.offset = (before - STEP * settings.rate(interval)).max(LOWEST - START);
            tracked = self.tracked(usual);
            bar = self.bounded(usual, tracked);
            if bar > tracked {
                self.offset = before;
            }
        }
        let concerns = settings.concerns(deviation);
        let flagged = strength >= bar && concerns;
        self.calm = if flagged { 0 } else { self.calm.saturating_add(1) };
        if self.calm == 1 {
            self.calm_since = time;
        }
        self.shadow = self.shadow.saturating_sub(1);
        match self.since {
            None if flagged => {
                let shade = f64::from(self.shadow) / f64::from(SHADOW);
                if strength < bar + (self.peak - bar).max(0.0) * shade {
                    self.taught.passed(time, strength, bar);
                    return None;
                }
                // One that feedback alone raises is no reason to expect less.
                if strength >= tracked {
                    self.offset += STEP;
                }
                (self.peak, self.shadow) = (strength, SHADOW);
                self.since = Some(time);
                self.taught.began(time, strength);
                Some(Change::Began)
            }
            Some(_) if flagged => {
                self.peak = self.peak.max(strength);
                self.taught.went_on(time, strength);
                None
            }
            Some(since) if self.calm >= CALM => {
                self.since = None;
                Some(Change::Ended { since, at: self.calm_since })
            }
            None if concerns => {
                self.taught.passed(time, strength, bar);
                None
            }
            _ => None,
        }
    }

    /// Where the chosen rate alone would put the bar; none while nothing is to be raised.
    fn usual(&self, interval: Option<i64>, settings: &AnomalySettings) -> Option<f64> {
        let rate = settings.rate(interval);
        let ready = rate > 0.0 && self.readings > settings.warm_up;
        ready.then(|| evidence((SHARE / rate).log10().max(0.0)).max(LEAST))
    }

    /// Where tracking has the bar.
    fn tracked(&self, usual: f64) -> f64 {
        usual * (START + self.offset).exp()
    }

    /// The same within the bounds that feedback sets.
    fn bounded(&self, usual: f64, tracked: f64) -> f64 {
        self.taught.get().map_or(tracked, |lessons| lessons.bar(tracked, usual * LOWEST.exp()))
    }

    pub(crate) fn bar(&self, interval: Option<i64>, settings: &AnomalySettings) -> Option<f64> {
        let usual = self.usual(interval, settings)?;
        Some(self.bounded(usual, self.tracked(usual)))
    }

    /// Takes in feedback on the moment of a time, or without one on the latest anomaly; none if no such moment is
    /// remembered.
    pub(crate) fn teach(
        &mut self,
        time: Option<Timestamp>,
        anomaly: bool,
        interval: Option<i64>,
        settings: &AnomalySettings,
    ) -> Option<Tuned> {
        let moment = self.taught.get()?.moment(time, interval.unwrap_or(0))?;
        let before = self.bar(interval, settings);
        let news = self.taught.learn(f64::from(moment.evidence), anomaly);
        Some(Tuned { moment, before, after: self.bar(interval, settings), news })
    }

    /// Takes in again what was said before a restart.
    pub(crate) fn teach_again(&mut self, evidence: f64, anomaly: bool) {
        self.taught.learn(evidence, anomaly);
    }

    pub(crate) fn taught(&self) -> &Taught {
        &self.taught
    }

    pub(crate) fn set_taught(&mut self, taught: Taught) {
        self.taught = taught;
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
