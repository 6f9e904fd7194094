//! Feedback on anomalies, and what is the matter with a series now.

use super::{Engine, SeriesHandle};
use crate::anomaly::Tuned;
use crate::reading::Timestamp;

/// What is the matter with a series.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Problem {
    /// Since when its values are abnormal.
    pub value: Option<Timestamp>,
    /// Since when it is silent.
    pub silence: Option<Timestamp>,
}

impl Engine {
    /// Takes in feedback on the moment of a time, at most one interval of the series off, or without a time on
    /// its latest anomaly of values. Tunes what is raised of the series from here on, and nothing else: no
    /// forecast, no score. None if no such moment is remembered: the four latest anomalies are, and the
    /// four latest readings that came near to one.
    pub fn teach(&mut self, handle: SeriesHandle, time: Option<Timestamp>, anomaly: bool) -> Option<Tuned> {
        let slot = self.slots.get_mut(handle as usize)?;
        let tuned = slot.series.teach(time, anomaly, &self.streams[slot.stream].spec)?;
        if !std::mem::replace(&mut slot.dirty, true) {
            self.dirty.push(handle);
        }
        Some(tuned)
    }

    /// Takes in again what was said of evidence of some strength before a restart; twice does no harm.
    pub fn teach_again(&mut self, handle: SeriesHandle, evidence: f64, anomaly: bool) {
        if let Some(slot) = self.slots.get_mut(handle as usize) {
            slot.series.teach_again(evidence, anomaly);
        }
    }

    /// The bar that evidence must reach for an anomaly of a series to be raised, within what feedback allows; none
    /// while nothing is raised at all.
    #[must_use]
    pub fn bar(&self, handle: SeriesHandle) -> Option<f64> {
        let slot = self.slots.get(handle as usize)?;
        slot.series.bar(&self.streams[slot.stream].spec)
    }

    /// What is the matter with a series now.
    #[must_use]
    pub fn problem(&self, handle: SeriesHandle) -> Problem {
        self.slots.get(handle as usize).map_or_else(Problem::default, |slot| Problem {
            value: slot.series.flagged_since(),
            silence: slot.arrivals.silent_since,
        })
    }

    /// When a reading of a series arrived last, on the clock of [`Engine::heard`]; none if none has since the
    /// start.
    #[must_use]
    pub fn heard_at(&self, handle: SeriesHandle) -> Option<Timestamp> {
        self.slots.get(handle as usize)?.arrivals.heard
    }
}
