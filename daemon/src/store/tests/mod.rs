//! The behaviour that both databases share, each test run on both.
#![allow(clippy::unwrap_used, clippy::float_cmp, clippy::indexing_slicing, reason = "tests")]

use serde_json::json;

use super::testing::{Scratch, postgres, sqlite};
use super::*;
use crate::record::{AnomalyChange, Broken, NewSeries, ReadingColumns, SeriesHandle, StateRow};

mod queries;

use queries::*;

const MINUTE: i64 = 60_000_000;
/// 2026-11-23T10:00:00Z.
const T0: i64 = 1_795_428_000_000_000;

macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(super::postgres().await).await; })+
        }
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(super::sqlite().await).await; })+
        }
    };
}

on_both!(
    migrating_twice_is_harmless,
    a_batch_is_stored_and_read_back_exactly,
    writing_again_changes_nothing,
    duplicates_are_named,
    a_refused_batch_leaves_nothing_and_can_be_repaired,
    two_writers_agree_on_series,
    late_readings_are_kept_but_not_replayed,
    states_are_replaced,
    replay_starts_after_the_checkpoint_in_order,
    readings_of_any_time_are_welcome,
    pruning_keeps_what_is_newer,
    one_champion_a_stream,
    training_runs_are_noted,
    a_page_shows_the_newest_readings,
    forecasts_are_joined_with_what_came,
    hostile_labels_do_not_fail_a_batch,
    history_and_counts_of_a_stream,
    concurrent_writers_create_the_same_partitions_and_series,
);

pub(crate) fn series(handle: SeriesHandle, key: &str) -> NewSeries {
    NewSeries {
        handle,
        key: key.into(),
        stream: key.split('/').next().unwrap_or_default().into(),
        labels: [("site".to_owned(), "berlin".to_owned())].into(),
        field: "value".into(),
    }
}

pub(crate) fn readings(rows: &[(SeriesHandle, i64, f64)]) -> ReadingColumns {
    ReadingColumns {
        series: rows.iter().map(|r| r.0).collect(),
        time: rows.iter().map(|r| r.1).collect(),
        value: rows.iter().map(|r| r.2).collect(),
        late: vec![false; rows.len()],
    }
}

pub(crate) fn forecast(batch: &mut WriteBatch, series: SeriesHandle, origin: i64, step: i16, mean: f64) {
    let f = &mut batch.forecasts;
    f.series.push(series);
    f.time.push(origin + i64::from(step) * MINUTE);
    f.step.push(step);
    f.origin.push(origin);
    f.mean.push(mean);
    for (n, column) in f.quantiles.iter_mut().enumerate() {
        column.push(mean + (n as f64 - 3.0) / 10.0);
    }
    f.model.push(None);
}

/// A store with series `climate/a/value` (0) and `climate/b/value` (1).
async fn two_series(store: &Store) -> SeriesIds {
    let mut ids = SeriesIds::default();
    let batch = WriteBatch {
        new_series: vec![series(0, "climate/a/value"), series(1, "climate/b/value")],
        ..WriteBatch::default()
    };
    store.write(&batch, &mut ids).await.unwrap();
    ids
}

async fn history(store: &Store, stream: &str, since: i64) -> Vec<(i64, i64, f64)> {
    let mut rows = Vec::new();
    store.history(stream, since, |r| rows.push((r.series_id, r.time, r.value))).await.unwrap();
    rows
}

async fn after_states(store: &Store) -> Vec<(i64, i64)> {
    let mut rows = Vec::new();
    store.readings_after_states("climate", |r| rows.push((r.series_id, r.time))).await.unwrap();
    rows
}

async fn count(store: &Store, sql: &'static str) -> i64 {
    reading!(store, pool => sqlx::query_scalar(sql).fetch_one(pool).await.unwrap())
}

async fn migrating_twice_is_harmless(t: Scratch) {
    t.store.migrate().await.unwrap();
    t.store.ping().await.unwrap();
    Store::open(&t.config).await.unwrap().migrate().await.unwrap();
}

