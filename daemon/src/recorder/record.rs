//! What the engine asks to be written.

use tokio::sync::oneshot;

use crate::message::AckToken;
use crate::record::{SeriesHandle, WriteBatch};

/// Readings at which a batch is full.
const MAX_READINGS: usize = 4000;
/// Forecast rows at which a batch is full.
const MAX_FORECASTS: usize = 16_000;
/// States at which a batch is full; they are a few KiB each.
const MAX_STATES: usize = 1000;

/// Rows, and who is told when they are durable.
#[derive(Debug, Default)]
pub struct Record {
    /// The rows.
    pub batch: WriteBatch,
    /// Packets to acknowledge once the rows, and all rows sent before, are durable: committed to the
    /// store, or in the spool.
    pub acks: Vec<AckToken>,
    /// Whom to tell once the store holds the rows, and all rows sent before.
    pub committed: Vec<oneshot::Sender<()>>,
    /// The same of who gave feedback on a series; let go untold if the store refuses it.
    pub taught: Vec<(SeriesHandle, oneshot::Sender<()>)>,
}

impl Record {
    pub(super) fn append(&mut self, mut later: Record) {
        self.batch.append(later.batch);
        self.acks.append(&mut later.acks);
        self.committed.append(&mut later.committed);
        self.taught.append(&mut later.taught);
    }

    /// Whether it is enough for one commit.
    pub(super) fn is_full(&self) -> bool {
        self.batch.readings.series.len() >= MAX_READINGS
            || self.batch.forecasts.series.len() >= MAX_FORECASTS
            || self.batch.states.len() >= MAX_STATES
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.batch.is_empty() && self.acks.is_empty() && self.committed.is_empty() && self.taught.is_empty()
    }
}
