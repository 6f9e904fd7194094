//! A daemon that was stopped or killed goes on exactly as one that was not.

use anyhow::Result;
use vidente_tests::{Database, Feed, Rig, Settings, Store, Subscriber};

const SERIES: usize = 5;

/// How the one daemon of a pair ends in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Stop,
    Kill,
}

#[test]
fn the_naive_forecast_continues_after_a_stop() -> Result<()> {
    compare(End::Stop, false)
}

#[test]
fn the_naive_forecast_continues_after_a_kill() -> Result<()> {
    compare(End::Kill, false)
}

#[test]
fn the_trained_model_continues_after_a_stop() -> Result<()> {
    compare(End::Stop, true)
}

#[test]
fn the_trained_model_continues_after_a_kill() -> Result<()> {
    compare(End::Kill, true)
}

/// A daemon of its own name, store and topics.
fn daemon_named(name: &str) -> Settings {
    let climate = Settings::climate();
    let rest = format!("{}\n[forecast]\ntopic = \"vidente/{name}/{{series}}\"\n", climate.rest);
    Settings { name: name.to_owned(), rest, ..climate }
}

fn compare(end: End, trained: bool) -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let (steady, ended) = (daemon_named("steady"), daemon_named("ended"));
    let begin = if trained { 200 } else { 0 };
    if trained {
        // Both begin with copies of one store that holds a model.
        let mut daemon = rig.daemon(&steady)?;
        Feed::run(&rig.broker, SERIES, 1, 0..begin)?;
        daemon.wait_stored(begin * SERIES)?;
        daemon.stop()?;
        rig.train(&steady)?;
        rig.database(&steady)?
            .execute(&format!("vacuum into '{}'", rig.store_url("ended").trim_start_matches("sqlite://")))?;
    }
    let heard = Subscriber::new(&rig.broker, "vidente/ended/#")?;
    let mut undisturbed = rig.daemon(&steady)?;
    let mut daemon = rig.daemon(&ended)?;
    Feed::run(&rig.broker, SERIES, 1, begin..begin + 60)?;
    undisturbed.wait_stored(60 * SERIES)?;
    daemon.wait_stored(60 * SERIES)?;
    heard.wait_for(60 * SERIES)?;
    match end {
        End::Stop => daemon.stop()?,
        End::Kill => daemon.kill()?,
    }
    let mut daemon = rig.daemon(&ended)?;
    Feed::run(&rig.broker, SERIES, 1, begin + 60..begin + 120)?;
    undisturbed.wait_stored(120 * SERIES)?;
    daemon.wait_stored(60 * SERIES)?;
    // At once, without waiting for new data to learn the interval from.
    for message in &heard.wait_for(120 * SERIES)?[60 * SERIES..] {
        let body = message.json()?;
        assert_eq!(body["steps"].as_array().map(Vec::len), Some(1), "{body}");
        assert_eq!(body["model"], if trained { "climate-1" } else { "naive" });
    }
    daemon.stop()?;
    undisturbed.stop()?;
    let (a, b) = (forecasts(&rig.database(&steady)?, begin)?, forecasts(&rig.database(&ended)?, begin)?);
    assert_eq!(a.len(), if trained { 120 } else { 119 } * SERIES);
    assert_eq!(a, b);
    Ok(())
}

type Forecast = (String, i64, f64, f64, f64, f64, f64);

/// Forecasts made from a position on, in order.
fn forecasts(database: &Database, begin: usize) -> Result<Vec<Forecast>> {
    let since = vidente_tests::Reading { series: 0, position: begin }.time() * 1_000_000;
    database.rows(&format!(
        "select s.key, f.origin, f.mean, f.q05, f.q25, f.q50, f.q95 from forecasts f \
         join series s on s.id = f.series_id where f.origin >= {since} order by s.key, f.origin"
    ))
}
