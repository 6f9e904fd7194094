//! Writes what the engine records, batch after batch, and only then lets packets be acknowledged.

mod backlog;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

pub use backlog::Backlog;
use backlog::Load;

use crate::message::AckToken;
use crate::metrics::{Metrics, Rejection};
use crate::record::{ReadingColumns, SeriesHandle, WriteBatch};
use crate::store::{SeriesIds, Store, StoreError, Written};

/// Readings at which a batch is full.
const MAX_READINGS: usize = 4000;
/// Forecast rows at which a batch is full.
const MAX_FORECASTS: usize = 16_000;
/// States at which a batch is full; they are a few KiB each.
const MAX_STATES: usize = 4000;
/// Readings from which a batch counts as part of a burst, and waits a moment for more: at 35,000
/// readings a second that spared about a quarter of the CPU time of this process and Postgres.
const BURST: usize = 64;
/// That moment.
const LINGER: Duration = Duration::from_millis(2);
/// A write that takes longer is given up and tried again on another connection.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// First and longest wait between two tries.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How often a store that stays away is mentioned.
const REMIND_EVERY: Duration = Duration::from_secs(30);
/// How often an idle recorder looks whether the store is there.
const PING_EVERY: Duration = Duration::from_secs(10);

/// What the engine asks to be written.
#[derive(Debug, Default)]
pub struct Record {
    /// The rows.
    pub batch: WriteBatch,
    /// Packets to acknowledge once the rows, and all rows sent before, are committed.
    pub acks: Vec<AckToken>,
    /// Whom to tell the same.
    pub committed: Vec<oneshot::Sender<()>>,
}

impl Record {
    fn append(&mut self, mut later: Record) {
        self.batch.append(later.batch);
        self.acks.append(&mut later.acks);
        self.committed.append(&mut later.committed);
    }

    /// Adds what waits, until there is enough for one commit.
    fn append_waiting(&mut self, records: &mut mpsc::UnboundedReceiver<Record>) {
        while !self.is_full() {
            let Ok(later) = records.try_recv() else { break };
            self.append(later);
        }
    }

    fn is_full(&self) -> bool {
        self.batch.readings.series.len() >= MAX_READINGS
            || self.batch.forecasts.series.len() >= MAX_FORECASTS
            || self.batch.states.len() >= MAX_STATES
    }
}

/// The task between the engine and the store.
#[derive(Debug)]
pub struct Recorder {
    store: Store,
    metrics: Arc<Metrics>,
    backlog: Arc<Backlog>,
    ids: SeriesIds,
    /// Names of the streams by position in the configuration.
    streams: Vec<String>,
    /// Stream of each series by handle.
    stream_of: Vec<Option<usize>>,
    /// Series that the store refused: their rows are, too, without asking again.
    refused: HashSet<SeriesHandle>,
}

impl Recorder {
    /// A recorder that continues with the series restored: their ids, and their streams' positions
    /// in the configuration, by handle.
    #[must_use]
    pub fn new(
        store: Store,
        metrics: Arc<Metrics>,
        backlog: Arc<Backlog>,
        ids: SeriesIds,
        streams: Vec<String>,
        streams_of: Vec<usize>,
    ) -> Recorder {
        let stream_of = streams_of.into_iter().map(Some).collect();
        Recorder { store, metrics, backlog, ids, streams, stream_of, refused: HashSet::new() }
    }

    /// Writes records until their channel closes and all are written.
    pub async fn run(
        mut self,
        mut records: mpsc::UnboundedReceiver<Record>,
        acks: mpsc::UnboundedSender<AckToken>,
    ) {
        while let Some(mut record) = self.next(&mut records).await {
            record.append_waiting(&mut records);
            if record.batch.readings.series.len() > BURST && !record.is_full() {
                tokio::time::sleep(LINGER).await;
                record.append_waiting(&mut records);
            }
            let load = Load::of(&record.batch);
            self.commit(record.batch).await;
            self.backlog.release(load);
            for ack in record.acks {
                // The inlet is gone only at shutdown; the broker then delivers again.
                let _ = acks.send(ack);
            }
            for committed in record.committed {
                // Whoever asked may have stopped waiting.
                let _ = committed.send(());
            }
        }
    }

