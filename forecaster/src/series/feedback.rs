//! Feedback on a series' anomalies, handed on to its episode.

use super::Series;
use crate::anomaly::{Taught, Tuned};
use crate::engine::StreamSpec;
use crate::reading::Timestamp;

impl Series {
    /// As `Episode::teach`.
    pub(crate) fn teach(
        &mut self,
        time: Option<Timestamp>,
        anomaly: bool,
        spec: &StreamSpec,
    ) -> Option<Tuned> {
        self.episode.teach(time, anomaly, self.local.interval(spec.interval), &spec.anomaly)
    }

    /// As `Episode::teach_again`.
    pub(crate) fn teach_again(&mut self, evidence: f64, anomaly: bool) {
        self.episode.teach_again(evidence, anomaly);
    }

    /// As `Episode::bar`.
    pub(crate) fn bar(&self, spec: &StreamSpec) -> Option<f64> {
        self.episode.bar(self.local.interval(spec.interval), &spec.anomaly)
    }

    pub(crate) fn taught(&self) -> &Taught {
        self.episode.taught()
    }

    pub(crate) fn set_taught(&mut self, taught: Taught) {
        self.episode.set_taught(taught);
    }
}
