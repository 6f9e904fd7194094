//! What the engine thread asks to be stored, as columns: the shape that one commit writes.

mod feedback;
mod models;

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

pub use feedback::FeedbackRow;
pub use models::{Cause, ModelChange, Promotion, Rollback};

/// A series' place in the engine, dense from 0. The store gives each series an id of its own
/// (several daemons may share one store), and the recorder translates.
pub type SeriesHandle = u32;

/// A series seen for the first time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
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

/// `anomalies.kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AnomalyKind {
    /// Abnormal values.
    Value,
    /// A series that stopped reporting.
    Silence,
}

impl AnomalyKind {
    /// As it is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            AnomalyKind::Value => "value",
            AnomalyKind::Silence => "silence",
        }
    }
}

/// A change in `anomalies`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum AnomalyChange {
    /// A row begins.
    Began {
        /// Series.
        series: SeriesHandle,
        /// Time of the first abnormal reading.
        time: i64,
        /// What is abnormal.
        kind: AnomalyKind,
        /// The reading's value; of a silence, the last reading's.
        value: f64,
        /// What the reading broke; none for a silence.
        broken: Option<Broken>,
    },
    /// The row of a kind that began at `time` ends.
    Ended {
        /// Series.
        series: SeriesHandle,
        /// When it began.
        time: i64,
        /// What is abnormal.
        kind: AnomalyKind,
        /// When it ended.
        ended_at: i64,
    },
}

/// How far out an abnormal reading was.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Broken {
    /// Its score.
    pub score: f64,
    /// Lower end of the 90 % interval it broke.
    pub q05: f64,
    /// Upper end of that interval.
    pub q95: f64,
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
    /// Changes of champions, in order.
    pub models: Vec<ModelChange>,
    /// Rows for `feedback`.
    pub feedback: Vec<FeedbackRow>,
}

impl ReadingColumns {
    fn retain(&mut self, mask: &[bool]) {
        retain(&mut self.series, mask);
        retain(&mut self.time, mask);
        retain(&mut self.value, mask);
        retain(&mut self.late, mask);
    }

    fn append(&mut self, mut other: ReadingColumns) {
        self.series.append(&mut other.series);
        self.time.append(&mut other.time);
        self.value.append(&mut other.value);
        self.late.append(&mut other.late);
    }

    fn split_off(&mut self, at: usize) -> ReadingColumns {
        ReadingColumns {
            series: self.series.split_off(at),
            time: self.time.split_off(at),
            value: self.value.split_off(at),
            late: self.late.split_off(at),
        }
    }
}

/// Keeps the rows of a column that a mask of the same length marks.
fn retain<T>(column: &mut Vec<T>, mask: &[bool]) {
    let mut marks = mask.iter();
    column.retain(|_| marks.next().copied().unwrap_or(false));
}

impl ForecastColumns {
    fn retain(&mut self, mask: &[bool]) {
        retain(&mut self.series, mask);
        retain(&mut self.time, mask);
        retain(&mut self.step, mask);
        retain(&mut self.origin, mask);
        retain(&mut self.mean, mask);
        for column in &mut self.quantiles {
            retain(column, mask);
        }
        retain(&mut self.model, mask);
    }

    fn append(&mut self, mut other: ForecastColumns) {
        self.series.append(&mut other.series);
        self.time.append(&mut other.time);
        self.step.append(&mut other.step);
        self.origin.append(&mut other.origin);
        self.mean.append(&mut other.mean);
        for (mine, theirs) in self.quantiles.iter_mut().zip(&mut other.quantiles) {
            mine.append(theirs);
        }
        self.model.append(&mut other.model);
    }

    fn split_off(&mut self, at: usize) -> ForecastColumns {
        ForecastColumns {
            series: self.series.split_off(at),
            time: self.time.split_off(at),
            step: self.step.split_off(at),
            origin: self.origin.split_off(at),
            mean: self.mean.split_off(at),
            quantiles: self.quantiles.each_mut().map(|column| column.split_off(at)),
            model: self.model.split_off(at),
        }
    }
}

