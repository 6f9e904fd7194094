//! Makes durable what the engine records, and only then lets packets be acknowledged: batch after batch
//! in the store or, while that takes nothing or takes it slowly, in the spool.
//!
//! ```text
//! engine ──▶ waiting ──────────────────▶ one write at a time ═▶ store
//!               └──(store away or slow)──▶ spool ──(oldest first)──▲
//! ```

mod backlog;
mod drain;
mod outage;
mod record;
mod shelf;
#[cfg(test)]
mod tests;
mod writer;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

pub use backlog::Backlog;
pub use drain::drain;
pub(crate) use outage::Outages;
pub use record::Record;
use shelf::{Job, Shelf};
pub use writer::Writer;

use crate::message::AckToken;
use crate::metrics::Metrics;
use crate::record::WriteBatch;
use crate::retry::sleep_until;
use crate::spool::Spool;
use crate::store::{SeriesIds, StoreError, Trouble, Written};

/// Readings from which a batch counts as part of a burst, and waits a moment for more: at 35,000
/// readings a second that spared about a quarter of the CPU time of this process and Postgres.
const BURST: usize = 64;
/// That moment.
const LINGER: Duration = Duration::from_millis(2);
/// A write that takes longer makes what comes meanwhile go to the spool.
const SLOW: Duration = Duration::from_secs(1);
/// How often an idle recorder looks whether the store is there, and how soon it looks again at a spool
/// that cannot be read.
const PING_EVERY: Duration = Duration::from_secs(10);
/// How long the end waits for a store that is away, if otherwise something would be lost.
const LAST_TRIES: Duration = Duration::from_secs(8);

