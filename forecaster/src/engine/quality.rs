//! Recent quality of a stream's one-step forecasts.

use crate::series::Outcome;

/// Readings over which a stream's quality is averaged.
const MEMORY: f64 = 2000.0;

/// See the module.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Quality {
    seen: u64,
    inside: f64,
    error: f64,
    naive_error: f64,
}

impl Quality {
    pub(super) fn observe(&mut self, outcome: &Outcome) {
        let Some(v) = outcome.verification else { return };
        self.seen += 1;
        let memory = (self.seen as f64).min(MEMORY);
        self.inside += (f64::from(u8::from(v.inside)) - self.inside) / memory;
        self.error += (v.error - self.error) / memory;
        self.naive_error += (v.naive_error - self.naive_error) / memory;
    }

    /// Share of readings inside the 90 % interval; none before there were enough to say.
    #[must_use]
    pub fn coverage(&self) -> Option<f64> {
        (self.seen >= 20).then_some(self.inside)
    }

    /// Mean absolute error of the median over that of the last value, each series in units of its
    /// own scale; none before there were enough to say.
    #[must_use]
    pub fn relative_error(&self) -> Option<f64> {
        (self.seen >= 20 && self.naive_error > 0.0).then(|| self.error / self.naive_error)
    }
}
