//! Killed at any step of a training run, a swap or a rollback, a daemon starts again with the last good
//! model, and nothing is lost or doubled.

use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use vidente_tests::{
    Daemon, Database, Feed, Promoted, Reading, Registry, Rig, Settings, Store, WAIT, distorted, wait_until,
};

const SERIES: usize = 4;
/// Readings of a series before the daemon that is killed starts.
const PAST: usize = 300;
/// Readings of a series that come while it runs, and as many after it has started again.
const MORE: usize = 40;

fn settings() -> Settings {
    Settings::learning("[training]\nevery = \"off\"\n[models]\nprobation = \"1h\"\n")
}

fn jagged(reading: Reading) -> String {
    reading.payload_of(reading.jagged())
}

fn publish(rig: &Rig, positions: std::ops::Range<usize>) -> Result<()> {
    let mut feed = Feed::new(&rig.broker, SERIES, 1)?;
    feed.publish_with(positions, jagged)?;
    feed.finish()
}

/// A store with readings and two models: climate-1 is good, climate-2 is not.
fn prepare(rig: &Rig) -> Result<()> {
    let mut daemon = rig.daemon(&settings())?;
    publish(rig, 0..PAST)?;
    daemon.wait_stored(PAST * SERIES)?;
    daemon.stop()?;
    rig.train(&settings())?;
    let database = rig.database(&settings())?;
    let registry = Registry(&database);
    ensure!(registry.champion()?.as_deref() == Some("climate-1"), "the first model did not win");
    rig.import(&settings(), &distorted(&registry.weights("climate-1")?, -4.0)?)?;
    rig.command(&settings(), &["models", "promote", "climate-2"])?;
    Ok(())
}

/// Takes the poor model for one that has proved itself.
fn confirm(database: &Database) -> Result<()> {
    database.execute("update promotions set status = 'confirmed' where status = 'probation'")
}

/// A rig with the same store, prepared once.
fn rig() -> Result<Rig> {
    static PREPARED: OnceLock<Result<Vec<u8>, String>> = OnceLock::new();
    let prepared = PREPARED.get_or_init(|| {
        let make = || {
            let rig = Rig::new(Store::Sqlite)?;
            prepare(&rig)?;
            let file = rig.dir().join("prepared.db");
            rig.database(&settings())?.execute(&format!("vacuum into '{}'", file.display()))?;
            Ok(std::fs::read(file)?)
        };
        make().map_err(|e: anyhow::Error| format!("{e:#}"))
    });
    let rig = Rig::new(Store::Sqlite)?;
    std::fs::write(rig.dir().join("vidente.db"), prepared.as_ref().map_err(|e| anyhow::anyhow!("{e}"))?)?;
    Ok(rig)
}

/// Runs a daemon, with readings coming, until it trains and comes to a step, and kills it there.
fn kill_at(rig: &Rig, from: usize, step: &str) -> Result<()> {
    let mut daemon = rig.stepped(&settings())?;
    daemon.run_until(&["ready"])?;
    publish(rig, from..from + MORE)?;
    daemon.ask_to_train()?;
    daemon.run_until(&[step])?;
    daemon.kill()
}

/// Starts the daemon again; what must hold then in any case.
fn go_on(rig: &Rig, from: usize, champion: Option<&str>) -> Result<Daemon> {
    let mut daemon = rig.daemon(&settings())?;
    let database = rig.database(&settings())?;
    let registry = Registry(&database);
    publish(rig, from..from + MORE)?;
    let count = "select count(*) from readings where not late";
    let expected = ((from + MORE) * SERIES) as i64;
    daemon.wait_metrics("all readings", |_| database.int(count).is_ok_and(|n| n >= expected))?;
    wait_until("no run to be under way", WAIT, || {
        Ok(registry.runs()?.iter().all(|r| r.status != "running"))
    })?;
    assert_eq!(registry.champion()?.as_deref(), champion);
    assert_complete(&database, from + MORE)?;
    let newest: Vec<(String,)> = database.rows(
        "select coalesce(m.name, 'naive') from forecasts f left join models m on m.id = f.model_id \
         where f.step = 1 and f.origin = (select max(origin) from forecasts)",
    )?;
    assert_eq!(newest, vec![(champion.unwrap_or("naive").to_owned(),); SERIES]);
    Ok(daemon)
}

