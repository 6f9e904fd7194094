//! What one frame of the spool holds: rows that can be written without knowing anything of the process
//! that spooled them.

use serde::{Deserialize, Serialize};

use crate::record::{AnomalyChange, ForecastColumns, NewSeries, ReadingColumns, SeriesHandle, WriteBatch};

/// Rows, and what their handles mean: each is either named in `ids` or made by `new_series`.
///
/// States and changes of champions are left out: the first follow from the readings, the second are of
/// no use to a store that has not heard of what came before. So is feedback, which is not taken while the store
/// is away.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The store's ids of series that it knows.
    pub ids: Vec<(SeriesHandle, i64)>,
    /// Series that it may not know.
    pub new_series: Vec<NewSeries>,
    /// Rows for `readings`.
    pub readings: ReadingColumns,
    /// Rows for `forecasts`.
    pub forecasts: ForecastColumns,
    /// Changes in `anomalies`, in order.
    pub anomalies: Vec<AnomalyChange>,
}

impl Entry {
    /// Readings among the rows.
    #[must_use]
    pub fn readings(&self) -> u64 {
        self.readings.series.len() as u64
    }

    /// The rows of a batch; its states and changes of champions are left out.
    #[must_use]
    pub fn new(ids: Vec<(SeriesHandle, i64)>, rows: WriteBatch) -> Entry {
        let WriteBatch { new_series, readings, forecasts, anomalies, .. } = rows;
        Entry { ids, new_series, readings, forecasts, anomalies }
    }

    /// Adds what was spooled later by the same process.
    pub fn append(&mut self, later: Entry) {
        let (mut ids, mut rows) = std::mem::take(self).into_batch();
        let (later_ids, later_rows) = later.into_batch();
        ids.extend(later_ids);
        rows.append(later_rows);
        *self = Entry::new(ids, rows);
    }

    /// The ids, and the rows as they are written.
    #[must_use]
    pub fn into_batch(self) -> (Vec<(SeriesHandle, i64)>, WriteBatch) {
        let Entry { ids, new_series, readings, forecasts, anomalies } = self;
        (ids, WriteBatch { new_series, readings, forecasts, anomalies, ..WriteBatch::default() })
    }

    /// Whether all columns of a table are equally long.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        let (r, f) = (&self.readings, &self.forecasts);
        let readings = r.series.len();
        let forecasts = f.series.len();
        [r.time.len(), r.value.len(), r.late.len()].iter().all(|&n| n == readings)
            && [f.time.len(), f.step.len(), f.origin.len(), f.mean.len(), f.model.len()]
                .iter()
                .all(|&n| n == forecasts)
            && f.quantiles.iter().all(|column| column.len() == forecasts)
    }
}
