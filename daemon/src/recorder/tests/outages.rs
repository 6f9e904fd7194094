//! A store that is away, slow or loses its answers, with and without a spool, in simulated time.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;

use super::*;
use crate::record::StateRow;

/// How the store takes a write.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Up,
    Away,
    /// Commits, and then the connection breaks.
    Mute,
    Slow(Duration),
    /// Takes so many readings at once.
    Narrow(usize),
}

#[derive(Debug)]
struct Made {
    mood: Mood,
    series: BTreeMap<String, i64>,
    /// By series id and time, the order in which they were committed.
    readings: BTreeMap<(i64, i64), usize>,
    states: BTreeMap<i64, i64>,
}

/// A store in memory.
#[derive(Debug, Clone)]
struct Fake(Arc<Mutex<Made>>);

impl Fake {
    fn new(mood: Mood) -> Fake {
        let (series, readings, states) = Default::default();
        Fake(Arc::new(Mutex::new(Made { mood, series, readings, states })))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Made) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, mood: Mood) {
        self.with(|made| made.mood = mood);
    }

    /// Times of a series' readings in the order in which they came.
    fn times(&self, key: &str) -> Vec<i64> {
        self.with(|made| {
            let Some(id) = made.series.get(key) else { return Vec::new() };
            let mut rows: Vec<_> = made.readings.iter().filter(|((s, _), _)| s == id).collect();
            rows.sort_by_key(|(_, order)| **order);
            rows.into_iter().map(|((_, time), _)| *time - T0).collect()
        })
    }
}

