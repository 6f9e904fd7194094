//! Tests of what is asked of the store: pages, history, and what retention leaves.

use super::*;

pub(super) async fn pruning_keeps_what_is_newer(t: Scratch) {
    let mut ids = two_series(&t.store).await;
    let day = 24 * 60 * MINUTE;
    let mut batch = WriteBatch::default();
    for n in 0..200 {
        let time = T0 - n * day;
        batch.append(WriteBatch {
            readings: readings(&[(0, time, 1.0), (1, time, 1.0)]),
            ..WriteBatch::default()
        });
        forecast(&mut batch, 0, time, 1, 1.0);
        batch.anomalies.extend([
            AnomalyChange::Began {
                series: 0,
                time,
                kind: AnomalyKind::Value,
                value: 1.0,
                broken: Some(Broken { score: 1.0, q05: 0.0, q95: 0.0 }),
            },
            AnomalyChange::Ended { series: 0, time, kind: AnomalyKind::Value, ended_at: time + 1 },
        ]);
    }
    batch.anomalies.pop();
    t.store.write(&batch, &mut ids).await.unwrap();
    let before = T0 - 100 * day;
    t.store.prune(before).await.unwrap();
    let kept = history(&t.store, "climate", i64::MIN).await;
    let newer = kept.iter().filter(|r| r.1 >= before).count();
    assert_eq!(newer, 202, "nothing newer is lost");
    assert!(kept.iter().all(|r| r.1 >= before - 31 * day), "older goes, in Postgres by the month");
    let forecasts = count(&t.store, "select count(*) from forecasts").await;
    assert!((101..=132).contains(&forecasts), "{forecasts}");
    assert_eq!(
        count(&t.store, "select count(*) from anomalies").await,
        102,
        "100 newer, one at, one lasting"
    );
    // What was pruned may come again, as after a long outage.
    let mut old = WriteBatch { readings: readings(&[(0, T0 - 199 * day, 1.0)]), ..WriteBatch::default() };
    forecast(&mut old, 0, T0 - 199 * day, 1, 1.0);
    assert_eq!(t.store.write(&old, &mut ids).await.unwrap().stored, 1);
    // Pruned by another daemon: this one's knowledge of partitions is out of date.
    Store::open(&t.config).await.unwrap().prune(before).await.unwrap();
    assert_eq!(t.store.write(&old, &mut ids).await.unwrap().stored, 1);
}

