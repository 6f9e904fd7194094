//! A daemon that was stopped or killed goes on exactly as one that was not.

use anyhow::Result;
use vidente_tests::{Feed, Rig, Settings, Store, Subscriber};

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

fn compare(end: End, trained: bool) -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let (steady, ended) = (Settings::named("steady"), Settings::named("ended"));
    let begin = if trained { 200 } else { 0 };
    if trained {
        // Both begin with copies of one store that holds a model.
        rig.trained(&steady, SERIES, begin, &[&rig.store_url("ended")])?;
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
    let [a, b] = [&steady, &ended].map(|of| rig.database(of)?.forecasts(begin..begin + 120));
    let (a, b) = (a?, b?);
    assert_eq!(a.len(), if trained { 120 } else { 119 } * SERIES);
    assert_eq!(a, b);
    Ok(())
}