impl WriteBatch {
    /// Adds what came later, so that one commit writes both.
    pub fn append(&mut self, mut other: WriteBatch) {
        self.new_series.append(&mut other.new_series);
        self.readings.append(other.readings);
        self.forecasts.append(other.forecasts);
        self.anomalies.append(&mut other.anomalies);
        if !self.states.is_empty() && !other.states.is_empty() {
            let later: HashSet<SeriesHandle> = other.states.iter().map(|s| s.series).collect();
            self.states.retain(|s| !later.contains(&s.series));
        }
        self.states.append(&mut other.states);
        self.models.append(&mut other.models);
        self.feedback.append(&mut other.feedback);
    }

    /// Rows of all kinds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.new_series.len()
            + self.readings.series.len()
            + self.forecasts.series.len()
            + self.anomalies.len()
            + self.states.len()
            + self.models.len()
            + self.feedback.len()
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes out the rows of every series that is not to be kept.
    pub fn retain_series(&mut self, keep: impl Fn(SeriesHandle) -> bool) {
        self.new_series.retain(|s| keep(s.handle));
        let mask: Vec<bool> = self.readings.series.iter().map(|&s| keep(s)).collect();
        self.readings.retain(&mask);
        let mask: Vec<bool> = self.forecasts.series.iter().map(|&s| keep(s)).collect();
        self.forecasts.retain(&mask);
        self.anomalies.retain(|change| match *change {
            AnomalyChange::Began { series, .. } | AnomalyChange::Ended { series, .. } => keep(series),
        });
        self.states.retain(|s| keep(s.series));
        self.feedback.retain(|f| keep(f.series));
    }

    /// Two halves which, written one after the other, write the same: rows keep their order, and
    /// what others refer to (series, then readings) comes first.
    ///
    /// # Errors
    /// The batch itself, if it holds fewer than two rows.
    pub fn split(mut self) -> Result<(WriteBatch, WriteBatch), Box<WriteBatch>> {
        if self.len() < 2 {
            return Err(Box::new(self));
        }
        let mut room = self.len() / 2;
        let mut take = |rows: usize| {
            let taken = rows.min(room);
            room -= taken;
            taken
        };
        let rest = WriteBatch {
            new_series: self.new_series.split_off(take(self.new_series.len())),
            readings: self.readings.split_off(take(self.readings.series.len())),
            forecasts: self.forecasts.split_off(take(self.forecasts.series.len())),
            anomalies: self.anomalies.split_off(take(self.anomalies.len())),
            states: self.states.split_off(take(self.states.len())),
            models: self.models.split_off(take(self.models.len())),
            feedback: self.feedback.split_off(take(self.feedback.len())),
        };
        Ok((self, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(series: SeriesHandle, time: i64) -> StateRow {
        StateRow { series, time, model: None, state: vec![] }
    }

    fn reading(series: SeriesHandle, time: i64) -> ReadingColumns {
        ReadingColumns { series: vec![series], time: vec![time], value: vec![0.5], late: vec![false] }
    }

    #[test]
    fn the_later_state_of_a_series_replaces_the_earlier() {
        let mut batch = WriteBatch { states: vec![state(1, 10), state(2, 10)], ..WriteBatch::default() };
        batch.append(WriteBatch { states: vec![state(1, 20), state(3, 20)], ..WriteBatch::default() });
        assert_eq!(batch.states, vec![state(2, 10), state(1, 20), state(3, 20)]);
    }

    #[test]
    fn halves_keep_every_row_in_order_down_to_single_rows() {
        let mut batch = WriteBatch::default();
        for time in 0..5 {
            batch.append(WriteBatch {
                readings: reading(0, time),
                states: vec![state(u32::try_from(time).unwrap_or(0), time)],
                models: vec![ModelChange::Rollback(Rollback {
                    stream: "climate".to_owned(),
                    expected: time,
                    reason: String::new(),
                    at: time,
                })],
                ..WriteBatch::default()
            });
        }
        let (mut single, mut waiting) = (WriteBatch::default(), vec![batch.clone()]);
        while let Some(part) = waiting.pop() {
            match part.split() {
                Ok((first, second)) => waiting.extend([second, first]),
                Err(row) => {
                    assert_eq!(row.len(), 1);
                    single.append(*row);
                }
            }
        }
        assert_eq!(single.readings.time, batch.readings.time);
        assert_eq!(single.states, batch.states);
        assert_eq!(single.models, batch.models);
    }
}