async fn a_batch_is_stored_and_read_back_exactly(t: Scratch) {
    let mut ids = SeriesIds::default();
    // Not -0.0, which SQLite keeps as 0.
    let awkward = [0.1 + 0.2, -1.0 / 3.0, 5e-324, f64::MAX, f64::MIN_POSITIVE, -1e23, 1e23];
    let rows: Vec<_> = (0..7).map(|n| (0, T0 + n * MINUTE + 1, awkward[n as usize])).collect();
    let batch = WriteBatch {
        new_series: vec![series(0, "climate/a/value")],
        readings: readings(&rows),
        ..WriteBatch::default()
    };
    let written = t.store.write(&batch, &mut ids).await.unwrap();
    assert_eq!(written, Written { stored: 7, duplicates: vec![] });
    let id = ids.get(0).unwrap();
    let back = history(&t.store, "climate", i64::MIN).await;
    assert_eq!(back.len(), 7);
    for ((series, time, value), row) in back.iter().zip(&rows) {
        assert_eq!((*series, *time, value.to_bits()), (id, row.1, row.2.to_bits()));
    }
    let stored = t.store.series().await.unwrap();
    assert_eq!(stored.len(), 1);
    assert_eq!((stored[0].id, stored[0].key.as_str()), (id, "climate/a/value"));
    assert_eq!((stored[0].stream.as_str(), stored[0].field.as_str()), ("climate", "value"));
    assert_eq!(stored[0].labels["site"], "berlin");
}

async fn writing_again_changes_nothing(t: Scratch) {
    let mut ids = SeriesIds::default();
    let mut batch = WriteBatch {
        new_series: vec![series(0, "climate/a/value")],
        readings: readings(&[(0, T0, 1.0), (0, T0 + MINUTE, 2.0)]),
        states: vec![StateRow { series: 0, time: T0, model: None, state: vec![1] }],
        anomalies: vec![
            AnomalyChange::Began {
                series: 0,
                time: T0,
                kind: "value",
                value: 1.0,
                broken: Some(Broken { score: 1.0, q05: 0.0, q95: 0.5 }),
            },
            AnomalyChange::Ended { series: 0, time: T0, kind: "value", ended_at: T0 + MINUTE },
        ],
        ..WriteBatch::default()
    };
    forecast(&mut batch, 0, T0, 1, 1.5);
    t.store.write(&batch, &mut ids).await.unwrap();
    let first = ids.get(0);
    // As after a commit whose answer was lost.
    batch.readings.value = vec![7.0, 8.0];
    let again = t.store.write(&batch, &mut SeriesIds::default()).await.unwrap();
    assert_eq!(again, Written { stored: 0, duplicates: vec![0, 1] });
    let mut same_ids = SeriesIds::default();
    t.store.write(&batch, &mut same_ids).await.unwrap();
    assert_eq!(same_ids.get(0), first);
    let values: Vec<f64> = history(&t.store, "climate", 0).await.iter().map(|r| r.2).collect();
    assert_eq!(values, [1.0, 2.0], "the first wins");
    assert_eq!(count(&t.store, "select count(*) from forecasts").await, 1);
    assert_eq!(count(&t.store, "select count(*) from anomalies where ended_at is not null").await, 1);
    assert_eq!(count(&t.store, "select count(*) from series").await, 1);
}

async fn duplicates_are_named(t: Scratch) {
    let mut ids = two_series(&t.store).await;
    let first = WriteBatch {
        readings: readings(&[(0, T0, 1.0), (1, T0, 2.0), (0, T0, 3.0)]),
        ..WriteBatch::default()
    };
    let written = t.store.write(&first, &mut ids).await.unwrap();
    assert_eq!(written, Written { stored: 2, duplicates: vec![2] }, "twice in one batch");
    // Large enough for several statements.
    let mut rows: Vec<_> = (1..1000).map(|n| (0, T0 + n * MINUTE, n as f64)).collect();
    rows.insert(500, (1, T0, 9.0));
    rows.push((0, T0 + 7 * MINUTE, 9.0));
    let second = WriteBatch { readings: readings(&rows), ..WriteBatch::default() };
    let written = t.store.write(&second, &mut ids).await.unwrap();
    assert_eq!(written, Written { stored: 999, duplicates: vec![500, 1000] });
    let third = WriteBatch { readings: readings(&[(1, T0 + MINUTE, 2.0)]), ..WriteBatch::default() };
    let written = t.store.write(&third, &mut ids).await.unwrap();
    assert_eq!(written, Written { stored: 1, duplicates: vec![] });
    let all = history(&t.store, "climate", 0).await;
    assert_eq!(all.len(), 1002);
    assert_eq!(all[0].2, 1.0, "the first of two in a batch wins");
    assert_eq!(all[7].2, 7.0);
}

