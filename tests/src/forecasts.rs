//! The forecasts that a daemon has stored, to be compared to the last bit.

use anyhow::Result;

use crate::database::Database;
use crate::feed::Reading;

/// Series, origin in microseconds, mean, and the quantiles by level.
pub type StoredForecast = (String, i64, f64, f64, f64, f64, f64, f64, f64, f64);

impl Database {
    /// Forecasts from readings at some positions, in order.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn forecasts(&self, positions: std::ops::Range<usize>) -> Result<Vec<StoredForecast>> {
        let time = |position| Reading { series: 0, position }.time() as i64 * 1_000_000;
        let origin = self.micros("f.origin");
        self.rows(&format!(
            "select s.key, {origin}, f.mean, f.q05, f.q10, f.q25, f.q50, f.q75, f.q90, f.q95 from forecasts f \
             join series s on s.id = f.series_id where {origin} >= {} and {origin} < {} \
             order by s.key, f.origin",
            time(positions.start),
            time(positions.end)
        ))
    }
}
