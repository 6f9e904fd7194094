//! Training inside the daemon, while readings flow.

use anyhow::{Context, Result};
use vidente_tests::{Feed, Rig, Settings, Store, Subscriber, WAIT, wait_until};

#[test]
fn the_daemon_trains_itself_while_readings_flow() -> Result<()> {
    const SERIES: usize = 5;
    let rig = Rig::new(Store::Sqlite)?;
    let climate = Settings::climate();
    let rest = climate.rest.replace("every = \"off\"", "every = \"2s\"\nmin_readings = 1000");
    let settings = Settings { rest: format!("{rest}\n[model]\nhidden = 8\n"), ..climate };
    let heard = Subscriber::new(&rig.broker, "vidente/forecast/#")?;
    let mut daemon = rig.daemon(&settings)?;
    let mut feed = Feed::new(&rig.broker, SERIES, 1)?;
    feed.publish(0..250)?;
    let mut published = 250;
    wait_until("a forecast of the trained model", 3 * WAIT, || {
        // The sensors do not wait for the training.
        feed.publish(published..published + 1)?;
        published += 1;
        let last = heard.messages().last().context("nothing heard yet")?.json()?;
        Ok(last["model"] != "naive")
    })?;
    feed.publish(published..published + 50)?;
    published += 50;
    feed.finish()?;
    daemon.wait_stored(published * SERIES)?;
    let heard = heard.wait_for(published * SERIES)?;
    // One forecast a reading, and once the model is in, every series is forecast by a trained one.
    assert_eq!(heard.len(), published * SERIES);
    let models = heard.iter().map(|m| Ok(m.json()?["model"].clone())).collect::<Result<Vec<_>>>()?;
    let first = models.iter().position(|m| *m != "naive").context("never")?;
    assert!(first >= 1_000, "trained before min_readings");
    assert!(models[first..].iter().all(|m| *m != "naive"));
    let metrics =
        daemon.wait_metrics("the run to be counted", |m| m.sum("vidente_training_runs_total", &[]) >= 1.0)?;
    assert!(metrics.sum("vidente_training_duration_seconds_count", &[]) >= 1.0);
    assert!(metrics.sum("vidente_model_version", &[]) >= 1.0);
    assert_eq!((metrics.received(), metrics.rejected(None)), ((published * SERIES) as f64, 0.0));
    daemon.stop()?;
    let database = rig.database(&settings)?;
    assert_eq!(database.int("select count(*) from models where status = 'champion'")?, 1);
    assert!(database.int("select count(*) from training_runs where status = 'succeeded'")? >= 1);
    assert_eq!(database.int("select count(*) from forecasts")?, ((published - 1) * SERIES) as i64);
    Ok(())
}
