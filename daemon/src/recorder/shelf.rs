//! Records on their way to the store: in memory, or in the spool while the store does not keep up.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::backlog::{Backlog, Load};
use super::writer::Unwritten;
use super::{BURST, Record};
use crate::message::AckToken;
use crate::metrics::Metrics;
use crate::record::{AnomalyChange, NewSeries, SeriesHandle, WriteBatch};
use crate::retry::Reminder;
use crate::spool::{Entry, Position, Spool, SpoolError};
use crate::store::SeriesIds;

/// Time between two tries to write to a spool that is full or broken.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// How often a spool that stays full or broken is mentioned.
const REMIND_EVERY: Duration = Duration::from_secs(30);

/// One write to the store, and what hangs on it.
#[derive(Debug)]
pub(super) struct Job {
    /// What the writer still has to do.
    pub(super) unwritten: Unwritten,
    pub(super) cargo: Cargo,
}

/// What is to be told and released when a job is done.
#[derive(Debug)]
pub(super) struct Cargo {
    whole: Arc<WriteBatch>,
    load: Load,
    acks: Vec<AckToken>,
    committed: Vec<oneshot::Sender<()>>,
    taught: Vec<(SeriesHandle, oneshot::Sender<()>)>,
    /// Up to where the spool holds the job's rows; none while only memory does.
    spooled: Option<Position>,
}

impl Cargo {
    /// Whether the process could end without losing a row or an acknowledgement.
    pub(super) fn is_durable(&self) -> bool {
        self.spooled.is_some() || (self.load.rows == 0 && self.acks.is_empty())
    }
}

/// A record, and what it was counted in as: less may be left of it.
#[derive(Debug, Default)]
struct Waiting {
    record: Record,
    load: Load,
}

impl Waiting {
    fn append(&mut self, later: Waiting) {
        self.record.append(later.record);
        self.load += later.load;
    }
}

/// What waits. Everything in the spool goes before everything in memory.
#[derive(Debug)]
pub(super) struct Shelf {
    spool: Option<Spool>,
    /// Rows that only memory holds, oldest first.
    waiting: VecDeque<Waiting>,
    /// What only the store can take: states, changes of champions, feedback, whom to tell of a commit.
    held: Waiting,
    /// The store's ids, for what is spooled.
    known: SeriesIds,
    /// Series that the store may not know yet.
    unsaved: HashMap<SeriesHandle, NewSeries>,
    /// When a spool that is full or broken may be tried again.
    retry_at: Option<Instant>,
    trouble_reminder: Reminder,
    use_reminder: Reminder,
    /// Whether it is to be said when the spool is empty.
    in_use: bool,
    backlog: Arc<Backlog>,
    metrics: Arc<Metrics>,
}

impl Shelf {
    pub(super) fn new(
        spool: Option<Spool>,
        known: SeriesIds,
        backlog: Arc<Backlog>,
        metrics: Arc<Metrics>,
    ) -> Shelf {
        let shelf = Shelf {
            spool,
            waiting: VecDeque::new(),
            held: Waiting::default(),
            known,
            unsaved: HashMap::new(),
            retry_at: None,
            trouble_reminder: Reminder::default(),
            use_reminder: Reminder::default(),
            in_use: false,
            backlog,
            metrics,
        };
        shelf.measure();
        shelf
    }

    /// Takes in what the engine sent.
    pub(super) fn push(&mut self, record: Record) {
        for series in &record.batch.new_series {
            self.unsaved.insert(series.handle, series.clone());
        }
        let waiting = Waiting { load: Load::of(&record.batch), record };
        match self.waiting.back_mut().filter(|last| !last.record.is_full()) {
            Some(last) => last.append(waiting),
            None => self.waiting.push_back(waiting),
        }
    }

    /// Whether the spool holds something.
    pub(super) fn has_spooled(&self) -> bool {
        self.spool.as_ref().is_some_and(|spool| !spool.is_empty())
    }

    /// Whether something waits that the end of the process would lose.
    pub(super) fn is_durable(&self) -> bool {
        self.waiting.iter().all(|w| w.load.rows == 0 && w.record.acks.is_empty())
    }

