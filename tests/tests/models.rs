//! The model registry, from the command line.

use std::path::PathBuf;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vidente_tests::{Database, Feed, Rig, Settings, Store, Subscriber, WAIT, vidente, wait_until};

const SERIES: usize = 5;

#[test]
fn models_are_listed_shown_promoted_rolled_back_and_exported_on_postgres() -> Result<()> {
    the_registry(Store::Postgres)
}

#[test]
fn models_are_listed_shown_promoted_rolled_back_and_exported_on_sqlite() -> Result<()> {
    the_registry(Store::Sqlite)
}

/// `vidente models` with one configuration.
struct Models {
    config: PathBuf,
}

impl Models {
    fn run(&self, args: &[&str]) -> Result<Output> {
        let config = self.config.to_str().context("path")?;
        vidente(&[&["models"], args, &["--config", config]].concat())
    }

    /// Standard output of a command that must succeed.
    fn done(&self, args: &[&str]) -> Result<String> {
        let out = self.run(args)?;
        ensure!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        Ok(String::from_utf8(out.stdout)?)
    }

    /// Standard error of a command that must be refused.
    fn refused(&self, args: &[&str]) -> Result<String> {
        let out = self.run(args)?;
        ensure!(out.status.code() == Some(1), "{args:?}: {}", String::from_utf8_lossy(&out.stdout));
        Ok(String::from_utf8(out.stderr)?)
    }

    /// Name, status and probation of each model.
    fn standing(&self) -> Result<Vec<(String, String, bool)>> {
        let list: Value = serde_json::from_str(&self.done(&["list", "--json"])?)?;
        let text = |value: &Value| value.as_str().map(str::to_owned).context("no text");
        let models = list.as_array().context("no array")?.iter();
        models
            .map(|m| {
                Ok((text(&m["name"])?, text(&m["status"])?, m["probation"].as_bool().context("no bool")?))
            })
            .collect()
    }
}

/// A rig with readings enough, and as many models trained on them.
fn trained(store: Store, models: usize) -> Result<(Rig, Settings, Models)> {
    let rig = Rig::new(store)?;
    let climate = Settings::climate();
    let settings = Settings { rest: format!("{}\n[model]\nhidden = 8\n", climate.rest), ..climate };
    let registry = Models { config: rig.configure(&settings)?.0 };
    let empty = registry.done(&["list"])?;
    assert!(empty.contains("no models yet") && empty.contains("vidente train"), "{empty}");
    assert_eq!(registry.standing()?, []);
    let mut daemon = rig.daemon(&settings)?;
    Feed::run(&rig.broker, SERIES, 1, 0..200)?;
    daemon.wait_stored(200 * SERIES)?;
    daemon.stop()?;
    for _ in 0..models {
        rig.train(&settings)?;
    }
    // Trained on the same readings it is no better than the first, so it takes somebody to promote it.
    registry.done(&["promote", &format!("climate-{models}")])?;
    Ok((rig, settings, registry))
}

fn is(name: &str, status: &str, probation: bool) -> (String, String, bool) {
    (name.to_owned(), status.to_owned(), probation)
}

fn the_registry(store: Store) -> Result<()> {
    let (rig, settings, registry) = trained(store, 2)?;
    let database = rig.database(&settings)?;
    listed_and_shown(&registry)?;
    promoted_and_rolled_back(&registry)?;
    exported(&rig, &database, &registry)?;
    unusable(store, &database, &registry)
}

fn listed_and_shown(registry: &Models) -> Result<()> {
    let both = [is("climate-1", "retired", false), is("climate-2", "champion", true)];
    assert_eq!(registry.standing()?, both);
    let table = registry.done(&["list", "--stream", "climate"])?;
    let row = table.lines().find(|l| l.starts_with("climate-1 ")).context("no row")?;
    println!("{table}");
    for part in ["lstm 8", "Z/20", "retired", "trained", "kept", "replaced by climate-2"] {
        assert!(row.contains(part), "no {part} in: {row}");
    }
    let said = registry.refused(&["list", "--stream", "attic"])?;
    assert!(said.contains("\"attic\"") && said.contains("there are: climate"), "{said}");
    let text = registry.done(&["show", "climate-2"])?;
    println!("{text}");
    let parts = [
        "climate-2, champion",
        "by command",
        "seed 1",
        "1000 readings",
        "before it: climate-1",
        "* validation",
    ];
    for part in parts {
        assert!(text.contains(part), "no {part} in:\n{text}");
    }
    let curve = text.lines().skip_while(|l| !l.starts_with("loss:"));
    assert!(
        curve.clone().any(|l| l.contains('*')) && curve.clone().all(|l| l.chars().count() <= 80),
        "{text}"
    );
    let shown: Value = serde_json::from_str(&registry.done(&["show", "climate-2", "--json"])?)?;
    assert_eq!(shown["promotions"][0]["previous"], "climate-1");
    assert_eq!(
        (&shown["training_run"]["trigger"], &shown["training_run"]["seed"]),
        (&"command".into(), &1.into())
    );
    assert_eq!(shown["training_run"]["readings"], 1000);
    assert!(shown["metrics"]["curve"].as_array().is_some_and(|curve| !curve.is_empty()));
    let said = registry.refused(&["show", "climate-9"])?;
    assert!(said.contains("\"climate-9\"") && said.contains("vidente models list"), "{said}");
    Ok(())
}

