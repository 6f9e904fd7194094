//! The main job from end to end: readings in, forecasts out and stored, the model trained, on a real
//! broker and both stores.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;
use vidente_tests::{Database, Feed, Reading, Rig, Settings, Store, Subscriber, promtool};

const SERIES: usize = 20;
const QUANTILES: [&str; 7] = ["q05", "q10", "q25", "q50", "q75", "q90", "q95"];

#[test]
fn readings_are_stored_and_forecast_then_a_trained_model_does_better_on_postgres() -> Result<()> {
    everything(Store::Postgres)
}

#[test]
fn readings_are_stored_and_forecast_then_a_trained_model_does_better_on_sqlite() -> Result<()> {
    everything(Store::Sqlite)
}

fn everything(store: Store) -> Result<()> {
    let rig = Rig::new(store)?;
    let settings = Settings::climate();
    let status = Subscriber::new(&rig.broker, "vidente/status")?;
    let forecasts = Subscriber::new(&rig.broker, "vidente/forecast/#")?;

    // Naive.
    let mut daemon = rig.daemon(&settings)?;
    let database = rig.database(&settings)?;
    Feed::run(&rig.broker, SERIES, 1, 0..200)?;
    let metrics = daemon.wait_stored(4_000)?;
    assert_eq!((metrics.received(), metrics.stored(), metrics.rejected(None)), (4_000.0, 4_000.0, 0.0));
    assert_eq!(metrics.sum("vidente_series", &["stream=\"climate\""]), SERIES as f64);
    assert_eq!(metrics.sum("vidente_model_version", &[]), 0.0);
    assert_eq!(metrics.sum("vidente_mqtt_connected", &[]), 1.0);
    assert_eq!(metrics.sum("vidente_store_up", &[]), 1.0);
    let heard = forecasts.wait_for(4_000)?;
    assert_eq!(heard.len(), 4_000);
    let mut positions: BTreeMap<String, usize> = BTreeMap::new();
    for message in &heard {
        let body = message.json()?;
        let series = text(&body, "series")?;
        assert_eq!(message.topic, format!("vidente/forecast/{series}"));
        let position = positions.entry(series.to_owned()).or_default();
        assert_forecast(&body, *position, "naive")?;
        *position += 1;
    }
    assert_eq!(positions.len(), SERIES);
    assert!(positions.values().all(|&n| n == 200), "{positions:?}");
    assert_eq!(database.int("select count(*) from readings where not late")?, 4_000);
    assert_eq!(database.int("select count(*) from series where stream = 'climate' and field = 'value'")?, 20);
    // The first reading of a series tells no interval yet, so nothing can be forecast from it.
    assert_eq!(database.int("select count(*) from forecasts where step = 1 and model_id is null")?, 3_980);
    assert_eq!(database.int("select count(*) from forecasts")?, 3_980);
    assert_ordered(&database)?;
    assert_eq!(metrics.sum("vidente_forecast_latency_seconds_count", &[]), 4_000.0);
    let (_, page) = daemon.get("/metrics")?;
    promtool(&["check", "metrics"], &page, rig.dir())?;
    daemon.wait_metrics("4000 published forecasts", |m| m.published() >= 4_000.0)?;
    daemon.stop()?;
    let states: Vec<_> = status.wait_for(2)?.into_iter().map(|m| m.payload).collect();
    assert_eq!(states, [b"online".to_vec(), b"offline".to_vec()]);

    // Trained.
    rig.train(&settings)?;
    let champions: Vec<(i64, String, String)> =
        database.rows("select id, name, stream from models where status = 'champion'")?;
    assert_eq!(champions.len(), 1);
    let (model, name, stream) = &champions[0];
    assert_eq!((name.as_str(), stream.as_str()), ("climate-1", "climate"));
    assert_eq!(
        database.int(&format!(
            "select count(*) from training_runs where stream = 'climate' and status = 'succeeded' \
             and error is null and finished_at >= started_at and model_id = {model}"
        ))?,
        1
    );
    let mut daemon = rig.daemon(&settings)?;
    Feed::run(&rig.broker, SERIES, 1, 200..300)?;
    let metrics = daemon.wait_stored(2_000)?;
    assert_eq!((metrics.received(), metrics.rejected(None)), (2_000.0, 0.0));
    assert_eq!(metrics.sum("vidente_model_version", &[]), 1.0);
    let heard = forecasts.wait_for(6_000)?;
    assert_eq!(heard.len(), 6_000);
    let mut positions: BTreeMap<String, usize> = BTreeMap::new();
    for message in &heard[4_000..] {
        let body = message.json()?;
        let position = positions.entry(text(&body, "series")?.to_owned()).or_insert(200);
        assert_forecast(&body, *position, "climate-1")?;
        *position += 1;
    }
    assert_eq!(database.int("select count(*) from readings")?, 6_000);
    assert_eq!(database.int(&format!("select count(*) from forecasts where model_id = {model}"))?, 2_000);
    assert_ordered(&database)?;
    let (trained, naive) = errors(&database)?;
    println!("mean absolute error on new readings: trained {trained:.4}, naive {naive:.4}");
    assert!(trained < naive, "trained {trained}, naive {naive}");
    // Each of the 5,980 forecasts but that of each series' last reading has come true by now.
    assert_eq!(database.int("select count(*) from forecast_errors")?, 5_960);
    daemon.stop()
}