    /// The next record; while there is none, keeps `vidente_store_up` true to life.
    async fn next(&self, records: &mut mpsc::UnboundedReceiver<Record>) -> Option<Record> {
        loop {
            match tokio::time::timeout(PING_EVERY, records.recv()).await {
                Ok(record) => return record,
                Err(_) => {
                    let up = tokio::time::timeout(PING_EVERY, self.store.ping()).await;
                    self.metrics.store_up.set(i64::from(matches!(up, Ok(Ok(())))));
                }
            }
        }
    }

    /// Returns once every row is committed or refused for good.
    async fn commit(&mut self, batch: WriteBatch) {
        for series in &batch.new_series {
            let place = series.handle as usize;
            if self.stream_of.len() <= place {
                self.stream_of.resize(place + 1, None);
            }
            if let Some(slot) = self.stream_of.get_mut(place) {
                *slot = self.streams.iter().position(|name| *name == series.stream);
            }
        }
        let mut parts = vec![batch];
        while let Some(mut part) = parts.pop() {
            if !self.refused.is_empty() {
                self.drop_refused(&mut part);
            }
            if part.is_empty() {
                continue;
            }
            match self.write(&part).await {
                Ok(written) => self.count(&part.readings, &written),
                // Some row is to blame: halve until it stands alone, so that the others pass.
                Err(error) => match part.split() {
                    Ok((first, second)) => parts.extend([second, first]),
                    Err(row) => self.refuse(&row, &error),
                },
            }
        }
    }

    /// Tries until the batch is committed, or refused for what it holds.
    async fn write(&mut self, batch: &WriteBatch) -> Result<Written, StoreError> {
        let mut outage: Option<Outage> = None;
        loop {
            let tried = tokio::time::timeout(WRITE_TIMEOUT, self.store.write(batch, &mut self.ids))
                .await
                .unwrap_or_else(|_| {
                    Err(StoreError::Unavailable(format!("no end of a write after {WRITE_TIMEOUT:?}")))
                });
            match tried {
                Err(error) if !error.is_refused() => {
                    self.metrics.store_up.set(0);
                    let wait = outage.get_or_insert_with(|| Outage::begin(&error)).next(&error);
                    tokio::time::sleep(wait).await;
                }
                other => {
                    self.metrics.store_up.set(1);
                    if let Some(outage) = outage {
                        tracing::info!(away = ?outage.since.elapsed(), "the store is back");
                    }
                    return other;
                }
            }
        }
    }

    fn count(&self, readings: &ReadingColumns, written: &Written) {
        self.metrics.stored.inc_by(written.stored);
        let mut duplicates = written.duplicates.iter().peekable();
        for (position, (&series, late)) in readings.series.iter().zip(&readings.late).enumerate() {
            if duplicates.next_if_eq(&&position).is_some() {
                self.reject(series, Rejection::Duplicate);
            } else if *late && let Some(Some(stream)) = self.stream_of.get(series as usize) {
                self.metrics.stream(*stream).late.inc();
            }
        }
    }

    fn reject(&self, series: SeriesHandle, reason: Rejection) {
        if let Some(Some(stream)) = self.stream_of.get(series as usize) {
            self.metrics.stream(*stream).rejected(reason).inc();
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
    }

    /// Takes out the rows of series that the store refused.
    fn drop_refused(&mut self, batch: &mut WriteBatch) {
        for &series in batch.readings.series.iter().filter(|s| self.refused.contains(s)) {
            self.reject(series, Rejection::StoreRefused);
        }
        batch.retain_series(|series| !self.refused.contains(&series));
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
    format!("{:?} {:?}", row.anomalies, row.promote)
}

/// A time during which the store takes nothing.
struct Outage {
    since: Instant,
    mentioned: Instant,
    wait: Duration,
}

impl Outage {
    fn begin(error: &StoreError) -> Outage {
        tracing::error!(%error, "the store is away; readings wait until it is back");
        Outage { since: Instant::now(), mentioned: Instant::now(), wait: BACKOFF.0 }
    }

    /// How long to wait now: twice as long each time, less up to half by chance, so that daemons
    /// that lost the same database do not come back at the same moment.
    fn next(&mut self, error: &StoreError) -> Duration {
        if self.mentioned.elapsed() >= REMIND_EVERY {
            tracing::warn!(%error, away = ?self.since.elapsed(), "the store is still away");
            self.mentioned = Instant::now();
        }
        let wait = self.wait.mul_f64(rand::random_range(0.5..=1.0));
        self.wait = (self.wait * 2).min(BACKOFF.1);
        wait
    }
}
