//! What the engine thread asks to be stored, as columns: the shape that one commit writes.

use std::collections::BTreeMap;

/// A series' place in the engine, dense from 0. The store gives each series an id of its own
/// (several daemons may share one store), and the recorder translates.
pub type SeriesHandle = u32;

/// A series seen for the first time.
#[derive(Debug, Clone, PartialEq)]
pub struct NewSeries {
    /// Its place in the engine.
    pub handle: SeriesHandle,
    /// `<stream>/<captured levels>/<field>`.
    pub key: String,
    /// Name of its stream.
    pub stream: String,
    /// Captured topic levels by name.
    pub labels: BTreeMap<String, String>,
    /// Field of the payload it comes from.
    pub field: String,
}

/// Rows for `readings`.
#[derive(Debug, Default, Clone)]
pub struct ReadingColumns {
    /// Series of each row.
    pub series: Vec<SeriesHandle>,
    /// Microseconds since the Unix epoch.
    pub time: Vec<i64>,
    /// Values.
    pub value: Vec<f64>,
    /// Whether the reading came after a later one and was not fed to the model.
    pub late: Vec<bool>,
}

/// Rows for `forecasts`.
#[derive(Debug, Default, Clone)]
pub struct ForecastColumns {
    /// Series of each row.
    pub series: Vec<SeriesHandle>,
    /// Time forecast for, microseconds since the Unix epoch.
    pub time: Vec<i64>,
    /// Steps ahead, from 1.
    pub step: Vec<i16>,
    /// Time of the reading the forecast was made at.
    pub origin: Vec<i64>,
    /// Means.
    pub mean: Vec<f64>,
    /// One column for each of `forecaster::reading::LEVELS`.
    pub quantiles: [Vec<f64>; 7],
    /// Model of each row; none for the naive forecast.
    pub model: Vec<Option<i64>>,
}

/// A change in `anomalies`.
#[derive(Debug, Clone, PartialEq)]
pub enum AnomalyChange {
    /// A row begins.
    Began {
        /// Series.
        series: SeriesHandle,
        /// Time of the first abnormal reading.
        time: i64,
        /// `value` or `silence`.
        kind: &'static str,
        /// The reading's value.
        value: f64,
        /// Its score.
        score: f64,
        /// Lower end of the 90 % interval it broke.
        q05: f64,
        /// Upper end of that interval.
        q95: f64,
    },
    /// The row that began at `time` ends.
    Ended {
        /// Series.
        series: SeriesHandle,
        /// When it began.
        time: i64,
        /// When it ended.
        ended_at: i64,
    },
}

/// A row for `series_state`: a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct StateRow {
    /// Series.
    pub series: SeriesHandle,
    /// Time of the last reading in the state.
    pub time: i64,
    /// Model whose hidden state it holds; none while naive.
    pub model: Option<i64>,
    /// The encoded state.
    pub state: Vec<u8>,
}

/// What one commit writes, all or nothing.
#[derive(Debug, Default, Clone)]
pub struct WriteBatch {
    /// Series first seen in this batch; their handles appear in the columns below.
    pub new_series: Vec<NewSeries>,
    /// Rows for `readings`.
    pub readings: ReadingColumns,
    /// Rows for `forecasts`.
    pub forecasts: ForecastColumns,
    /// Changes in `anomalies`, in order.
    pub anomalies: Vec<AnomalyChange>,
    /// Rows for `series_state`, one a series at most.
    pub states: Vec<StateRow>,
    /// Models that become their stream's champion with this commit (the champion before retires).
    pub promote: Vec<i64>,
}
