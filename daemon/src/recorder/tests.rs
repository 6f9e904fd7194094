#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed unwrap is a failed test")]

mod outages;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::metrics::Rejection;
use crate::record::{Cause, FeedbackRow, ModelChange, NewSeries, Promotion, ReadingColumns, SeriesHandle};
use crate::store::Store;
use crate::store::testing::{Cluster, postgres, sqlite, timescaledb};

const T0: i64 = 1_795_428_000_000_000;

struct Rig {
    metrics: Arc<Metrics>,
    backlog: Arc<Backlog>,
    records: mpsc::UnboundedSender<Record>,
    acks: mpsc::UnboundedReceiver<AckToken>,
    task: JoinHandle<()>,
}

fn rig<R: Rows>(store: R, spool: Option<Spool>) -> Rig {
    let metrics = Metrics::new(["climate", "power"]).unwrap();
    let backlog = Backlog::new(10 << 20, metrics.store_queue.clone());
    let writer = Writer::new(store, metrics.clone(), SeriesIds::default(), Some(Vec::new()));
    let recorder = Recorder::new(writer, spool, backlog.clone(), metrics.clone());
    let (records, inbox) = mpsc::unbounded_channel();
    let (outbox, acks) = mpsc::unbounded_channel();
    let task = tokio::spawn(recorder.run(inbox, outbox));
    Rig { metrics, backlog, records, acks, task }
}

impl Rig {
    fn send(&self, batch: WriteBatch, packet_id: u16) {
        self.backlog.add(&batch);
        let acks = vec![AckToken { generation: 1, packet_id }];
        self.records.send(Record { batch, acks, ..Record::default() }).unwrap();
    }

    async fn acked(&mut self) -> u16 {
        tokio::time::timeout(Duration::from_secs(60), self.acks.recv()).await.unwrap().unwrap().packet_id
    }