/// A forecast message of the [`Feed`]'s series: consistent, and from the reading at `position`.
fn assert_forecast(body: &Value, position: usize, model: &str) -> Result<()> {
    let key = text(body, "series")?;
    let series = key.strip_prefix("climate/hall/dev").and_then(|k| k.strip_suffix("/value"));
    let series: usize = series.with_context(|| key.to_owned())?.parse()?;
    let reading = Reading { series, position };
    assert_eq!(text(body, "model")?, model);
    assert_eq!(text(body, "origin")?, rfc3339(reading.time()));
    let value = body["reading"]["value"].as_f64().context("reading.value")?;
    assert!((value - reading.value()).abs() < 1e-3, "{key} at {position}: {value}");
    let score = body["reading"]["score"].as_f64().context("reading.score")?;
    assert!((0.0..=1.0).contains(&score));
    assert!(body["reading"]["anomaly"].is_boolean());
    let steps = body["steps"].as_array().context("steps")?;
    assert_eq!(steps.len(), usize::from(position > 0), "{key} at {position}");
    for step in steps {
        assert_eq!(text(step, "time")?, rfc3339(reading.time() + Reading::INTERVAL));
        assert!(step["mean"].is_f64());
        let quantiles: Vec<f64> = QUANTILES.iter().filter_map(|q| step[q].as_f64()).collect();
        assert_eq!(quantiles.len(), 7);
        assert!(quantiles.is_sorted(), "{key} at {position}: {quantiles:?}");
    }
    Ok(())
}

fn text<'a>(body: &'a Value, key: &str) -> Result<&'a str> {
    body[key].as_str().with_context(|| format!("no {key} in {body}"))
}

/// Times of the feed lie in January 2026.
fn rfc3339(time: u64) -> String {
    let s = time - Reading::BEGIN;
    format!("2026-01-{:02}T{:02}:{:02}:{:02}Z", 1 + s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60)
}

fn assert_ordered(database: &Database) -> Result<()> {
    let disordered = "select count(*) from forecasts where not \
                      (q05 <= q10 and q10 <= q25 and q25 <= q50 and q50 <= q75 and q75 <= q90 and q90 <= q95)";
    assert_eq!(database.int(disordered)?, 0);
    Ok(())
}

/// Mean absolute error one step ahead of the trained model's median, and of the last value.
fn errors(database: &Database) -> Result<(f64, f64)> {
    let rows: Vec<(f64, f64)> = database.rows(
        "select avg(abs(r.value - f.q50)), avg(abs(r.value - o.value)) from forecasts f \
         join readings r on r.series_id = f.series_id and r.time = f.time \
         join readings o on o.series_id = f.series_id and o.time = f.origin where f.model_id is not null",
    )?;
    rows.into_iter().next().context("no forecast has its reading")
}
