//! What goes in and what comes out: readings, times, quantiles, forecasts.

use serde::{Deserialize, Serialize};

/// A point in time: microseconds since 1970-01-01T00:00:00Z.
///
/// Microseconds because that is what Postgres keeps: a time read back equals the time written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Timestamp(pub i64);

/// Microseconds in a second, the unit of [`Timestamp`] and of intervals.
pub const SECOND: i64 = 1_000_000;
/// Microseconds in a day.
pub const DAY: i64 = 86_400 * SECOND;

/// One measurement of one series.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// When it was measured.
    pub time: Timestamp,
    /// The value, in the series' own unit; always finite once accepted.
    pub value: f64,
}

/// The quantile levels of every forecast, in order.
pub const LEVELS: [f64; 7] = [0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95];
/// Names of [`LEVELS`] in messages, tables and CSV columns.
pub const LEVEL_NAMES: [&str; 7] = ["q05", "q10", "q25", "q50", "q75", "q90", "q95"];
/// Position of the median in [`LEVELS`].
pub const MEDIAN: usize = 3;

/// The predictive distribution of one step ahead, in the series' own unit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The time forecast for.
    pub time: Timestamp,
    /// Mean of the distribution.
    pub mean: f64,
    /// Quantiles at [`LEVELS`], never decreasing.
    pub quantiles: [f64; 7],
}

/// Mean of a distribution given by its quantiles at [`LEVELS`]: the integral of the piecewise
/// linear quantile function, held constant beyond the outermost levels.
#[must_use]
pub(crate) fn mean_of(quantiles: &[f32; 7]) -> f32 {
    const WEIGHTS: [f32; 7] = [0.075, 0.1, 0.2, 0.25, 0.2, 0.1, 0.075];
    quantiles.iter().zip(WEIGHTS).map(|(q, w)| q * w).sum()
}