    /// Whether the next job is part of a burst and may grow if it waits a moment.
    pub(super) fn may_grow(&self) -> bool {
        let first = self.waiting.front().filter(|_| !self.has_spooled() && self.waiting.len() == 1);
        first.is_some_and(|first| first.load.readings > BURST && !first.record.is_full())
    }

    /// What is to be written next; it stays in the spool until it is done.
    ///
    /// # Errors
    /// If the spool cannot be read.
    pub(super) fn next(&mut self) -> io::Result<Option<Job>> {
        if let Some(spool) = self.spool.as_mut().filter(|spool| !spool.is_empty())
            && let Some((entry, end)) = blocking(|| spool.read())?
        {
            let whole = Arc::new(entry.into_batch().1);
            let cargo = Cargo {
                whole: whole.clone(),
                load: Load::default(),
                acks: Vec::new(),
                committed: Vec::new(),
                taught: Vec::new(),
                spooled: Some(end),
            };
            return Ok(Some(Job { unwritten: Unwritten::new(whole), cargo }));
        }
        let mut next = std::mem::take(&mut self.held);
        if let Some(first) = self.waiting.pop_front() {
            next.append(first);
        }
        let Waiting { record, load } = next;
        if record.is_empty() {
            return Ok(None);
        }
        let whole = Arc::new(record.batch);
        let cargo = Cargo {
            whole: whole.clone(),
            load,
            acks: record.acks,
            committed: record.committed,
            taught: record.taught,
            spooled: None,
        };
        Ok(Some(Job { unwritten: Unwritten::new(whole), cargo }))
    }

    /// The store holds a job's rows, feedback apart that is unsaid: tells whom it concerns.
    pub(super) fn done(
        &mut self,
        job: Job,
        made: Vec<(SeriesHandle, i64)>,
        is_unsaid: impl Fn(SeriesHandle) -> bool,
        acks: &mpsc::UnboundedSender<AckToken>,
    ) {
        for (handle, id) in made {
            self.known.insert(handle, id);
            self.unsaved.remove(&handle);
        }
        self.metrics.stored.inc_by(job.unwritten.stored);
        let Cargo { load, acks: tokens, committed, taught, spooled, .. } = job.cargo;
        if let Some(spool) = &mut self.spool {
            if let Some(position) = spooled {
                blocking(|| spool.release(position));
            }
            if spool.is_empty() {
                // There is room again, and a broken disk shows at the next try.
                self.retry_at = None;
                self.metrics.spool_writable.set(1);
                if std::mem::take(&mut self.in_use) {
                    tracing::info!("the spool is empty");
                }
            }
            self.measure();
        }
        self.release(load, tokens, acks);
        let taught = taught.into_iter().filter(|(series, _)| !is_unsaid(*series)).map(|(_, told)| told);
        for told in committed.into_iter().chain(taught) {
            // Whoever asked may have stopped waiting.
            let _ = told.send(());
        }
    }

    /// Moves the rows of a job that is under way and then what waits into the spool, as far as that takes
    /// them, and acknowledges them. What waits never goes before the job.
    pub(super) fn spool(&mut self, job: Option<&mut Cargo>, acks: &mpsc::UnboundedSender<AckToken>) {
        let now = Instant::now();
        if self.spool.is_none() || self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        if let Some(cargo) = job {
            self.spool_job(cargo, acks);
            if !cargo.is_durable() {
                return;
            }
        }
        self.spool_waiting(acks);
    }

    /// Puts the rows of a job that has come from memory into the spool.
    fn spool_job(&mut self, cargo: &mut Cargo, acks: &mpsc::UnboundedSender<AckToken>) {
        if cargo.is_durable() {
            return;
        }
        debug_assert!(!self.has_spooled(), "a job comes from memory only if nothing is spooled");
        let entry = self.entry(&cargo.whole);
        cargo.spooled = self.append(entry);
        if cargo.spooled.is_some() {
            // Its states stay in memory.
            self.release(cargo.load.without_states(), std::mem::take(&mut cargo.acks), acks);
            cargo.load = cargo.load.of_states();
        }
    }