pub(super) async fn a_page_shows_the_newest_readings(t: Scratch) {
    let mut ids = two_series(&t.store).await;
    let model = t.store.save_model(&model("climate", 1)).await.unwrap();
    let mut batch = WriteBatch::default();
    for n in 0..10 {
        let time = T0 + n * MINUTE;
        batch.append(WriteBatch { readings: readings(&[(0, time, n as f64)]), ..WriteBatch::default() });
        for step in 1..=3 {
            forecast(&mut batch, 0, time, step, n as f64);
        }
    }
    batch.forecasts.model.iter_mut().skip(15).for_each(|m| *m = Some(model.id));
    let began = |time| AnomalyChange::Began {
        series: 0,
        time,
        kind: AnomalyKind::Value,
        value: 1.0,
        broken: Some(Broken { score: 0.9, q05: 0.0, q95: 0.5 }),
    };
    batch.anomalies = vec![
        began(T0),
        AnomalyChange::Ended { series: 0, time: T0, kind: AnomalyKind::Value, ended_at: T0 + MINUTE },
        began(T0 + 2 * MINUTE),
        AnomalyChange::Ended {
            series: 0,
            time: T0 + 2 * MINUTE,
            kind: AnomalyKind::Value,
            ended_at: T0 + 7 * MINUTE,
        },
        began(T0 + 9 * MINUTE),
    ];
    t.store.write(&batch, &mut ids).await.unwrap();
    let page = t.store.series_page("climate/a/value", 6).await.unwrap().unwrap();
    assert_eq!((page.series.as_str(), page.stream.as_str()), ("climate/a/value", "climate"));
    let values: Vec<f64> = page.readings.iter().map(|r| r.value).collect();
    assert_eq!(values, [4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
    assert_eq!(page.readings[0].time, "2026-11-23T10:04:00Z");
    let shown: Vec<_> = page.forecasts.iter().map(|f| (f.mean, f.step, f.model.as_str())).collect();
    assert_eq!(
        shown,
        [
            (4.0, 1, "naive"),
            (5.0, 1, "climate-1"),
            (6.0, 1, "climate-1"),
            (7.0, 1, "climate-1"),
            (8.0, 1, "climate-1"),
            (9.0, 1, "climate-1"),
            (9.0, 2, "climate-1"),
            (9.0, 3, "climate-1"),
        ]
    );
    let last = page.forecasts.last().unwrap();
    assert_eq!((last.origin.as_str(), last.time.as_str()), ("2026-11-23T10:09:00Z", "2026-11-23T10:12:00Z"));
    assert_eq!((last.q05, last.q50, last.q95), (9.0 - 0.3, 9.0, 9.0 + 0.3));
    let ends: Vec<_> = page.anomalies.iter().map(|a| a.ended_at.as_deref()).collect();
    assert_eq!(ends, [Some("2026-11-23T10:07:00Z"), None]);
    let json = serde_json::to_value(&page).unwrap();
    assert!(["readings", "forecasts", "anomalies"].iter().all(|name| json[name].is_array()));
    let empty = t.store.series_page("climate/b/value", 6).await.unwrap().unwrap();
    assert!(empty.readings.is_empty() && empty.forecasts.is_empty());
    assert!(t.store.series_page("climate/none/value", 6).await.unwrap().is_none());
    assert!(t.store.series_page("climate/\0/value", 6).await.unwrap().is_none());
}

pub(super) async fn forecasts_are_joined_with_what_came(t: Scratch) {
    let mut ids = two_series(&t.store).await;
    // Due at minutes 1 and 2: one comes 29 s late, two within the second window.
    let mut batch = WriteBatch {
        readings: readings(&[
            (0, T0, 1.0),
            (0, T0 + MINUTE + 29_000_000, 2.0),
            (0, T0 + 2 * MINUTE - 10, 9.0),
            (0, T0 + 2 * MINUTE + 10, 30.0),
            (1, T0 + MINUTE, 100.0),
        ]),
        ..WriteBatch::default()
    };
    forecast(&mut batch, 0, T0, 1, 2.25);
    forecast(&mut batch, 0, T0, 2, 3.0);
    forecast(&mut batch, 0, T0, 3, 3.0);
    t.store.write(&batch, &mut ids).await.unwrap();
    let sql =
        "select step, actual, error, inside from forecast_errors where key = 'climate/a/value' order by step";
    let rows: Vec<(i16, f64, f64, bool)> =
        reading!(t.store, pool => sqlx::query_as(sql).fetch_all(pool).await.unwrap());
    assert_eq!(rows, [(1, 2.0, -0.25, true), (2, 9.0, 6.0, false)], "the third has not come");
}

pub(super) async fn history_and_counts_of_a_stream(t: Scratch) {
    let mut ids = two_series(&t.store).await;
    let batch = WriteBatch {
        new_series: vec![series(2, "power/a/value")],
        readings: readings(&[(0, T0, 1.0), (1, T0 + 1, 2.0), (0, T0 + 2, 3.0), (2, T0 + 9, 4.0)]),
        ..WriteBatch::default()
    };
    t.store.write(&batch, &mut ids).await.unwrap();
    let (a, b) = (ids.get(0).unwrap(), ids.get(1).unwrap());
    assert_eq!(history(&t.store, "climate", T0 + 1).await, [(a, T0 + 2, 3.0), (b, T0 + 1, 2.0)]);
    assert_eq!(t.store.reading_count("climate", T0 + 1).await.unwrap(), 2);
    assert_eq!(t.store.reading_count("climate", 0).await.unwrap(), 3);
    assert_eq!(t.store.newest("climate").await.unwrap(), Some(T0 + 2));
}

pub(super) async fn a_page_names_the_champions_of_its_stream(t: Scratch) {
    two_series(&t.store).await;
    let trained =
        NewModel { metrics: json!({"relative_error": 0.9, "coverage": 0.8}), ..model("climate", 1) };
    let judged = json!({"relative_error": 0.5, "judged": {"relative_error": 0.75, "coverage": 0.875}});
    let judged = NewModel { metrics: judged, ..model("climate", 2) };
    let elsewhere = t.store.save_model(&model("power", 1)).await.unwrap();
    assert!(t.store.promote(promotion(elsewhere.id, None)).await.unwrap());
    let first = t.store.save_model(&trained).await.unwrap();
    let second = t.store.save_model(&judged).await.unwrap();
    assert_eq!(t.store.series_page("climate/a/value", 10).await.unwrap().unwrap().models, []);
    for (id, at) in [(first.id, T0), (second.id, T0 + MINUTE)] {
        assert!(t.store.promote(Promotion { at, ..promotion(id, None) }).await.unwrap());
    }
    let models = t.store.series_page("climate/a/value", 10).await.unwrap().unwrap().models;
    let shown = |m: &PageModel| (m.name.clone(), m.previous.clone(), m.relative_error, m.coverage);
    let (one, two) = ("climate-1".to_owned(), "climate-2".to_owned());
    assert_eq!(
        models.iter().map(shown).collect::<Vec<_>>(),
        [(two, Some(one.clone()), Some(0.75), Some(0.875)), (one, None, Some(0.9), Some(0.8))]
    );
    assert_eq!((models[0].status.as_str(), models[0].ended_at.as_ref()), ("probation", None));
    assert_eq!((models[1].cause.as_str(), models[1].status.as_str()), ("training", "superseded"));
    assert_eq!(models[1].promoted_at, "2026-11-23T10:00:00Z");
}

pub(super) async fn hostile_labels_do_not_fail_a_batch(t: Scratch) {
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
