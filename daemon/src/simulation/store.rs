//! A store that fails, is slow, or hangs when it is told to.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::invariants;
use super::sim::{Sim, lock};
use super::tables::{NewIds, Tables};
use crate::record::{AnomalyKind, WriteBatch};
use crate::recorder::Rows;
use crate::store::{
    ModelRow, Past, SeriesIds, SeriesRow, StoreError, StoredFeedback, StoredReading, StoredState, Trouble,
    Written,
};

/// What happens to a write.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// It fails, before or after the commit.
    Fails { committed: bool },
    /// It takes its time.
    Slow(Duration),
    /// It never ends.
    Hangs { committed: bool },
}

/// Clones are the same store.
#[derive(Clone)]
pub(super) struct SimStore {
    sim: Sim,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    tables: Tables,
    faults: VecDeque<Fault>,
    away_until: Instant,
    /// When something last went wrong.
    trouble: Option<Instant>,
    /// Readings stored by writes whose answer arrived, since this was last set to 0.
    answered: u64,
    /// Readings stored by any write since then.
    committed: u64,
}

impl SimStore {
    pub(super) fn new(sim: &Sim) -> SimStore {
        SimStore {
            sim: sim.clone(),
            shared: Arc::new(Mutex::new(Shared {
                tables: Tables::default(),
                faults: VecDeque::new(),
                away_until: Instant::now(),
                trouble: None,
                answered: 0,
                committed: 0,
            })),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }

    /// What is stored now.
    pub(super) fn with<T>(&self, tables: impl FnOnce(&mut Tables) -> T) -> T {
        tables(&mut self.lock().tables)
    }

    pub(super) fn will(&self, fault: Fault, writes: u8) {
        self.lock().faults.extend(std::iter::repeat_n(fault, writes.into()));
    }

    pub(super) fn be_away(&self, time: Duration) {
        self.lock().away_until = Instant::now() + time;
    }

    /// From here on all goes well.
    pub(super) fn recover(&self) {
        let mut shared = self.lock();
        shared.faults.clear();
        shared.away_until = Instant::now();
    }

    /// Whether something may have held up a write within the last so many seconds.
    pub(super) fn troubled(&self, within: Duration) -> bool {
        let shared = self.lock();
        !shared.faults.is_empty()
            || shared.away_until > Instant::now()
            || shared.trouble.is_some_and(|at| at.elapsed() < within)
    }

    /// Readings stored since the last call by writes whose answer arrived, and by all writes.
    pub(super) fn take_stored(&self) -> (u64, u64) {
        let mut shared = self.lock();
        (std::mem::take(&mut shared.answered), std::mem::take(&mut shared.committed))
    }

    fn commit(&self, batch: &WriteBatch, ids: &SeriesIds) -> Result<(Written, NewIds), StoreError> {
        let done = self.lock().tables.commit(&self.sim, batch, ids);
        self.lock().committed += done.as_ref().map_or(0, |(written, _)| written.stored);
        self.sim.note(|| {
            let what = format!(
                "{} readings, {} states, {:?}",
                batch.readings.time.len(),
                batch.states.len(),
                batch.models
            );
            match &done {
                Ok((written, _)) => format!("commit of {what}: {} stored", written.stored),
                Err(error) => format!("commit of {what}: {error}"),
            }
        });
        done
    }

    async fn reach(&self) -> Result<(), StoreError> {
        self.sim.pause().await;
        let mut shared = self.lock();
        if shared.away_until > Instant::now() {
            shared.trouble = Some(Instant::now());
            return Err(StoreError::Unavailable(Trouble::Unreachable, "away".to_owned()));
        }
        Ok(())
    }

    fn answer(
        &self,
        done: Result<(Written, NewIds), StoreError>,
        ids: &mut SeriesIds,
    ) -> Result<Written, StoreError> {
        let (written, new) = done?;
        new.into_iter().for_each(|(handle, id)| ids.insert(handle, id));
        self.lock().answered += written.stored;
        Ok(written)
    }

    async fn read<T>(&self, what: impl FnOnce(&Tables) -> T) -> Result<T, StoreError> {
        self.reach().await?;
        Ok(what(&self.lock().tables))
    }
}

impl Rows for SimStore {
    async fn write(&self, batch: &WriteBatch, ids: &mut SeriesIds) -> Result<Written, StoreError> {
        invariants::batch(&self.sim, batch);
        self.reach().await?;
        let fault = {
            let mut shared = self.lock();
            let fault = shared.faults.pop_front();
            shared.trouble = fault.map(|_| Instant::now()).or(shared.trouble);
            fault
        };
        if let Some(fault) = fault {
            self.sim.note(|| format!("write: {fault:?}"));
        }
        match fault {
            None => {}
            Some(Fault::Slow(time)) => sleep(time).await,
            Some(Fault::Fails { committed }) => {
                if committed {
                    self.commit(batch, ids)?;
                }
                return Err(StoreError::Unavailable(Trouble::Other, "failed".to_owned()));
            }
            Some(Fault::Hangs { committed }) => {
                if committed {
                    self.commit(batch, ids)?;
                }
                std::future::pending::<()>().await;
            }
        }
        let done = self.commit(batch, ids);
        self.sim.pause().await;
        self.answer(done, ids)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.reach().await
    }
}

impl Past for SimStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        self.reach().await
    }

    async fn series(&self) -> Result<Vec<SeriesRow>, StoreError> {
        self.read(|t| t.series.clone()).await
    }

    async fn states(&self, stream: &str) -> Result<Vec<StoredState>, StoreError> {
        let of_stream = |t: &Tables| {
            let ids = t.series.iter().filter(|s| s.stream == stream).map(|s| s.id);
            ids.filter_map(|id| t.states.get(&id).cloned()).collect()
        };
        self.read(of_stream).await
    }

    async fn delete_states(&self, series: &[i64]) -> Result<(), StoreError> {
        self.reach().await?;
        self.lock().tables.states.retain(|id, _| !series.contains(id));
        Ok(())
    }

    async fn readings_after_states(
        &self,
        stream: &str,
        each: impl FnMut(StoredReading) + Send,
    ) -> Result<(), StoreError> {
        let rows = self.read(|t| {
            readings(t, stream, |id| t.states.get(&id).map_or(i64::MIN, |s| s.time.saturating_add(1)))
        });
        rows.await?.into_iter().for_each(each);
        Ok(())
    }

    async fn open_silences(&self, stream: &str) -> Result<Vec<(i64, i64)>, StoreError> {
        let open = |t: &Tables| {
            let mut open = Vec::new();
            let silence = AnomalyKind::Silence.as_str();
            for row in t.series.iter().filter(|s| s.stream == stream) {
                let range = (row.id, silence, i64::MIN)..=(row.id, silence, i64::MAX);
                let began =
                    t.anomalies.range(range).filter(|(_, end)| end.is_none()).map(|((_, _, time), _)| *time);
                open.extend(began.max().map(|time| (row.id, time)));
            }
            open
        };
        self.read(open).await
    }

    async fn feedback_after_states(&self, stream: &str) -> Result<Vec<StoredFeedback>, StoreError> {
        let said = |t: &Tables| {
            let of_stream = |id: i64| t.series.iter().any(|s| s.id == id && s.stream == stream);
            let is_new = |row: &StoredFeedback| {
                t.states.get(&row.series_id).is_none_or(|state| row.newest >= state.time)
            };
            t.feedback.values().filter(|row| of_stream(row.series_id) && is_new(row)).copied().collect()
        };
        self.read(said).await
    }

    async fn champion(&self, stream: &str) -> Result<Option<ModelRow>, StoreError> {
        self.read(|t| t.champion(stream).cloned()).await
    }

    async fn model(&self, id: i64) -> Result<Option<ModelRow>, StoreError> {
        self.read(|t| t.models.iter().find(|m| m.id == id).cloned()).await
    }

    async fn newest(&self, stream: &str) -> Result<Option<i64>, StoreError> {
        let newest = |t: &Tables| {
            let ids: Vec<i64> = t.series.iter().filter(|s| s.stream == stream).map(|s| s.id).collect();
            t.readings.keys().filter(|(id, _)| ids.contains(id)).map(|(_, time)| *time).max()
        };
        self.read(newest).await
    }

    async fn history(
        &self,
        stream: &str,
        since: i64,
        each: impl FnMut(StoredReading) + Send,
    ) -> Result<(), StoreError> {
        self.read(|t| readings(t, stream, |_| since)).await?.into_iter().for_each(each);
        Ok(())
    }
}

/// Readings of a stream that were fed to the model, each series' from a time on.
fn readings(tables: &Tables, stream: &str, since: impl Fn(i64) -> i64) -> Vec<StoredReading> {
    let of_stream = tables.series.iter().filter(|s| s.stream == stream).map(|s| s.id);
    of_stream
        .flat_map(|id| {
            let from = since(id);
            tables.fed(id).filter(move |(time, _)| *time >= from).map(move |(time, value)| StoredReading {
                series_id: id,
                time,
                value,
            })
        })
        .collect()
}