    fn spool_waiting(&mut self, acks: &mpsc::UnboundedSender<AckToken>) {
        while let Some(first) = self.waiting.pop_front() {
            let durable = if first.load.rows > 0 {
                let entry = self.entry(&first.record.batch);
                self.append(entry).is_some()
            } else {
                // Without rows of its own, but perhaps behind some that are not durable.
                first.record.acks.is_empty() || self.retry_at.is_none()
            };
            if !durable {
                self.waiting.push_front(first);
                return;
            }
            let Record { batch, acks: tokens, committed, taught } = first.record;
            self.release(first.load.without_states(), tokens, acks);
            let WriteBatch { states, models, feedback, .. } = batch;
            let batch = WriteBatch { states, models, feedback, ..WriteBatch::default() };
            let record = Record { batch, acks: Vec::new(), committed, taught };
            self.held.append(Waiting { record, load: first.load.of_states() });
        }
    }

    /// At the end: says what is left for the next start, and what is not, of a job and of all that waits.
    pub(super) fn leave(&self, job: Option<&Cargo>) {
        if let Some(spool) = self.spool.as_ref().filter(|spool| !spool.is_empty()) {
            tracing::info!(readings = spool.readings(), "left in the spool, for the next start");
        }
        let loads = self.waiting.iter().map(|w| w.load).chain(job.map(|job| job.load));
        let readings: usize = loads.map(|load| load.readings).sum();
        if readings > 0 {
            tracing::warn!(
                readings,
                "not stored, since neither store nor spool take anything; what came at QoS 1 comes again"
            );
        }
    }

    fn release(&self, load: Load, tokens: Vec<AckToken>, acks: &mpsc::UnboundedSender<AckToken>) {
        self.backlog.release(load);
        for token in tokens {
            // The inlet is gone only at shutdown; the broker then delivers again.
            let _ = acks.send(token);
        }
    }

    /// The rows of a batch, with what their handles mean.
    fn entry(&self, batch: &WriteBatch) -> Entry {
        let of_anomaly = |change: &AnomalyChange| match *change {
            AnomalyChange::Began { series, .. } | AnomalyChange::Ended { series, .. } => series,
        };
        let mut seen: HashSet<SeriesHandle> = HashSet::new();
        let mut ids = Vec::new();
        let mut rows = WriteBatch {
            readings: batch.readings.clone(),
            forecasts: batch.forecasts.clone(),
            anomalies: batch.anomalies.clone(),
            ..WriteBatch::default()
        };
        let handles = (batch.new_series.iter().map(|s| s.handle))
            .chain(batch.readings.series.iter().copied())
            .chain(batch.forecasts.series.iter().copied())
            .chain(batch.anomalies.iter().map(of_anomaly));
        for handle in handles.filter(|&handle| seen.insert(handle)) {
            match (self.known.get(handle), self.unsaved.get(&handle)) {
                (Some(id), _) => ids.push((handle, id)),
                (None, series) => rows.new_series.extend(series.cloned()),
            }
        }
        Entry::new(ids, rows)
    }

    /// Puts an entry on disk; none if that is not possible now.
    fn append(&mut self, entry: Entry) -> Option<Position> {
        let spool = self.spool.as_mut()?;
        // A store that is slow makes it fill and empty all the time.
        if spool.is_empty() && self.use_reminder.is_due(REMIND_EVERY) {
            tracing::warn!("readings go to the spool");
            self.in_use = true;
        }
        let appended = blocking(|| spool.append(&entry));
        self.measure();
        match appended {
            Ok(position) => {
                if self.retry_at.take().is_some() {
                    tracing::info!("the spool takes readings again");
                }
                self.metrics.spool_writable.set(1);
                Some(position)
            }
            Err(error) => {
                self.failed(&error);
                None
            }
        }
    }

    fn failed(&mut self, error: &SpoolError) {
        self.metrics.spool_writable.set(0);
        if self.trouble_reminder.is_due(REMIND_EVERY) {
            tracing::error!("{error}; readings wait in memory and then at the broker");
        }
        self.retry_at = Some(Instant::now() + RETRY_EVERY);
    }

    fn measure(&self) {
        let Some(spool) = &self.spool else { return };
        self.metrics.spool_bytes.set(i64::try_from(spool.bytes()).unwrap_or(i64::MAX));
        self.metrics.spool_readings.set(i64::try_from(spool.readings()).unwrap_or(i64::MAX));
    }
}

/// Runs what waits for a disk without holding up the other tasks of its thread.
pub(super) fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