/// Every reading once, and one forecast from each but the first of a series.
fn assert_complete(database: &Database, length: usize) -> Result<()> {
    let per_series: Vec<(i64, i64)> = database.rows(
        "select (select count(*) from readings r where r.series_id = s.id), \
                (select count(*) from forecasts f where f.series_id = s.id) from series s",
    )?;
    assert_eq!(per_series, vec![(length as i64, length as i64 - 1); SERIES]);
    Ok(())
}

/// A run that is asked for comes to its end.
fn train_again(daemon: &Daemon, database: &Database) -> Result<()> {
    let registry = Registry(database);
    let before = registry.runs()?.len();
    daemon.ask_to_train()?;
    let runs = registry.wait_ended(before + 1)?;
    let last = runs.last().context("no run")?;
    ensure!(["succeeded", "rejected"].contains(&last.status.as_str()), "{last:?}");
    Ok(())
}

/// Kills a daemon at a step of a run whose model beats the champion, and starts it again: who is champion
/// then, and how the run may have ended; `none` if it has no row.
fn killed(rig: &Rig, from: usize, step: &str, champion: Option<&str>, ends: &[&str]) -> Result<Daemon> {
    let database = rig.database(&settings())?;
    let before = Registry(&database).runs()?.len();
    kill_at(rig, from, step)?;
    let daemon = go_on(rig, from + MORE, champion)?;
    let runs = Registry(&database).runs()?;
    let end = runs.get(before).map_or("none", |r| r.status.as_str());
    ensure!(ends.contains(&end), "{step}: {runs:#?}");
    Ok(daemon)
}

/// A rig whose champion is poor and has nothing more to prove.
fn poor_champion() -> Result<(Rig, Database)> {
    let rig = rig()?;
    let database = rig.database(&settings())?;
    confirm(&database)?;
    Ok((rig, database))
}

/// A model that is as a killed run leaves it: no champion, with a reason.
fn assert_left_behind(database: &Database, name: &str) -> Result<()> {
    let left: Vec<(String, String)> =
        database.rows(&format!("select status, reason from models where name = '{name}'"))?;
    let (status, reason) = left.first().context("no such model")?;
    ensure!(status == "candidate" && reason.contains("it has not taken over"), "{left:?}");
    Ok(())
}

#[test]
fn a_run_that_is_killed_leaves_the_champion_in_its_place() -> Result<()> {
    for step in ["training begins", "update=60 ", "trained, the trial begins", "judged, the model is saved"] {
        let (rig, database) = poor_champion()?;
        // The row of a run is made just after it is said that it begins.
        let ends = if step == "training begins" { &["none", "interrupted"][..] } else { &["interrupted"] };
        let mut daemon = killed(&rig, PAST, step, Some("climate-2"), ends).context(step)?;
        train_again(&daemon, &database)?;
        daemon.stop()?;
    }
    Ok(())
}

#[test]
fn a_swap_that_is_killed_leaves_the_champion_in_its_place() -> Result<()> {
    for step in ["training done, a new champion", "states are rebuilt", "states are rebuilt and caught up"] {
        let (rig, database) = poor_champion()?;
        let mut daemon = killed(&rig, PAST, step, Some("climate-2"), &["succeeded"]).context(step)?;
        assert_left_behind(&database, "climate-3")?;
        train_again(&daemon, &database)?;
        daemon.stop()?;
    }
    Ok(())
}

#[test]
fn a_swap_that_is_killed_as_it_commits_is_whole_or_has_not_been() -> Result<()> {
    let (rig, database) = poor_champion()?;
    kill_at(&rig, PAST, "model installed")?;
    let registry = Registry(&database);
    let champion = registry.champion()?.context("no champion")?;
    let whole = Promoted::new("climate-3", Some("climate-2"), "training", "probation");
    let not_been = Promoted::new("climate-2", Some("climate-1"), "command", "confirmed");
    let expected = if champion == "climate-3" { whole } else { not_been };
    assert_eq!((registry.promotions()?.last(), &champion), (Some(&expected), &expected.model));
    let mut daemon = go_on(&rig, PAST + MORE, Some(&champion))?;
    train_again(&daemon, &database)?;
    daemon.stop()
}

