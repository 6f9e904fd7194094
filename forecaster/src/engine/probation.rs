//! Probation: after a swap, the model that was replaced goes on forecasting in the shadow of the new one,
//! for some of the stream's series, and both are judged by the same readings.

use std::sync::Arc;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::{SeriesHandle, StreamSpec};
use crate::model::Model;
use crate::reading::{Reading, Timestamp};
use crate::series::{Judged, Room, Series};

/// Series that are shadowed at most: enough to tell two models apart, at a bounded cost in time and memory.
pub const SHADOWS: usize = 1000;
/// Readings of a block at least.
const BLOCK: u64 = 50;
/// Blocks whose spread says what may be chance, though it is looked at again and again.
const MIN_BLOCKS: u64 = 10;

/// How two models did on the same readings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Readings that both had forecast.
    pub readings: u64,
    /// Time of the first of them, in microseconds since the Unix epoch.
    pub from: i64,
    /// The same and the time, of its own readings, that a series has been followed for: whatever the order in
    /// which series report.
    pub until: i64,
    /// Sum of the new model's pinball losses, in units of each series' scale.
    pub loss: f64,
    /// The same of the model before.
    pub loss_before: f64,
    /// Sum of the new model's absolute errors.
    pub error: f64,
    /// The same of the model before.
    pub error_before: f64,
    /// The same of the last value.
    pub naive_error: f64,
    blocks: u64,
    /// Mean over blocks of how much more the new model lost, and sum of its squared deviations.
    mean: f64,
    squares: f64,
    /// The block under way.
    in_block: u64,
    more: f64,
}

impl Tally {
    fn add(&mut self, time: Timestamp, followed: i64, new: &Judged, before: &Judged, block: u64) {
        if self.readings == 0 {
            (self.from, self.until) = (time.0, time.0);
        }
        self.readings += 1;
        self.until = self.until.max(self.from.saturating_add(followed));
        self.loss += new.loss;
        self.loss_before += before.loss;
        self.error += new.error;
        self.error_before += before.error;
        self.naive_error += new.naive_error;
        self.in_block += 1;
        self.more += new.loss - before.loss;
        if self.in_block >= block.max(BLOCK) {
            self.blocks += 1;
            let x = self.more / self.in_block as f64;
            let off = x - self.mean;
            self.mean += off / self.blocks as f64;
            self.squares += off * (x - self.mean);
            (self.in_block, self.more) = (0, 0.0);
        }
    }

    /// How much more the new model lost than the one before, as a share; none before anything was lost.
    #[must_use]
    pub fn rise(&self) -> Option<f64> {
        (self.loss_before > 0.0).then(|| self.loss / self.loss_before - 1.0)
    }

    /// How many standard errors, by blocks of readings, the new model's loss lies above the other's; none
    /// before there are blocks enough to say.
    #[must_use]
    pub fn deviations(&self) -> Option<f64> {
        (self.blocks >= MIN_BLOCKS).then(|| {
            let blocks = self.blocks as f64;
            let error = (self.squares / (blocks - 1.0) / blocks).sqrt();
            self.mean / error.max(f64::MIN_POSITIVE)
        })
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Probation {
    model: Option<Arc<Model>>,
    shadows: HashMap<SeriesHandle, Shadow>,
    tally: Tally,
    /// How long series were followed before a restart, in microseconds.
    before: i64,
}

/// A series under the model before.
#[derive(Debug)]
struct Shadow {
    series: Series,
    /// Time of the first reading that was judged.
    since: Option<Timestamp>,
}

impl Probation {
    /// Of the series of a stream, a spread of at most [`SHADOWS`] is shadowed.
    pub(super) fn new(
        model: Option<Arc<Model>>,
        handles: &[SeriesHandle],
        mut series: impl FnMut(SeriesHandle) -> Series,
        tally: Tally,
    ) -> Probation {
        let every = handles.len().div_ceil(SHADOWS).max(1);
        let shadow = |&handle| (handle, Shadow { series: series(handle), since: None });
        let shadows = handles.iter().step_by(every).map(shadow).collect();
        Probation { model, shadows, tally, before: tally.until.saturating_sub(tally.from) }
    }

    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    /// Judges both by a reading, and lets the shadow follow it.
    pub(super) fn observe(
        &mut self,
        handle: SeriesHandle,
        series: &Series,
        reading: Reading,
        spec: &StreamSpec,
        room: &mut Room,
    ) {
        if series.last().is_none() && self.shadows.len() < SHADOWS {
            self.shadows.insert(handle, Shadow { series: Series::default(), since: None });
        }
        let block = self.shadows.len() as u64;
        let Some(shadow) = self.shadows.get_mut(&handle) else { return };
        // One unit for both.
        let unit = series.scale();
        if let (Some(new), Some(before)) = (series.judge(reading, unit), shadow.series.judge(reading, unit)) {
            let since = *shadow.since.get_or_insert(reading.time);
            let followed = self.before.saturating_add(reading.time.0 - since.0);
            self.tally.add(reading.time, followed, &new, &before, block);
        }
        shadow.series.pass(reading, spec, self.model.as_deref(), true, room);
    }
}
