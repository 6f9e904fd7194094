//! What users said of anomalies.

use super::SeriesHandle;

/// A row for `feedback`.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedbackRow {
    /// Series.
    pub series: SeriesHandle,
    /// When it was said, microseconds since the Unix epoch; no two of a series at the same time.
    pub given_at: i64,
    /// Time of what it is about.
    pub time: i64,
    /// Time of the series' newest reading when it was said.
    pub newest: i64,
    /// Whether that was an anomaly.
    pub anomaly: bool,
    /// How strong the evidence was.
    pub evidence: f64,
}