async fn a_refused_batch_leaves_nothing_and_can_be_repaired(t: Scratch) {
    let mut ids = SeriesIds::default();
    let mut batch = WriteBatch {
        new_series: vec![series(0, "climate/a/value")],
        readings: readings(&[(0, T0, 1.0)]),
        promote: vec![12345],
        ..WriteBatch::default()
    };
    let error = t.store.write(&batch, &mut ids).await.unwrap_err();
    assert!(error.is_refused(), "{error}");
    assert_eq!(ids.get(0), None, "an id is not kept unless its row is");
    assert_eq!(count(&t.store, "select count(*) from series").await, 0);
    assert_eq!(count(&t.store, "select count(*) from readings").await, 0);
    batch.promote.clear();
    assert_eq!(t.store.write(&batch, &mut ids).await.unwrap().stored, 1);
    let unknown = WriteBatch { readings: readings(&[(99, T0, 1.0)]), ..WriteBatch::default() };
    assert!(t.store.write(&unknown, &mut ids).await.unwrap_err().is_refused());
}

async fn two_writers_agree_on_series(t: Scratch) {
    let other = Store::open(&t.config).await.unwrap();
    let mut mine = two_series(&t.store).await;
    let mut theirs = SeriesIds::default();
    let batch = WriteBatch {
        // Other handles, one series of their own.
        new_series: vec![series(0, "climate/c/value"), series(1, "climate/a/value")],
        readings: readings(&[(0, T0, 1.0), (1, T0, 2.0)]),
        ..WriteBatch::default()
    };
    assert_eq!(other.write(&batch, &mut theirs).await.unwrap().stored, 2);
    assert_eq!(theirs.get(1), mine.get(0));
    assert_ne!(theirs.get(0), mine.get(1));
    let same = WriteBatch { readings: readings(&[(0, T0, 5.0)]), ..WriteBatch::default() };
    assert_eq!(t.store.write(&same, &mut mine).await.unwrap().duplicates, [0]);
}

async fn late_readings_are_kept_but_not_replayed(t: Scratch) {
    let mut ids = two_series(&t.store).await;
    let mut batch =
        WriteBatch { readings: readings(&[(0, T0, 1.0), (0, T0 - 5, 2.0)]), ..WriteBatch::default() };
    batch.readings.late[1] = true;
    assert_eq!(t.store.write(&batch, &mut ids).await.unwrap().stored, 2);
    let id = ids.get(0).unwrap();
    assert_eq!(after_states(&t.store).await, [(id, T0)]);
    assert_eq!(history(&t.store, "climate", 0).await, [(id, T0, 1.0)]);
    let page = t.store.series_page("climate/a/value", 10).await.unwrap().unwrap();
    assert_eq!(page.readings.iter().map(|r| r.late).collect::<Vec<_>>(), [true, false]);
}

async fn states_are_replaced(t: Scratch) {
    let mut ids = two_series(&t.store).await;
    let state = |series, time, model, state: &[u8]| StateRow { series, time, model, state: state.to_vec() };
    let write = |states| WriteBatch { states, ..WriteBatch::default() };
    t.store
        .write(&write(vec![state(0, T0, None, &[0, 1]), state(1, T0, Some(4), &[])]), &mut ids)
        .await
        .unwrap();
    t.store.write(&write(vec![state(0, T0 + 1, Some(5), &[0, 2, 255])]), &mut ids).await.unwrap();
    let (a, b) = (ids.get(0).unwrap(), ids.get(1).unwrap());
    assert_eq!(
        t.store.states("climate").await.unwrap(),
        [
            StoredState { series_id: a, time: T0 + 1, model: Some(5), state: vec![0, 2, 255] },
            StoredState { series_id: b, time: T0, model: Some(4), state: vec![] },
        ]
    );
    assert_eq!(t.store.states("other").await.unwrap(), []);
}

async fn replay_starts_after_the_checkpoint_in_order(t: Scratch) {
    let mut ids = two_series(&t.store).await;
    let month = 31 * 24 * 60 * MINUTE;
    let mut batch = WriteBatch {
        new_series: vec![series(2, "other/a/value")],
        // Interleaved, out of order, over partitions.
        readings: readings(&[
            (1, T0 + month, 1.0),
            (0, T0 + 2, 1.0),
            (1, T0, 1.0),
            (0, T0, 1.0),
            (0, T0 + month, 1.0),
            (0, T0 + 1, 1.0),
            (2, T0, 1.0),
        ]),
        ..WriteBatch::default()
    };
    batch.states = vec![StateRow { series: 0, time: T0 + 1, model: None, state: vec![] }];
    t.store.write(&batch, &mut ids).await.unwrap();
    let (a, b) = (ids.get(0).unwrap(), ids.get(1).unwrap());
    assert_eq!(after_states(&t.store).await, [(a, T0 + 2), (a, T0 + month), (b, T0), (b, T0 + month)]);
}

