//! How much waits to be written, and room for more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prometheus::IntGauge;

use crate::record::WriteBatch;

/// Between two looks for room: the store is away, or at its limit.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The bound on the recorder's queue, in rows of readings and forecasts. The channel itself has none:
/// the engine never waits, so whoever feeds it must (the inlet, at QoS 1), or it rejects and counts.
#[derive(Debug)]
pub struct Backlog {
    rows: AtomicUsize,
    capacity: usize,
    readings: IntGauge,
}

impl Backlog {
    /// A backlog of at most about `capacity` rows; the readings among them are shown in a gauge.
    #[must_use]
    pub fn new(capacity: usize, readings: IntGauge) -> Arc<Backlog> {
        Arc::new(Backlog { rows: AtomicUsize::new(0), capacity, readings })
    }

    /// Whether there is room for more.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.rows.load(Ordering::Acquire) < self.capacity
    }

    /// Waits until there is room.
    pub async fn room(&self) {
        while !self.has_room() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Counts a batch in, before it is sent.
    pub fn add(&self, batch: &WriteBatch) {
        let load = Load::of(batch);
        self.rows.fetch_add(load.rows, Ordering::AcqRel);
        self.readings.add(i64::try_from(load.readings).unwrap_or(i64::MAX));
    }

    /// Counts a batch out, once it is committed.
    pub(super) fn release(&self, load: Load) {
        self.rows.fetch_sub(load.rows, Ordering::AcqRel);
        self.readings.sub(i64::try_from(load.readings).unwrap_or(i64::MAX));
    }
}

/// What a batch weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    rows: usize,
    readings: usize,
}

impl Load {
    /// What a batch weighs.
    pub(super) fn of(batch: &WriteBatch) -> Load {
        let readings = batch.readings.series.len();
        Load { rows: readings + batch.forecasts.series.len(), readings }
    }
}