impl Rows for Fake {
    async fn write(&self, batch: &WriteBatch, ids: &mut SeriesIds) -> Result<Written, StoreError> {
        let gone = || StoreError::Unavailable(Trouble::Unreachable, "gone".into());
        match self.with(|made| made.mood) {
            Mood::Away => return Err(gone()),
            Mood::Slow(time) => tokio::time::sleep(time).await,
            Mood::Narrow(most) if batch.readings.time.len() > most => {
                return Err(StoreError::TooMuch("locks".into()));
            }
            Mood::Up | Mood::Mute | Mood::Narrow(_) => {}
        }
        let (written, new) = self.with(|made| {
            let mut new = Vec::new();
            for series in &batch.new_series {
                let next = made.series.len() as i64 + 100;
                new.push((series.handle, *made.series.entry(series.key.clone()).or_insert(next)));
            }
            let id = |handle: SeriesHandle| {
                let made = new.iter().find(|(h, _)| *h == handle).map(|(_, id)| *id);
                made.or_else(|| ids.get(handle))
                    .ok_or_else(|| StoreError::Refused(format!("no series {handle}")))
            };
            let mut written = Written::default();
            for (at, (&handle, &time)) in batch.readings.series.iter().zip(&batch.readings.time).enumerate() {
                let order = made.readings.len();
                let before = made.readings.insert((id(handle)?, time), order);
                match before {
                    Some(before) => {
                        made.readings.insert((id(handle)?, time), before);
                        written.duplicates.push(at);
                    }
                    None => written.stored += 1,
                }
            }
            for state in &batch.states {
                made.states.insert(id(state.series)?, state.time);
            }
            Ok::<_, StoreError>((written, new))
        })?;
        if self.with(|made| made.mood == Mood::Mute) {
            return Err(gone());
        }
        new.into_iter().for_each(|(handle, id)| ids.insert(handle, id));
        Ok(written)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

fn spool(dir: &TempDir, max_bytes: u64) -> Option<Spool> {
    Some(Spool::open(dir.path(), max_bytes).unwrap())
}

/// A reading of series 0, which is made with the first.
fn reading(time: i64) -> WriteBatch {
    let mut batch = readings(&[(0, T0 + time)]);
    if time == 0 {
        batch.new_series = vec![series(0, "climate/a/value")];
    }
    batch
}

impl Rig {
    /// Sends readings, a packet each, whose id is the time.
    fn send_all(&self, times: std::ops::Range<u16>) {
        times.for_each(|time| self.send(reading(time.into()), time));
    }

    /// Time goes on until nothing more happens at once.
    async fn wait(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    fn all_acked(&mut self) -> Vec<u16> {
        std::iter::from_fn(|| self.acks.try_recv().ok()).map(|ack| ack.packet_id).collect()
    }
}

/// A recorder with a spool, whose store goes away after ten readings.
async fn away(dir: &TempDir) -> (Fake, Rig) {
    let store = Fake::new(Mood::Up);
    let rig = rig(store.clone(), spool(dir, 1 << 20));
    rig.send_all(0..10);
    rig.wait(1).await;
    store.set(Mood::Away);
    (store, rig)
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_away_the_spool_makes_readings_durable() {
    let dir = TempDir::new().unwrap();
    let (store, mut rig) = away(&dir).await;
    rig.send_all(10..50);
    rig.wait(1).await;
    rig.send_all(50..60);
    rig.wait(1).await;
    assert_eq!(rig.all_acked(), (0..60).collect::<Vec<_>>());
    assert_eq!((rig.metrics.spool_readings.get(), rig.metrics.store_queue.get()), (50, 0));
    assert_eq!(rig.metrics.trouble(), Some(Trouble::Unreachable));
    assert!(rig.backlog.is_away());
    store.set(Mood::Up);
    rig.wait(6).await;
    assert_eq!(store.times("climate/a/value"), (0..60).collect::<Vec<_>>());
    assert_eq!((rig.metrics.spool_readings.get(), rig.metrics.spool_bytes.get()), (0, 0));
    assert_eq!((rig.metrics.stored.get(), rig.metrics.trouble()), (60, None));
    // And directly again.
    rig.send_all(60..70);
    rig.wait(1).await;
    assert_eq!(store.times("climate/a/value").len(), 70);
    assert_eq!(rig.metrics.spool_readings.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_does_not_hold_up_acknowledgements() {
    let dir = TempDir::new().unwrap();
    let store = Fake::new(Mood::Slow(Duration::from_secs(5)));
    let mut rig = rig(store.clone(), spool(&dir, 1 << 20));
    rig.send_all(0..10);
    rig.wait(2).await;
    assert_eq!(rig.all_acked(), (0..10).collect::<Vec<_>>());
    assert_eq!((rig.metrics.trouble(), rig.metrics.store_up.get()), (Some(Trouble::Slow), 0));
    for n in 1..20 {
        rig.send_all(n * 10..n * 10 + 10);
        rig.wait(1).await;
        assert_eq!(rig.all_acked().len(), 10);
    }
    assert_eq!((rig.metrics.trouble(), rig.metrics.store_up.get()), (Some(Trouble::Slow), 1));
    rig.wait(20).await;
    assert_eq!(store.times("climate/a/value"), (0..200).collect::<Vec<_>>());
    assert_eq!((rig.metrics.stored.get(), rig.rejected(0, Rejection::Duplicate)), (200, 0));
}

#[tokio::test(start_paused = true)]
async fn when_the_spool_is_full_acknowledgements_stop_and_nothing_is_lost() {
    let dir = TempDir::new().unwrap();
    let store = Fake::new(Mood::Up);
    let mut rig = rig(store.clone(), spool(&dir, 10_000));
    rig.send_all(0..1);
    rig.wait(1).await;
    store.set(Mood::Away);
    for time in 1..2000 {
        rig.send_all(time..time + 1);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let acked = rig.all_acked().len();
    assert!((50..1000).contains(&acked), "{acked}");
    assert_eq!(rig.metrics.spool_writable.get(), 0);
    assert!(rig.metrics.spool_bytes.get() <= 10_000);
    assert_eq!(rig.metrics.store_queue.get(), 2000 - i64::try_from(acked).unwrap());
    store.set(Mood::Up);
    rig.wait(20).await;
    assert_eq!(acked + rig.all_acked().len(), 2000);
    assert_eq!(store.times("climate/a/value"), (0..2000).collect::<Vec<_>>());
    assert_eq!((rig.metrics.spool_writable.get(), rig.metrics.store_queue.get()), (1, 0));
    assert!(rig.backlog.has_room());
}

/// The next process, which knows nothing of the handles of the one before.
async fn next_process(dir: &TempDir, store: &Fake) {
    let metrics = Metrics::new(["climate"]).unwrap();
    drain(store, &mut spool(dir, 1 << 20).unwrap(), &metrics).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_spooled_at_the_end_is_stored_at_the_next_start() {
    let dir = TempDir::new().unwrap();
    let (store, mut rig) = away(&dir).await;
    rig.send_all(10..20);
    rig.wait(1).await;
    // A series that is new while the store is away, and has readings in two frames.
    let mut batch = readings(&[(1, T0)]);
    batch.new_series = vec![series(1, "climate/b/value")];
    rig.send(batch, 20);
    rig.wait(1).await;
    rig.send(readings(&[(1, T0 + 1), (0, T0 + 20)]), 21);
    assert_eq!(store.times("climate/b/value"), [0; 0]);
    drop(std::mem::replace(&mut rig.records, mpsc::unbounded_channel().0));
    let begun = Instant::now();
    (&mut rig.task).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "waited for a store that is away");
    assert_eq!(rig.all_acked(), (0..22).collect::<Vec<_>>());
    store.set(Mood::Up);
    next_process(&dir, &store).await;
    assert_eq!(store.times("climate/a/value"), (0..21).collect::<Vec<_>>());
    assert_eq!(store.times("climate/b/value"), [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_is_killed_has_stored_or_spooled_what_it_acknowledged() {
    for after in 0..40 {
        let dir = TempDir::new().unwrap();
        let store = Fake::new(Mood::Up);
        let mut rig = rig(store.clone(), spool(&dir, 1 << 20));
        for time in 0..40 {
            store.set(if (10..30).contains(&time) { Mood::Away } else { Mood::Up });
            rig.send_all(time..time + 1);
            tokio::time::sleep(Duration::from_millis(100)).await;
            if time == after {
                rig.task.abort();
                assert!((&mut rig.task).await.is_err());
                break;
            }
        }
        let acked = rig.all_acked();
        drop(rig);
        store.set(Mood::Up);
        next_process(&dir, &store).await;
        let stored = store.times("climate/a/value");
        assert!(acked.iter().all(|&id| stored.contains(&id.into())), "{acked:?} but {stored:?}");
        assert!(acked.len() as u64 >= u64::from(after), "{after}: {acked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_spool_the_end_waits_a_little_and_acknowledges_nothing() {
    let store = Fake::new(Mood::Away);
    let mut rig = rig(store.clone(), None);
    rig.send_all(0..10);
    rig.wait(1).await;
    drop(std::mem::replace(&mut rig.records, mpsc::unbounded_channel().0));
    let begun = Instant::now();
    (&mut rig.task).await.unwrap();
    assert!((LAST_TRIES..LAST_TRIES * 2).contains(&begun.elapsed()));
    assert_eq!(rig.all_acked(), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_store_is_told_when_all_before_is_there() {
    let dir = TempDir::new().unwrap();
    let store = Fake::new(Mood::Away);
    let mut rig = rig(store.clone(), spool(&dir, 1 << 20));
    rig.send_all(0..10);
    rig.wait(1).await;
    let (committed, mut told) = oneshot::channel();
    let states = vec![StateRow { series: 0, time: T0 + 9, model: None, state: vec![0; 100] }];
    let batch = WriteBatch { states, ..WriteBatch::default() };
    rig.backlog.add(&batch);
    rig.records.send(Record { batch, committed: vec![committed], ..Record::default() }).unwrap();
    rig.send_all(10..20);
    rig.wait(3).await;
    assert_eq!(rig.all_acked().len(), 20);
    assert!(told.try_recv().is_err(), "told before the store had it");
    store.set(Mood::Up);
    rig.wait(6).await;
    told.try_recv().unwrap();
    assert_eq!(store.with(|made| made.states.values().copied().collect::<Vec<_>>()), [T0 + 9]);
    assert_eq!(store.times("climate/a/value").len(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_answer_was_lost_is_no_duplicate() {
    for spooled in [false, true] {
        let dir = TempDir::new().unwrap();
        let store = Fake::new(Mood::Mute);
        let rig = rig(store.clone(), spooled.then(|| spool(&dir, 1 << 20).unwrap()));
        rig.send_all(0..10);
        rig.wait(1).await;
        assert_eq!((store.times("climate/a/value").len(), rig.metrics.stored.get()), (10, 0));
        store.set(Mood::Up);
        rig.wait(6).await;
        assert_eq!((rig.metrics.stored.get(), rig.rejected(0, Rejection::Duplicate)), (10, 0));
    }
}

/// For want of locks a large write never succeeds; of a single row no less can be asked.
#[tokio::test(start_paused = true)]
async fn what_the_store_cannot_take_at_once_it_is_given_in_parts() {
    let store = Fake::new(Mood::Narrow(3));
    let mut rig = rig(store.clone(), None);
    rig.send_all(0..10);
    rig.wait(1).await;
    assert_eq!(store.times("climate/a/value"), (0..10).collect::<Vec<_>>());
    assert_eq!((rig.all_acked().len(), rig.metrics.stored.get(), rig.metrics.store_up.get()), (10, 10, 1));
    store.set(Mood::Narrow(0));
    rig.send_all(10..20);
    rig.wait(1).await;
    assert_eq!((rig.all_acked().len(), rig.metrics.store_up.get()), (0, 0));
    store.set(Mood::Up);
    rig.wait(6).await;
    assert_eq!(store.times("climate/a/value"), (0..20).collect::<Vec<_>>());
    assert_eq!((rig.all_acked().len(), rig.rejected(0, Rejection::StoreRefused)), (10, 0));
}

/// What comes while a write is under way must not reach the spool before what is being written: it would be
/// let go with it.
#[tokio::test(start_paused = true)]
async fn a_disk_that_recovers_while_a_write_hangs_loses_nothing() {
    let dir = TempDir::new().unwrap();
    let (path, aside) = (dir.path().join("spool"), dir.path().join("aside"));
    let store = Fake::new(Mood::Slow(Duration::from_secs(10)));
    let mut rig = rig(store.clone(), Some(Spool::open(&path, 1 << 20).unwrap()));
    std::fs::rename(&path, &aside).unwrap();
    rig.send_all(0..10);
    rig.wait(2).await;
    assert_eq!((rig.all_acked(), rig.metrics.spool_writable.get()), (vec![], 0));
    std::fs::rename(&aside, &path).unwrap();
    rig.wait(1).await;
    rig.send_all(10..20);
    rig.wait(1).await;
    assert_eq!(rig.all_acked(), (0..20).collect::<Vec<_>>());
    store.set(Mood::Mute);
    rig.wait(20).await;
    store.set(Mood::Up);
    rig.wait(10).await;
    assert_eq!(store.times("climate/a/value"), (0..20).collect::<Vec<_>>());
    assert_eq!((rig.metrics.stored.get(), rig.metrics.spool_writable.get()), (20, 1));
}
