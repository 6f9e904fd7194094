//! Batches into the store, whatever single rows it refuses.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::Rows;
use crate::metrics::{Metrics, Rejection};
use crate::record::{ModelChange, ReadingColumns, SeriesHandle, WriteBatch};
use crate::store::{Changed, SeriesIds, StoreError, Trouble, Written};

/// A write that takes longer is given up and tried again on another connection.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Writes to the store and keeps count.
#[derive(Debug)]
pub struct Writer<R> {
    store: R,
    metrics: Arc<Metrics>,
    ids: SeriesIds,
    /// Stream of each series by handle; none if nothing is counted by stream.
    stream_of: Option<Vec<Option<usize>>>,
    /// Series that the store refused: their rows are, too, without asking again.
    refused: HashSet<SeriesHandle>,
    /// Series of which it refused the latest feedback.
    unsaid: HashSet<SeriesHandle>,
    /// Series that were made since [`Writer::made`].
    made: Vec<(SeriesHandle, i64)>,
}

/// A batch on its way.
#[derive(Debug)]
pub(super) struct Unwritten {
    /// What is left of it, the first part last.
    parts: Vec<Arc<WriteBatch>>,
    /// Whether a try before this one may have been committed although its answer was lost.
    again: bool,
    /// Readings that have been stored.
    pub(super) stored: u64,
}

impl Unwritten {
    pub(super) fn new(batch: Arc<WriteBatch>) -> Unwritten {
        Unwritten { parts: vec![batch], again: false, stored: 0 }
    }
}

impl<R: Rows> Writer<R> {
    /// A writer that knows some series: their ids, and their streams' positions in the configuration, by
    /// handle. Without the latter it counts nothing by stream.
    #[must_use]
    pub fn new(store: R, metrics: Arc<Metrics>, ids: SeriesIds, streams_of: Option<Vec<usize>>) -> Writer<R> {
        let stream_of = streams_of.map(|of| of.into_iter().map(Some).collect());
        Writer {
            store,
            metrics,
            ids,
            stream_of,
            refused: HashSet::new(),
            unsaid: HashSet::new(),
            made: Vec::new(),
        }
    }

    pub(super) fn ids(&self) -> &SeriesIds {
        &self.ids
    }

    /// The ids of series that were made since this was last asked.
    pub(super) fn made(&mut self) -> Vec<(SeriesHandle, i64)> {
        std::mem::take(&mut self.made)
    }

    /// Whether the store refused the latest feedback on a series.
    pub(super) fn is_unsaid(&self, series: SeriesHandle) -> bool {
        self.refused.contains(&series) || self.unsaid.contains(&series)
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        self.store.ping().await
    }

