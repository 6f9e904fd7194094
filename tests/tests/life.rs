//! The life of a model: trained, judged, on probation, confirmed or rolled back.

use anyhow::{Context, Result};
use vidente_tests::{
    Daemon, Feed, Promoted, Reading, Registry, Rig, Settings, Store, Subscriber, WAIT, distorted, wait_until,
};

const SERIES: usize = 5;
/// Readings of a series that are trained on.
const PAST: usize = 240;

fn jagged(reading: Reading) -> String {
    reading.payload_of(reading.jagged())
}

/// Trains when asked only, and a new champion has three hours of readings to prove itself.
fn on_demand(more: &str) -> Settings {
    Settings::learning(&format!("[training]\nevery = \"off\"\n[models]\nprobation = \"3h\"\n{more}"))
}

fn publish(rig: &Rig, positions: std::ops::Range<usize>) -> Result<()> {
    let mut feed = Feed::new(&rig.broker, SERIES, 1)?;
    feed.publish_with(positions, jagged)?;
    feed.finish()
}

#[test]
fn a_first_model_is_judged_put_on_probation_and_confirmed_on_postgres() -> Result<()> {
    first_model(Store::Postgres)
}

#[test]
fn a_first_model_is_judged_put_on_probation_and_confirmed_on_sqlite() -> Result<()> {
    first_model(Store::Sqlite)
}

fn first_model(store: Store) -> Result<()> {
    let rig = Rig::new(store)?;
    let settings = Settings::learning("[training]\nmin_readings = 1200\n[models]\nprobation = \"30m\"\n");
    let mut daemon = rig.daemon(&settings)?;
    publish(&rig, 0..PAST)?;
    let database = rig.database(&settings)?;
    let registry = Registry(&database);
    let runs = registry.wait_ended(1)?;
    let [run] = &runs[..] else { anyhow::bail!("{runs:#?}") };
    assert_eq!((run.status.as_str(), run.trigger.as_str()), ("succeeded", "schedule"));
    // Against the online experts alone, on the 15 % that it did not learn from.
    let judged = &run.judged;
    assert!(judged["against"].is_null() && judged["decision"]["won"] == true, "{judged}");
    assert_eq!(judged["readings"], 180);
    let loss = |of: &serde_json::Value| of["loss"].as_f64().context("loss");
    assert!(loss(judged)? < loss(&judged["opponent"])?, "{judged}");
    let metrics: Vec<(String,)> = database.rows("select cast(metrics as text) from models")?;
    let metrics: serde_json::Value = serde_json::from_str(&metrics.first().context("no model")?.0)?;
    assert_eq!(metrics["judged"], *judged);

    let on_probation = registry.wait_promotion("probation")?;
    assert_eq!(on_probation, [Promoted::new("climate-1", None, "training", "probation")]);
    let gauge = |daemon: &mut Daemon, value: f64| {
        daemon.wait_metrics("the probation to be shown", |m| m.sum("vidente_model_probation", &[]) == value)
    };
    gauge(&mut daemon, 1.0)?;
    // Up to the last minute it is not confirmed: that is asked of a run, which looks after it.
    publish(&rig, PAST..PAST + 30)?;
    daemon.wait_stored((PAST + 30) * SERIES)?;
    let (status, body) = daemon.post("/api/v1/train", None)?;
    assert_eq!(status, 403, "{body}");
    daemon.ask_to_train()?;
    registry.wait_ended(2)?;
    assert_eq!(registry.promotions()?, on_probation);
    publish(&rig, PAST + 30..PAST + 32)?;
    assert_eq!(
        registry.wait_promotion("confirmed")?,
        [Promoted::new("climate-1", None, "training", "confirmed")]
    );
    gauge(&mut daemon, 0.0)?;
    let tally: Vec<(String,)> = database.rows("select cast(metrics as text) from promotions")?;
    let tally: serde_json::Value = serde_json::from_str(&tally.first().context("no promotion")?.0)?;
    let number = |key: &str| tally[key].as_f64().with_context(|| format!("{key} of {tally}"));
    assert!(number("loss")? <= number("loss_before")?, "{tally}");
    assert!(number("until")? - number("from")? >= 30.0 * 60e6, "{tally}");
    assert_eq!(registry.champion()?.as_deref(), Some("climate-1"));
    daemon.stop()
}