#[test]
fn a_new_champion_whose_daemon_is_killed_goes_on_and_proves_itself() -> Result<()> {
    let (rig, database) = poor_champion()?;
    let mut daemon = killed(&rig, PAST, "the swap is committed", Some("climate-3"), &["succeeded"])?;
    // More than an hour of readings in all.
    publish(&rig, PAST + 2 * MORE..PAST + 3 * MORE)?;
    let last = Registry(&database).wait_promotion("confirmed")?.pop().context("no promotion")?;
    assert_eq!(last, Promoted::new("climate-3", Some("climate-2"), "training", "confirmed"));
    train_again(&daemon, &database)?;
    daemon.stop()
}

#[test]
fn a_stream_whose_first_run_is_killed_has_no_model_and_gets_one_later() -> Result<()> {
    let rig = rig()?;
    let database = rig.database(&settings())?;
    database.execute("delete from promotions; delete from training_runs; delete from models")?;
    let mut daemon = killed(&rig, PAST, "states are rebuilt", None, &["succeeded"])?;
    assert_left_behind(&database, "climate-1")?;
    train_again(&daemon, &database)?;
    // It takes over after its run has ended.
    Registry(&database).wait_promotion("probation")?;
    // With the experts alone before it, it proves itself across a kill as any other.
    daemon.kill()?;
    let mut daemon = go_on(&rig, PAST + 2 * MORE, Some("climate-2"))?;
    publish(&rig, PAST + 3 * MORE..PAST + 5 * MORE)?;
    let confirmed = Registry(&database).wait_promotion("confirmed")?;
    assert_eq!(confirmed, [Promoted::new("climate-2", None, "training", "confirmed")]);
    daemon.stop()
}

#[test]
fn a_poor_first_champion_whose_daemon_is_killed_gives_way_to_the_experts() -> Result<()> {
    let rig = rig()?;
    let database = rig.database(&settings())?;
    database.execute("update models set status = 'retired'; delete from promotions")?;
    rig.command(&settings(), &["models", "promote", "climate-2"])?;
    // The experts shield so much of a poor model that they alone are hardly better: a note says that they were.
    database.execute(
        "update promotions set metrics = json_object('readings', 500, 'from', 0, 'until', 3600000000, \
         'loss', 110.0, 'loss_before', 100.0, 'error', 1.0, 'error_before', 1.0, 'naive_error', 1.0, \
         'blocks', 0, 'mean', 0.0, 'squares', 0.0, 'in_block', 0, 'more', 0.0)",
    )?;
    let mut daemon = rig.stepped(&settings())?;
    daemon.run_until(&["the probation goes on", "rolling back"])?;
    daemon.kill()?;
    let mut daemon = rig.daemon(&settings())?;
    Registry(&database).wait_promotion("rolled_back")?;
    daemon.wait_metrics("no model", |m| m.sum("vidente_model_version", &[]) == 0.0)?;
    daemon.stop()?;
    go_on(&rig, PAST, None)?.stop()?;
    let told = Registry(&database).promotions()?;
    assert_eq!(told, [Promoted::new("climate-2", None, "command", "rolled_back")]);
    Ok(())
}

#[test]
fn runs_and_swaps_that_are_killed_on_postgres() -> Result<()> {
    let rig = Rig::new(Store::Postgres)?;
    prepare(&rig)?;
    let database = rig.database(&settings())?;
    confirm(&database)?;
    let steps = [
        ("judged, the model is saved", "climate-2", "interrupted"),
        ("states are rebuilt and caught up", "climate-2", "succeeded"),
        ("the swap is committed", "climate-4", "succeeded"),
    ];
    for (n, (step, champion, status)) in steps.into_iter().enumerate() {
        let mut daemon = killed(&rig, PAST + 2 * n * MORE, step, Some(champion), &[status]).context(step)?;
        if n == steps.len() - 1 {
            assert_left_behind(&database, "climate-3")?;
            train_again(&daemon, &database)?;
        }
        daemon.stop()?;
    }
    Ok(())
}