    /// Returns once every row is committed or refused for good.
    ///
    /// # Errors
    /// If the store takes nothing at present; `unwritten` holds what is to be tried again.
    pub(super) async fn write(&mut self, unwritten: &mut Unwritten) -> Result<(), StoreError> {
        while let Some(part) = unwritten.parts.last_mut() {
            self.place(part);
            if self.holds_refused(part) {
                self.drop_refused(Arc::make_mut(part));
            }
            if part.is_empty() {
                unwritten.parts.pop();
                continue;
            }
            let tried = tokio::time::timeout(WRITE_TIMEOUT, self.store.write(part, &mut self.ids))
                .await
                .unwrap_or_else(|_| {
                    let text = format!("no end of a write after {WRITE_TIMEOUT:?}");
                    Err(StoreError::Unavailable(Trouble::Timeout, text))
                });
            match tried {
                Ok(written) => {
                    unwritten.stored += self.count(&part.readings, &written, unwritten.again);
                    mention(&part.models, &written.models);
                    part.feedback.iter().for_each(|row| _ = self.unsaid.remove(&row.series));
                    let made = part.new_series.iter().map(|s| s.handle);
                    self.made.extend(made.filter_map(|handle| Some((handle, self.ids.get(handle)?))));
                    unwritten.parts.pop();
                }
                Err(error @ (StoreError::Refused(_) | StoreError::TooMuch(_))) => {
                    let Some(part) = unwritten.parts.pop() else { break };
                    // Some row is to blame, or they are too many: halve until it stands alone, or they are not.
                    match Arc::unwrap_or_clone(part).split() {
                        Ok((first, second)) => unwritten.parts.extend([second, first].map(Arc::new)),
                        Err(row) if error.is_refused() => self.refuse(&row, &error),
                        Err(row) => {
                            unwritten.parts.push(Arc::new(*row));
                            return Err(error);
                        }
                    }
                }
                Err(error) => {
                    unwritten.again = true;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Notes the streams of new series.
    fn place(&mut self, batch: &WriteBatch) {
        let Some(stream_of) = &mut self.stream_of else { return };
        for series in &batch.new_series {
            let place = series.handle as usize;
            if stream_of.len() <= place {
                stream_of.resize(place + 1, None);
            }
            if let Some(slot) = stream_of.get_mut(place) {
                *slot = self.metrics.position(&series.stream);
            }
        }
    }

    /// Counts late ones and duplicates; how many readings are stored.
    fn count(&self, readings: &ReadingColumns, written: &Written, again: bool) -> u64 {
        let mut stored = written.stored;
        let mut duplicates = written.duplicates.iter().peekable();
        for (position, (&series, late)) in readings.series.iter().zip(&readings.late).enumerate() {
            let duplicate = duplicates.next_if_eq(&&position).is_some();
            if duplicate && again && !late {
                // The engine lets a time pass once, so this is the try before, whose answer was lost.
                stored += 1;
            } else if duplicate {
                self.reject(series, Rejection::Duplicate);
            } else if *late && let Some(stream) = self.stream_of(series) {
                self.metrics.stream(stream).late.inc();
            }
        }
        stored
    }

    fn stream_of(&self, series: SeriesHandle) -> Option<usize> {
        self.stream_of.as_ref()?.get(series as usize).copied().flatten()
    }

    fn reject(&self, series: SeriesHandle, reason: Rejection) {
        if let Some(stream) = self.stream_of(series) {
            self.metrics.stream(stream).rejected(reason).inc();
        }
    }

    /// Gives up a single row.
    fn refuse(&mut self, row: &WriteBatch, error: &StoreError) {
        tracing::error!(%error, "a row cannot be stored and is dropped: {}", describe(row));
        for series in &row.new_series {
            self.refused.insert(series.handle);
        }
        for &series in &row.readings.series {
            self.reject(series, Rejection::StoreRefused);
        }
        self.unsaid.extend(row.feedback.iter().map(|row| row.series));
    }

    fn holds_refused(&self, batch: &WriteBatch) -> bool {
        let series = || batch.readings.series.iter().chain(&batch.forecasts.series);
        let others = || {
            let states = batch.states.iter().map(|s| s.series);
            let feedback = batch.feedback.iter().map(|f| f.series);
            states.chain(feedback).chain(batch.new_series.iter().map(|s| s.handle))
        };
        // An anomaly comes with a reading, or is of a series that had some.
        !self.refused.is_empty()
            && (series().any(|s| self.refused.contains(s))
                || others().any(|s| self.refused.contains(&s))
                || !batch.anomalies.is_empty())
    }

    /// Takes out the rows of series that the store refused.
    fn drop_refused(&mut self, batch: &mut WriteBatch) {
        for &series in batch.readings.series.iter().filter(|s| self.refused.contains(s)) {
            self.reject(series, Rejection::StoreRefused);
        }
        batch.retain_series(|series| !self.refused.contains(&series));
    }
}

/// Says which changes of champions were left out.
fn mention(changes: &[ModelChange], done: &[Changed]) {
    for (change, done) in changes.iter().zip(done) {
        if let Changed::LeftOut { champion } = done {
            let champion = champion.as_ref().map_or("none", |c| &c.name);
            tracing::warn!(champion, "left out, since the champion changed meanwhile: {change:?}");
        }
    }
}

fn describe(row: &WriteBatch) -> String {
    if let Some(series) = row.new_series.first() {
        // Keys come from topics and may be of any length.
        return format!("series {}", series.key.chars().take(200).collect::<String>());
    }
    if let (Some(series), Some(time)) = (row.readings.series.first(), row.readings.time.first()) {
        return format!("reading of series number {series} at {time} µs");
    }
    if let (Some(series), Some(origin)) = (row.forecasts.series.first(), row.forecasts.origin.first()) {
        return format!("forecast of series number {series} from {origin} µs");
    }
    if let Some(state) = row.states.first() {
        return format!("state of series number {}", state.series);
    }
    format!("{:?} {:?} {:?}", row.anomalies, row.models, row.feedback)
}
