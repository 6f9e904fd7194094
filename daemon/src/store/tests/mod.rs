//! The behaviour that both databases share, each test run on both, and on hypertables where TimescaleDB is installed.
#![allow(clippy::unwrap_used, clippy::float_cmp, clippy::indexing_slicing, reason = "tests")]

use crate::recorder::Rows as _;
use serde_json::json;

use super::testing::{Scratch, empty_postgres, empty_sqlite, postgres, sqlite, timescaledb};
use super::*;
use crate::record::{
    AnomalyChange, AnomalyKind, Broken, Cause, ModelChange, NewSeries, Promotion, ReadingColumns,
    SeriesHandle, StateRow,
};

const MINUTE: i64 = 60_000_000;
/// 2026-11-23T10:00:00Z.
const T0: i64 = 1_795_428_000_000_000;

macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(super::postgres().await).await; })+
        }
        mod on_timescaledb {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(t) = super::timescaledb().await {
                    super::$name(t).await;
                }
            })+
        }
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(super::sqlite().await).await; })+
        }
    };
}

mod queries;
mod registry;
mod repeats;
mod runs;

use queries::*;

on_both!(
    migrating_twice_is_harmless,
    a_batch_is_stored_and_read_back_exactly,
    late_readings_are_kept_but_not_replayed,
    states_are_replaced,
    replay_starts_after_the_checkpoint_in_order,
    readings_of_any_time_are_welcome,
    pruning_keeps_what_is_newer,
    a_page_shows_the_newest_readings,
    a_page_names_the_champions_of_its_stream,
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

/// A promotion at `T0 + model`, which begins a probation.
fn promotion(model: i64, expected: Option<Option<i64>>) -> Promotion {
    Promotion { model, expected, cause: Cause::Training, at: T0 + model, probation: true }
}

fn promote(model: i64, expected: Option<Option<i64>>) -> ModelChange {
    ModelChange::Promote(promotion(model, expected))
}

/// Models of a stream, from version 1.
async fn models(store: &Store, stream: &str, count: u8) -> Vec<i64> {
    let mut ids = Vec::new();
    for n in 1..=count {
        ids.push(store.save_model(&model(stream, n)).await.unwrap().id);
    }
    ids
}

fn model(stream: &str, n: u8) -> NewModel {
    NewModel {
        stream: stream.into(),
        cell: "lstm".into(),
        created_at: T0 + i64::from(n),
        metrics: json!({"mae": 0.5, "n": n}),
        weights: vec![n, 0, 255],
        origin: Origin::Trained,
        reason: None,
        window_start: Some(T0 - MINUTE),
        window_end: None,
    }
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

fn written(stored: u64, duplicates: &[usize]) -> Written {
    Written { stored, duplicates: duplicates.to_vec(), models: vec![] }
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
    let done = t.store.write(&batch, &mut ids).await.unwrap();
    assert_eq!(done, written(7, &[]));
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
    for url in ["postgres://u:secret@127.0.0.1:1/db", "postgres://u@127.0.0.1:1/db?password=secret"] {
        let error = Store::open(&open(url)).await.unwrap_err().to_string();
        assert!(error.contains("password_file") && !error.contains("secret"), "{error}");
    }
    let dir = tempfile::tempdir().unwrap();
    let password = dir.path().join("password");
    std::fs::write(&password, "secret\n").unwrap();
    let gone = config::Store { password_file: Some(password), ..open("postgres://u@127.0.0.1:1/db") };
    let gone = Store::open(&gone).await.unwrap();
    assert!(!format!("{gone:?}").contains("secret"), "{gone:?}");
    let error = gone.ping().await.unwrap_err();
    assert!(!error.is_refused() && !error.to_string().contains("secret"), "{error}");
    let file = config::Store { password_file: Some("/nonexistent".into()), ..config::Store::default() };
    assert!(Store::open(&file).await.unwrap_err().to_string().contains("/nonexistent"));
}