#[test]
fn a_rollback_that_is_killed_is_made_up_for() -> Result<()> {
    // Enough for the verdict.
    const ROWS: usize = 70;
    let steps = [
        "rolling back",
        "states are rebuilt",
        "states are rebuilt and caught up",
        "model installed",
        "the swap is committed",
    ];
    for (n, step) in steps.into_iter().enumerate() {
        let rig = rig()?;
        let database = rig.database(&settings())?;
        let registry = Registry(&database);
        let mut daemon = rig.stepped(&settings())?;
        daemon.run_until(&["ready", "the probation goes on"])?;
        publish(&rig, PAST..PAST + ROWS)?;
        daemon.run_until(&["rolling back"])?;
        if n > 0 {
            daemon.run_until(&[step])?;
        }
        daemon.kill()?;
        let champion = registry.champion()?;
        match step {
            "model installed" => {}
            "the swap is committed" => assert_eq!(champion.as_deref(), Some("climate-1")),
            _ => assert_eq!(champion.as_deref(), Some("climate-2"), "{step}"),
        }
        let mut daemon = rig.daemon(&settings())?;
        daemon.wait_metrics("the good model", |m| m.sum("vidente_model_version", &[]) == 1.0)?;
        daemon.stop()?;
        let mut daemon = go_on(&rig, PAST + ROWS, Some("climate-1")).context(step)?;
        daemon.stop()?;
        let expected = [
            Promoted::new("climate-1", None, "training", "superseded"),
            Promoted::new("climate-2", Some("climate-1"), "command", "rolled_back"),
            Promoted::new("climate-1", None, "rollback", "confirmed"),
        ];
        assert_eq!(registry.promotions()?, expected, "{step}");
    }
    Ok(())
}

#[test]
fn a_probation_goes_on_from_its_last_note_after_a_kill() -> Result<()> {
    let rig = rig()?;
    rig.command(&settings(), &["models", "promote", "climate-1"])?;
    let database = rig.database(&settings())?;
    let tally = || -> Result<(i64, i64)> {
        let row: Vec<(i64, i64)> = database.rows(
            "select metrics ->> 'readings', metrics ->> 'from' from promotions order by id desc limit 1",
        )?;
        row.first().copied().context("no promotion")
    };
    let start = || -> Result<Daemon> {
        let mut daemon = rig.daemon(&settings())?;
        daemon.wait_metrics("the probation", |m| m.sum("vidente_model_probation", &[]) == 1.0)?;
        Ok(daemon)
    };
    let mut daemon = start()?;
    publish(&rig, PAST..PAST + 30)?;
    daemon.wait_stored(30 * SERIES)?;
    // A clean end notes how it stands.
    daemon.stop()?;
    let noted = tally()?;
    assert_eq!(noted.0, (30 * SERIES) as i64);
    let mut daemon = start()?;
    publish(&rig, PAST + 30..PAST + 40)?;
    daemon.wait_stored(10 * SERIES)?;
    daemon.kill()?;
    let mut daemon = start()?;
    // 29 minutes of readings before, and 31 from the first one on after it.
    publish(&rig, PAST + 40..PAST + 72)?;
    Registry(&database).wait_promotion("confirmed")?;
    // Of the ten rows before the kill, nothing was noted.
    assert_eq!(tally()?, ((62 * SERIES) as i64, noted.1));
    daemon.stop()
}

#[test]
fn a_start_ends_the_runs_of_its_own_and_of_nobody_else() -> Result<()> {
    let rig = rig()?;
    let database = rig.database(&settings())?;
    for owner in ["vidente", "vidente train 1"] {
        database.execute(&format!(
            "insert into training_runs (stream, started_at, updated_at, status, trigger, owner) \
             select 'climate', t, t, 'running', 'command', '{owner}' \
             from (select cast(unixepoch('subsec') * 1000000 as integer) as t)"
        ))?;
    }
    let mut daemon = rig.daemon(&settings())?;
    let status =
        "select owner, status from training_runs where owner like 'vidente%' order by id desc limit 2";
    let status = || database.rows::<(String, String)>(status);
    wait_until("its own to be ended", WAIT, || {
        Ok(status()?.contains(&("vidente".to_owned(), "interrupted".to_owned())))
    })?;
    assert_eq!(status()?[0], ("vidente train 1".to_owned(), "running".to_owned()));
    daemon.stop()
}