    /// Polls, for what no channel tells.
    async fn until(&self, what: impl Fn(&Rig) -> bool) {
        for _ in 0..6000 {
            if what(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        unreachable!("nothing happened within a minute");
    }

    fn rejected(&self, stream: usize, reason: Rejection) -> u64 {
        self.metrics.stream(stream).rejected(reason).get()
    }
}

fn series(handle: SeriesHandle, key: &str) -> NewSeries {
    NewSeries {
        handle,
        key: key.into(),
        stream: key.split('/').next().unwrap().into(),
        labels: [].into(),
        field: "value".into(),
    }
}

fn readings(rows: &[(SeriesHandle, i64)]) -> WriteBatch {
    WriteBatch {
        readings: ReadingColumns {
            series: rows.iter().map(|r| r.0).collect(),
            time: rows.iter().map(|r| r.1).collect(),
            value: vec![1.0; rows.len()],
            late: vec![false; rows.len()],
        },
        ..WriteBatch::default()
    }
}

async fn stored(store: &Store, stream: &str) -> u64 {
    store.reading_count(stream, i64::MIN).await.unwrap()
}

#[tokio::test]
async fn an_ack_means_that_the_readings_are_in_the_store() {
    let t = sqlite().await;
    let mut rig = rig(t.store.clone(), None);
    let mut first = readings(&[(0, T0)]);
    first.new_series = vec![series(0, "climate/a/value")];
    rig.send(first, 1);
    for n in 2..=50 {
        rig.send(readings(&[(0, T0 + i64::from(n))]), n);
        if n % 10 == 0 {
            while rig.acked().await != n {}
            assert_eq!(stored(&t.store, "climate").await, u64::from(n));
        }
    }
    let (committed, answer) = oneshot::channel();
    rig.records.send(Record { committed: vec![committed], ..Record::default() }).unwrap();
    answer.await.unwrap();
    assert_eq!((rig.metrics.stored.get(), rig.metrics.store_up.get()), (50, 1));
    assert_eq!(rig.metrics.store_queue.get(), 0);
}

#[tokio::test]
async fn duplicates_are_counted_by_stream_and_acknowledged() {
    let t = postgres().await;
    let mut rig = rig(t.store.clone(), None);
    let mut first = readings(&[(0, T0), (1, T0)]);
    first.new_series = vec![series(0, "climate/a/value"), series(1, "power/a/value")];
    rig.send(first, 1);
    assert_eq!(rig.acked().await, 1);
    rig.send(readings(&[(1, T0), (1, T0), (0, T0 + 1)]), 2);
    assert_eq!(rig.acked().await, 2);
    assert_eq!((rig.rejected(0, Rejection::Duplicate), rig.rejected(1, Rejection::Duplicate)), (0, 2));
    assert_eq!(rig.metrics.stored.get(), 3);
}

#[tokio::test]
async fn everything_sent_before_the_channel_closes_is_written() {
    let t = sqlite().await;
    let mut rig = rig(t.store.clone(), None);
    let rows: Vec<_> = (0..3000).map(|n| (0, T0 + n)).collect();
    for (n, part) in rows.chunks(7).enumerate() {
        let mut batch = readings(part);
        if n == 0 {
            batch.new_series = vec![series(0, "climate/a/value")];
        }
        rig.send(batch, 1);
    }
    drop(rig.records);
    rig.task.await.unwrap();
    assert_eq!(stored(&t.store, "climate").await, 3000);
    let mut acks = 0;
    while rig.acks.recv().await.is_some() {
        acks += 1;
    }
    assert_eq!(acks, rows.chunks(7).len());
    assert!(rig.backlog.has_room());
}

#[tokio::test]
async fn a_row_that_the_store_refuses_does_not_stop_the_others() {
    let t = postgres().await;
    let mut rig = rig(t.store.clone(), None);
    // Beyond what Postgres holds, and a model that is not there.
    let mut rows: Vec<_> = (0..99).map(|n| (0, T0 + n)).collect();
    rows.insert(60, (0, i64::MAX));
    let mut batch = readings(&rows);
    batch.new_series = vec![series(0, "climate/a/value")];
    let promotion = Promotion { model: 77, expected: None, cause: Cause::Training, at: T0, probation: false };
    batch.models = vec![ModelChange::Promote(promotion)];
    rig.send(batch, 1);
    rig.send(readings(&[(0, T0 + 1000)]), 2);
    assert_eq!((rig.acked().await, rig.acked().await), (1, 2));
    assert_eq!(stored(&t.store, "climate").await, 100);
    assert_eq!(rig.metrics.stored.get(), 100);
    assert_eq!(rig.rejected(0, Rejection::StoreRefused), 1);
    assert_eq!(rig.metrics.store_up.get(), 1);
}

#[tokio::test]
async fn a_series_that_the_store_refuses_loses_its_rows_only() {
    let t = postgres().await;
    let mut rig = rig(t.store.clone(), None);
    // Too long for the unique index on keys, however well it compresses.
    let mut key = String::from("climate/");
    for n in 0..4000_u32 {
        key.push_str(&n.wrapping_mul(2_654_435_761).to_string());
    }
    let mut batch = readings(&[(0, T0), (1, T0), (0, T0 + 1)]);
    batch.new_series = vec![series(0, &key), series(1, "climate/a/value")];
    rig.send(batch, 1);
    assert_eq!(rig.acked().await, 1);
    rig.send(readings(&[(0, T0 + 2), (1, T0 + 2)]), 2);
    assert_eq!(rig.acked().await, 2);
    assert_eq!(stored(&t.store, "climate").await, 2);
    assert_eq!((rig.metrics.stored.get(), rig.rejected(0, Rejection::StoreRefused)), (2, 3));
    // Feedback on it is not confirmed, neither what is new nor what was said before.
    let feedback = |series| {
        let given_at = T0 + i64::from(series);
        vec![FeedbackRow { series, given_at, time: T0, newest: T0, anomaly: true, evidence: 1.0 }]
    };
    for (handle, rows, confirmed) in
        [(0, feedback(0), false), (0, vec![], false), (1, feedback(1), true), (1, vec![], true)]
    {
        let (tell, told) = oneshot::channel();
        let batch = WriteBatch { feedback: rows, ..WriteBatch::default() };
        rig.records.send(Record { batch, taught: vec![(handle, tell)], ..Record::default() }).unwrap();
        assert_eq!(told.await.is_ok(), confirmed, "{handle}");
    }
}

/// Hypertables take locks for each of their chunks, and a server has so many at once.
#[tokio::test]
async fn what_is_too_much_for_one_commit_is_written_in_parts() {
    let Some(t) = timescaledb().await else { return };
    let mut rig = rig(t.store.clone(), None);
    let weeks = 3000;
    let rows: Vec<_> = (0..weeks).rev().map(|n| (0, T0 - n * 8 * 86_400_000_000)).collect();
    let mut batch = readings(&rows);
    batch.new_series = vec![series(0, "climate/a/value")];
    rig.send(batch, 1);
    rig.until(|rig| rig.metrics.stored.get() == weeks as u64).await;
    assert_eq!(rig.acked().await, 1);
    assert_eq!(rig.metrics.store_queue.get(), 0);
    // And dropped in parts.
    t.store.prune(T0).await.unwrap();
    let left = t.store.reading_count("climate", i64::MIN).await.unwrap();
    assert!((1..=2).contains(&left), "{left}");
}

#[tokio::test]
async fn nothing_is_lost_or_acknowledged_while_postgres_is_away() {
    let cluster = Cluster::start();
    let store = Store::open(&cluster.database()).await.unwrap();
    store.migrate().await.unwrap();
    let mut rig = rig(store.clone(), None);
    let mut first = readings(&[(0, T0)]);
    first.new_series = vec![series(0, "climate/a/value")];
    rig.send(first, 1);
    assert_eq!(rig.acked().await, 1);
    for round in 1..=2_u16 {
        cluster.stop();
        for n in 0..100 {
            // With series that are new during the outage.
            let handle = u32::from(round);
            let mut batch = readings(&[(0, T0 + i64::from(round) * 1000 + n), (handle, T0 + n)]);
            if n == 0 {
                batch.new_series = vec![series(handle, &format!("climate/{round}/value"))];
            }
            rig.send(batch, round * 1000 + u16::try_from(n).unwrap());
        }
        rig.until(|rig| rig.metrics.store_up.get() == 0).await;
        assert!(rig.acks.try_recv().is_err(), "acknowledged while the store is away");
        assert_eq!(rig.metrics.store_queue.get(), 200);
        cluster.resume();
        while rig.acked().await != round * 1000 + 99 {}
        assert_eq!(stored(&store, "climate").await, 1 + 200 * u64::from(round));
    }
    assert_eq!((rig.metrics.stored.get(), rig.metrics.store_up.get()), (401, 1));
    assert_eq!(rig.rejected(0, Rejection::Duplicate), 0);
}