/// What takes batches: the database, or a simulated one.
pub trait Rows: Send + Sync + 'static {
    /// Writes a batch in one transaction. Safe to repeat: readings, forecasts and series that are already
    /// there stay as they are. `ids` learns the ids of new series once they are committed.
    fn write(
        &self,
        batch: &WriteBatch,
        ids: &mut SeriesIds,
    ) -> impl Future<Output = Result<Written, StoreError>> + Send;

    /// Asks for a sign of life.
    fn ping(&self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// The task between the engine and the store.
#[derive(Debug)]
pub struct Recorder<R> {
    writer: Writer<R>,
    shelf: Shelf,
    backlog: Arc<Backlog>,
    metrics: Arc<Metrics>,
    outages: Outages,
    /// Whether what comes goes to the spool: the store is away or slow, or the spool is not empty.
    spooling: bool,
}

/// What the engine sends, and how it ends.
struct Intake {
    records: mpsc::UnboundedReceiver<Record>,
    acks: mpsc::UnboundedSender<AckToken>,
    /// Once the engine has ended: until when what is not durable is tried.
    until: Option<Instant>,
}

impl Intake {
    /// Takes what the engine sends next, and what else is there. Loses nothing if it is dropped.
    async fn receive(&mut self, shelf: &mut Shelf) {
        match self.records.recv().await {
            Some(record) => {
                shelf.push(record);
                self.take(shelf);
            }
            None => self.until = Some(Instant::now() + LAST_TRIES),
        }
    }

    /// Takes what is there.
    fn take(&mut self, shelf: &mut Shelf) {
        while let Ok(record) = self.records.try_recv() {
            shelf.push(record);
        }
    }
}

/// How a try to write ended.
enum Tried {
    Done,
    Failed(StoreError),
    /// The end has come, and all is durable or too much time has passed.
    GivenUp,
}

impl<R: Rows> Recorder<R> {
    /// A recorder over a store and, while that is away, a spool, which must be empty.
    #[must_use]
    pub fn new(
        writer: Writer<R>,
        spool: Option<Spool>,
        backlog: Arc<Backlog>,
        metrics: Arc<Metrics>,
    ) -> Recorder<R> {
        Recorder {
            shelf: Shelf::new(spool, writer.ids().clone(), backlog.clone(), metrics.clone()),
            writer,
            backlog,
            metrics,
            outages: Outages::default(),
            spooling: false,
        }
    }

    /// Makes records durable until their channel closes and all are, in the store if that is there.
    pub async fn run(
        mut self,
        records: mpsc::UnboundedReceiver<Record>,
        acks: mpsc::UnboundedSender<AckToken>,
    ) {
        let mut intake = Intake { records, acks, until: None };
        let mut left = None;
        while let Some(job) = self.next(&mut intake).await {
            left = self.finish(job, &mut intake).await;
            if left.is_some() {
                break;
            }
        }
        // The engine must not wait for room any more.
        self.backlog.set_away(true);
        self.shelf.leave(left.map(|job| job.cargo).as_ref());
    }

    /// What is to be written next; none at the end.
    async fn next(&mut self, intake: &mut Intake) -> Option<Job> {
        loop {
            intake.take(&mut self.shelf);
            if self.spooling {
                self.shelf.spool(None, &intake.acks);
                if intake.until.is_some() && self.shelf.is_durable() {
                    return None;
                }
            } else if self.shelf.may_grow() {
                tokio::time::sleep(LINGER).await;
                intake.take(&mut self.shelf);
            }
            match self.shelf.next() {
                Ok(Some(job)) => return Some(job),
                Ok(None) if intake.until.is_some() => return None,
                Ok(None) => {
                    let Recorder { shelf, writer, metrics, .. } = self;
                    tokio::select! {
                        biased;
                        () = intake.receive(shelf) => {}
                        () = ping(writer, metrics) => {}
                    }
                }
                Err(error) => {
                    tracing::error!("the spool cannot be read, trying again: {error}");
                    if !self.pause(PING_EVERY, None, intake).await {
                        return None;
                    }
                }
            }
        }
    }

    /// Writes a job, however long the store is away; gives it back if the end has come before.
    async fn finish(&mut self, mut job: Job, intake: &mut Intake) -> Option<Job> {
        loop {
            let begun = Instant::now();
            match self.attempt(&mut job, intake).await {
                Tried::Done => {
                    self.outages.succeeded();
                    self.metrics.store_up.set(1);
                    let slow = begun.elapsed() >= SLOW;
                    self.metrics.set_trouble(slow.then_some(Trouble::Slow));
                    let made = self.writer.made();
                    self.shelf.done(job, made, |series| self.writer.is_unsaid(series), &intake.acks);
                    self.spooling = slow || self.shelf.has_spooled();
                    // What only the store can take waits until the spool is empty.
                    self.backlog.set_away(self.spooling);
                    return None;
                }
                Tried::Failed(error) => {
                    self.metrics.store_up.set(0);
                    self.metrics.set_trouble(Some(error.trouble()));
                    self.backlog.set_away(true);
                    let wait = self.outages.failed(&error);
                    self.spooling = true;
                    self.shelf.spool(Some(&mut job.cargo), &intake.acks);
                    if !self.pause(wait, Some(&mut job), intake).await {
                        return Some(job);
                    }
                }
                Tried::GivenUp => return Some(job),
            }
        }
    }

    /// One try; what comes meanwhile waits, and goes to the spool if the try takes long.
    async fn attempt(&mut self, job: &mut Job, intake: &mut Intake) -> Tried {
        let Job { unwritten, cargo } = job;
        let mut write = pin!(self.writer.write(unwritten));
        let mut slow = pin!(tokio::time::sleep(SLOW));
        let mut stalled = false;
        loop {
            let ending = intake.until;
            tokio::select! {
                biased;
                written = &mut write => return written.map_or_else(Tried::Failed, |()| Tried::Done),
                () = &mut slow, if !stalled => {
                    stalled = true;
                    self.spooling = true;
                    self.backlog.set_away(true);
                    self.outages.slow(SLOW);
                    self.metrics.set_trouble(Some(Trouble::Slow));
                    self.shelf.spool(Some(&mut *cargo), &intake.acks);
                }
                () = intake.receive(&mut self.shelf), if ending.is_none() => {
                    if self.spooling {
                        self.shelf.spool(Some(&mut *cargo), &intake.acks);
                    }
                }
                () = sleep_until(ending), if ending.is_some() && stalled => return Tried::GivenUp,
            }
            if stalled && intake.until.is_some() && cargo.is_durable() && self.shelf.is_durable() {
                return Tried::GivenUp;
            }
        }
    }

    /// Lets time pass, during which what comes goes to the spool; false if the end has come and all is
    /// durable, or too much time has passed.
    async fn pause(&mut self, wait: Duration, mut job: Option<&mut Job>, intake: &mut Intake) -> bool {
        let mut over = pin!(tokio::time::sleep(wait));
        loop {
            if let Some(until) = intake.until {
                let durable =
                    job.as_ref().is_none_or(|job| job.cargo.is_durable()) && self.shelf.is_durable();
                if durable || Instant::now() >= until {
                    return false;
                }
            }
            let until = intake.until;
            tokio::select! {
                () = &mut over => return true,
                () = intake.receive(&mut self.shelf), if until.is_none() => {
                    self.shelf.spool(job.as_mut().map(|job| &mut job.cargo), &intake.acks);
                }
                () = sleep_until(until), if until.is_some() => {}
            }
        }
    }
}

/// Keeps `vidente_store_up` true to life while there is nothing to write.
async fn ping<R: Rows>(writer: &Writer<R>, metrics: &Metrics) {
    tokio::time::sleep(PING_EVERY).await;
    let up = tokio::time::timeout(PING_EVERY, writer.ping()).await;
    metrics.store_up.set(i64::from(matches!(up, Ok(Ok(())))));
}