async fn readings_of_any_time_are_welcome(t: Scratch) {
    let mut ids = two_series(&t.store).await;
    let times = [
        "-004000-01-01T00:00:00Z",
        "1900-05-05T00:00:00Z",
        "1970-01-01T00:00:00Z",
        "1999-12-31T23:59:59.999999Z",
        "2000-01-01T00:00:00Z",
        "2024-02-29T12:00:00Z",
        "2026-11-23T10:00:00Z",
        "2031-01-31T00:00:00Z",
    ]
    .map(|t| t.parse::<jiff::Timestamp>().unwrap().as_microsecond());
    let mut batch = WriteBatch::default();
    for &time in &times {
        batch.append(WriteBatch { readings: readings(&[(0, time, 1.0)]), ..WriteBatch::default() });
        forecast(&mut batch, 0, time, 1, 1.0);
    }
    assert_eq!(t.store.write(&batch, &mut ids).await.unwrap().stored, 8);
    let back: Vec<i64> = history(&t.store, "climate", times[0]).await.iter().map(|r| r.1).collect();
    assert_eq!(back, times);
    assert_eq!(t.store.newest("climate").await.unwrap(), times.last().copied());
    assert_eq!(t.store.newest("nothing").await.unwrap(), None);
    let page = t.store.series_page("climate/a/value", 100).await.unwrap().unwrap();
    let shown: Vec<&str> = page.readings.iter().map(|r| r.time.as_str()).collect();
    assert_eq!(shown[3..5], ["1999-12-31T23:59:59.999999Z", "2000-01-01T00:00:00Z"]);
    assert_eq!(page.forecasts.len(), 8);
}

async fn hostile_labels_do_not_fail_a_batch(t: Scratch) {
    let mut hostile = series(0, "climate/a/value");
    hostile.labels = [("si\0te".to_owned(), "\0'; drop table series; --\"\\u0000\u{202e}".to_owned())].into();
    hostile.field = "f\0".into();
    let mut ids = SeriesIds::default();
    let batch = WriteBatch {
        new_series: vec![hostile],
        readings: readings(&[(0, T0, 1.0)]),
        ..WriteBatch::default()
    };
    assert_eq!(t.store.write(&batch, &mut ids).await.unwrap().stored, 1);
    let stored = t.store.series().await.unwrap();
    assert_eq!(stored[0].labels["si\u{fffd}te"], "\u{fffd}'; drop table series; --\"\\u0000\u{202e}");
    assert_eq!(stored[0].field, "f\u{fffd}");
}

async fn concurrent_writers_create_the_same_partitions_and_series(t: Scratch) {
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..4_i64 {
        let store = Store::open(&t.config).await.unwrap();
        tasks.spawn(async move {
            let mut ids = SeriesIds::default();
            let new_series = (0..20).map(|n| series(n, &format!("climate/{n}/value"))).collect();
            let month = 31 * 24 * 60 * MINUTE;
            let rows: Vec<_> =
                (0..20).flat_map(|s| (0..6).map(move |m| (s, T0 - m * month + writer, 1.0))).collect();
            let batch = WriteBatch { new_series, readings: readings(&rows), ..WriteBatch::default() };
            store.write(&batch, &mut ids).await.unwrap().stored
        });
    }
    let stored: u64 = tasks.join_all().await.into_iter().sum();
    assert_eq!(stored, 4 * 120);
    assert_eq!(t.store.series().await.unwrap().len(), 20);
}

#[tokio::test]
async fn what_cannot_be_opened_says_why_without_the_password() {
    let open = |url: &str| config::Store { url: url.into(), ..config::Store::default() };
    let error = Store::open(&open("mysql://u:secret@h/db")).await.unwrap_err().to_string();
    assert!(error.contains("\"mysql\"") && !error.contains("secret"), "{error}");
    let error = Store::open(&open("postgres://u:secret@h:notaport/db")).await.unwrap_err().to_string();
    assert!(!error.contains("secret"), "{error}");
    assert!(Store::open(&open("sqlite::memory:")).await.is_err());
    assert!(Store::open(&open("sqlite:///nonexistent/folder/x.db")).await.is_err());
    let gone = Store::open(&open("postgres://u:secret@127.0.0.1:1/db")).await.unwrap();
    let error = gone.ping().await.unwrap_err();
    assert!(!error.is_refused() && !error.to_string().contains("secret"), "{error}");
    let file = config::Store { password_file: Some("/nonexistent".into()), ..config::Store::default() };
    assert!(Store::open(&file).await.unwrap_err().to_string().contains("/nonexistent"));
}