#[test]
fn runs_that_are_asked_for_follow_one_another() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let token = rig.dir().join("token");
    std::fs::write(&token, "secret\n")?;
    let settings = on_demand("keep = 1\n");
    // What stands first belongs to [http].
    let settings =
        Settings { rest: format!("token_file = \"{}\"\n{}", token.display(), settings.rest), ..settings };
    let mut daemon = rig.daemon(&settings)?;
    let database = rig.database(&settings)?;
    let registry = Registry(&database);
    for wrong in [None, Some("guess")] {
        assert_eq!(daemon.post("/api/v1/train", wrong)?.0, 401);
    }
    assert_eq!(daemon.post("/api/v1/train", Some("secret"))?.0, 202);
    let skipped = registry.wait_ended(1)?;
    let reason = "0 readings in the window, min_readings is 1000";
    assert_eq!((skipped[0].status.as_str(), skipped[0].error.as_str()), ("skipped", reason));

    publish(&rig, 0..PAST)?;
    let stored = "select count(*) from readings";
    wait_until("all readings", WAIT, || Ok(database.int(stored)? == (PAST * SERIES) as i64))?;
    daemon.ask_to_train()?;
    wait_until("a run to be under way", WAIT, || Ok(registry.runs()?.iter().any(|r| r.status == "running")))?;
    daemon.ask_to_train()?;
    assert_eq!(daemon.post("/api/v1/train?stream=climate", Some("secret"))?.0, 202);
    let runs = registry.wait_ended(3)?;
    assert_eq!((runs[1].status.as_str(), runs[2].status.as_str()), ("succeeded", "rejected"), "{runs:#?}");
    assert_eq!(runs[2].judged["against"], "climate-1");

    // A poor champion that is on probation still is not challenged by a better one.
    rig.import(&settings, &distorted(&registry.weights("climate-1")?, -4.0)?)?;
    rig.command(&settings, &["models", "promote", "climate-3"])?;
    daemon.ask_to_train()?;
    let runs = registry.wait_ended(4)?;
    daemon.stop()?;
    // Had one been asked for too often, it would have begun by now.
    assert_eq!(registry.runs()?.len(), 4, "{runs:#?}");
    let last = runs.last().context("no run")?;
    let reason = "better than climate-3, which is still on probation";
    assert_eq!((last.status.as_str(), last.error.as_str()), ("rejected", reason));
    assert_eq!(registry.champion()?.as_deref(), Some("climate-3"));
    assert!(runs.iter().all(|r| r.trigger == "demand"), "{runs:#?}");
    for (one, next) in runs.iter().zip(&runs[1..]) {
        assert!(one.finished.is_some_and(|end| end <= next.started), "{one:?} {next:?}");
    }
    // Kept are the newest, the champion, and the one that a rollback goes back to.
    let kept: Vec<(String, bool)> =
        database.rows("select name, length(weights) > 0 from models order by id")?;
    let expected = [("climate-1", true), ("climate-2", false), ("climate-3", true), ("climate-4", true)];
    assert_eq!(kept, expected.map(|(name, kept)| (name.to_owned(), kept)));
    Ok(())
}

#[test]
fn a_poor_champion_is_rolled_back_on_postgres() -> Result<()> {
    rolled_back(Store::Postgres)
}

#[test]
fn a_poor_champion_is_rolled_back_on_sqlite() -> Result<()> {
    rolled_back(Store::Sqlite)
}

fn rolled_back(store: Store) -> Result<()> {
    const ENOUGH: usize = 150;
    let rig = Rig::new(store)?;
    let settings = on_demand("");
    let heard = Subscriber::new(&rig.broker, "vidente/forecast/#")?;
    let mut daemon = rig.daemon(&settings)?;
    publish(&rig, 0..PAST)?;
    daemon.wait_stored(PAST * SERIES)?;
    rig.train(&settings)?;
    let took_over = |daemon: &mut Daemon, version: f64| {
        daemon.wait_metrics("the takeover", |m| m.sum("vidente_model_version", &[]) == version)
    };
    took_over(&mut daemon, 1.0)?;
    let database = rig.database(&settings)?;
    let registry = Registry(&database);
    rig.import(&settings, &distorted(&registry.weights("climate-1")?, -4.0)?)?;
    rig.command(&settings, &["models", "promote", "climate-2"])?;
    took_over(&mut daemon, 2.0)?;
    // The verdict comes before the probation is over, when enough is said.
    publish(&rig, PAST..PAST + ENOUGH)?;
    took_over(&mut daemon, 1.0)?;
    publish(&rig, PAST + ENOUGH..PAST + ENOUGH + 1)?;
    let heard = heard.wait_for((PAST + ENOUGH + 1) * SERIES)?;
    let models = heard.iter().map(|m| Ok(m.json()?["model"].clone())).collect::<Result<Vec<_>>>()?;
    let of = |range: std::ops::Range<usize>| &models[range.start * SERIES..range.end * SERIES];
    assert!(of(PAST..PAST + 20).iter().all(|m| *m == "climate-2"));
    assert!(of(PAST + ENOUGH..PAST + ENOUGH + 1).iter().all(|m| *m == "climate-1"));

    assert_eq!(
        registry.wait_promotion("confirmed")?,
        [
            Promoted::new("climate-1", None, "training", "superseded"),
            Promoted::new("climate-2", Some("climate-1"), "command", "rolled_back"),
            Promoted::new("climate-1", None, "rollback", "confirmed"),
        ]
    );
    let standing: Vec<(String, String, Option<String>)> =
        database.rows("select name, status, reason from models order by id")?;
    assert_eq!(standing[0], ("climate-1".to_owned(), "champion".to_owned(), None));
    let reason = standing[1].2.as_deref().context("no reason")?;
    assert_eq!(standing[1].1, "retired");
    assert!(
        reason.starts_with("its loss over ") && reason.ends_with(" that of the forecasts before it"),
        "{reason}"
    );
    let metrics = daemon.wait_metrics("the count", |m| m.sum("vidente_model_rollbacks_total", &[]) > 0.0)?;
    assert_eq!(metrics.sum("vidente_model_rollbacks_total", &[]), 1.0);
    assert_eq!(metrics.sum("vidente_model_probation", &[]), 0.0);
    daemon.stop()
}