fn promoted_and_rolled_back(registry: &Models) -> Result<()> {
    let said = registry.refused(&["promote", "climate-2"])?;
    assert!(said.contains("already"), "{said}");
    let said = registry.done(&["promote", "climate-1"])?;
    assert!(said.starts_with("climate-1: champion") && said.contains("before: climate-2"), "{said}");
    assert_eq!(registry.standing()?, [is("climate-1", "champion", true), is("climate-2", "retired", false)]);
    let said = registry.done(&["rollback", "--stream", "climate", "--reason", "worse in the attic"])?;
    assert!(said.starts_with("climate-1: retired") && said.contains("climate-2 is the champion"), "{said}");
    assert_eq!(registry.standing()?, [is("climate-1", "retired", false), is("climate-2", "champion", false)]);
    assert!(registry.done(&["list"])?.contains("worse in the attic"));
    let said = registry.done(&["rollback", "--stream", "climate"])?;
    assert!(said.contains("climate-1 is the champion"), "{said}");
    let said = registry.done(&["rollback", "--stream", "climate"])?;
    assert!(said.contains("no champion") && said.contains("online experts"), "{said}");
    assert_eq!(registry.standing()?, [is("climate-1", "retired", false), is("climate-2", "retired", false)]);
    let said = registry.refused(&["rollback", "--stream", "climate"])?;
    assert!(said.contains("no champion"), "{said}");
    let said = registry.refused(&["rollback", "--stream", "attic"])?;
    assert!(said.contains("there are: climate"), "{said}");
    Ok(())
}

fn exported(rig: &Rig, database: &Database, registry: &Models) -> Result<()> {
    let file = rig.dir().join("out.safetensors");
    let output = file.to_str().context("path")?;
    let stored: Vec<(Vec<u8>,)> = database.rows("select weights from models order by version")?;
    registry.done(&["export", "climate-1", "--output", output])?;
    assert_eq!(std::fs::read(&file)?, stored[0].0);
    let said = registry.refused(&["export", "climate-2", "--output", output])?;
    assert!(said.contains("out.safetensors") && said.contains("--force"), "{said}");
    assert_eq!(std::fs::read(&file)?, stored[0].0, "left as it was");
    registry.done(&["export", "climate-2", "--output", output, "--force"])?;
    assert_eq!(std::fs::read(&file)?, stored[1].0);
    let nowhere = rig.dir().join("nowhere/out.safetensors");
    let said = registry.refused(&["export", "climate-1", "--output", nowhere.to_str().context("path")?])?;
    assert!(said.contains("nowhere"), "{said}");
    Ok(())
}

/// Weights that are gone, or that this version cannot use.
fn unusable(store: Store, database: &Database, registry: &Models) -> Result<()> {
    let (none, other) = match store {
        Store::Postgres => ("''", "'\\x0102'"),
        Store::Sqlite => ("x''", "x'0102'"),
    };
    database.execute(&format!("update models set weights = {none} where name = 'climate-1'"))?;
    database.execute(&format!("update models set weights = {other} where name = 'climate-2'"))?;
    for args in [&["promote", "climate-1"][..], &["export", "climate-1", "--output", "/nonexistent/x"]] {
        let said = registry.refused(args)?;
        assert!(said.contains("weights of climate-1 were dropped"), "{said}");
    }
    let said = registry.refused(&["promote", "climate-2"])?;
    assert!(said.contains("climate-2 cannot forecast: "), "{said}");
    assert_eq!(registry.standing()?, [is("climate-1", "retired", false), is("climate-2", "retired", false)]);
    assert!(registry.done(&["list"])?.contains("dropped"));
    assert!(registry.done(&["show", "climate-1"])?.contains("weights were dropped"));
    assert!(registry.done(&["show", "climate-2"])?.contains("cannot use"));
    Ok(())
}

#[test]
fn a_running_daemon_takes_over_what_is_promoted() -> Result<()> {
    let (rig, settings, registry) = trained(Store::Sqlite, 2)?;
    let heard = Subscriber::new(&rig.broker, "vidente/forecast/#")?;
    let mut daemon = rig.daemon(&settings)?;
    let mut feed = Feed::new(&rig.broker, SERIES, 1)?;
    let mut published = 200;
    let mut wait_for = |model: &str| {
        wait_until(&format!("a forecast of {model}"), WAIT, || {
            feed.publish(published..published + 1)?;
            published += 1;
            std::thread::sleep(std::time::Duration::from_millis(100));
            Ok(heard.messages().last().context("nothing heard yet")?.json()?["model"] == model)
        })
    };
    wait_for("climate-2")?;
    registry.done(&["promote", "climate-1"])?;
    wait_for("climate-1")?;
    registry.done(&["rollback", "--stream", "climate"])?;
    wait_for("climate-2")?;
    feed.finish()?;
    daemon.stop()
}

#[test]
fn a_registry_without_a_configuration_is_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let missing = dir.path().join("missing.toml");
    let out = vidente(&["models", "list", "--config", missing.to_str().context("path")?])?;
    assert_eq!(out.status.code(), Some(78));
    for command in ["list", "show", "promote", "rollback", "export"] {
        let help = String::from_utf8(vidente(&["models", command, "--help"])?.stdout)?;
        assert!(help.contains(&format!("Example: vidente models {command}")), "{help}");
    }
    Ok(())
}
