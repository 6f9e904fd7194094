//! Tests of what is written twice, refused, or written by two.

use super::*;

on_both!(
    writing_again_changes_nothing,
    duplicates_are_named,
    a_refused_batch_leaves_nothing_and_can_be_repaired,
    two_writers_agree_on_series,
);

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
                kind: AnomalyKind::Value,
                value: 1.0,
                broken: Some(Broken { score: 1.0, q05: 0.0, q95: 0.5 }),
            },
            AnomalyChange::Ended { series: 0, time: T0, kind: AnomalyKind::Value, ended_at: T0 + MINUTE },
        ],
        ..WriteBatch::default()
    };
    forecast(&mut batch, 0, T0, 1, 1.5);
    t.store.write(&batch, &mut ids).await.unwrap();
    let first = ids.get(0);
    // As after a commit whose answer was lost.
    batch.readings.value = vec![7.0, 8.0];
    let again = t.store.write(&batch, &mut SeriesIds::default()).await.unwrap();
    assert_eq!(again, written(0, &[0, 1]));
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
    let done = t.store.write(&first, &mut ids).await.unwrap();
    assert_eq!(done, written(2, &[2]), "twice in one batch");
    // Large enough for several statements.
    let mut rows: Vec<_> = (1..1000).map(|n| (0, T0 + n * MINUTE, n as f64)).collect();
    rows.insert(500, (1, T0, 9.0));
    rows.push((0, T0 + 7 * MINUTE, 9.0));
    let second = WriteBatch { readings: readings(&rows), ..WriteBatch::default() };
    let done = t.store.write(&second, &mut ids).await.unwrap();
    assert_eq!(done, written(999, &[500, 1000]));
    let third = WriteBatch { readings: readings(&[(1, T0 + MINUTE, 2.0)]), ..WriteBatch::default() };
    let done = t.store.write(&third, &mut ids).await.unwrap();
    assert_eq!(done, written(1, &[]));
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
        models: vec![promote(12345, None)],
        ..WriteBatch::default()
    };
    let error = t.store.write(&batch, &mut ids).await.unwrap_err();
    assert!(error.is_refused(), "{error}");
    assert_eq!(ids.get(0), None, "an id is not kept unless its row is");
    assert_eq!(count(&t.store, "select count(*) from series").await, 0);
    assert_eq!(count(&t.store, "select count(*) from readings").await, 0);
    batch.models.clear();
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
