//! What a changing or faulty world does to models: drift begins a run, and faults dethrone nobody.

use anyhow::{Context, Result, ensure};
use vidente_tests::{Daemon, Database, Feed, Reading, Registry, Rig, Run, Settings, Store, WAIT, wait_until};

fn jagged(reading: Reading) -> String {
    reading.payload_of(reading.jagged())
}

fn publish(
    rig: &Rig,
    series: usize,
    positions: std::ops::Range<usize>,
    payload: impl Fn(Reading) -> String,
) -> Result<()> {
    let mut feed = Feed::new(&rig.broker, series, 1)?;
    feed.publish_with(positions, payload)?;
    feed.finish()
}

/// The value of a series that wanders, so that nothing beats the last value.
fn wandering(reading: Reading) -> String {
    let steps = (0..=reading.position).map(|position| Reading { position, ..reading }.noise());
    reading.payload_of(25.0 + 4.0 * steps.sum::<f64>())
}

#[test]
fn drift_begins_a_run_and_no_second_one_before_it_has_cooled_down() -> Result<()> {
    const SERIES: usize = 5;
    let rig = Rig::new(Store::Sqlite)?;
    let settings = |name: &str, cooldown: &str| {
        let learning = Settings::learning(&format!(
            "[training]\nevery = \"1h\"\nwindow = \"6h\"\ndrift_cooldown = \"{cooldown}\"\n\
             [models]\nprobation = \"off\"\n[forecast]\ntopic = \"vidente/{name}/{{series}}\"\n"
        ));
        Settings { name: name.to_owned(), ..learning }
    };
    // Two that hear the same and differ in patience alone.
    let both = [settings("patient", "1h"), settings("hasty", "1ms")];
    let start = || both.iter().map(|s| rig.daemon(s)).collect::<Result<Vec<Daemon>>>();
    let databases = |daemons: &mut Vec<Daemon>, readings: usize| -> Result<Vec<Database>> {
        daemons.iter_mut().try_for_each(|d| d.wait_stored(readings * SERIES).map(drop))?;
        both.iter().map(|s| rig.database(s)).collect()
    };
    let mut daemons = start()?;
    publish(&rig, SERIES, 0..240, jagged)?;
    let stores = databases(&mut daemons, 240)?;
    for store in &stores {
        let runs = Registry(store).wait_ended(1)?;
        ensure!(runs[0].status == "succeeded" && runs[0].trigger == "schedule", "{runs:#?}");
    }
    // From a start on, no run has yet to cool down.
    daemons.iter_mut().try_for_each(Daemon::stop)?;
    let mut daemons = start()?;
    let drifts = |store: &Database| -> Result<usize> {
        Ok(Registry(store).runs()?.iter().filter(|r| r.trigger == "drift" && r.finished.is_some()).count())
    };
    for (n, begin) in [240, 1000].into_iter().enumerate() {
        publish(&rig, SERIES, begin..begin + 460, jagged)?;
        publish(&rig, SERIES, begin + 460..begin + 760, wandering)?;
        databases(&mut daemons, (n + 1) * 760)?;
        for (store, expected) in stores.iter().zip([1, n + 1]) {
            wait_until("a run because of drift", 3 * WAIT, || Ok(drifts(store)? >= expected))
                .with_context(|| format!("{:#?}", Registry(store).runs()))?;
        }
        // In the store a run ends before its model is in, from which on what is usual is learnt anew.
        for (daemon, drifts) in daemons.iter_mut().zip([1, n + 1]) {
            let runs = |m: &vidente_tests::Metrics| m.sum("vidente_training_runs_total", &[]);
            daemon.wait_metrics("the new model to be in", |m| runs(m) >= drifts as f64)?;
        }
    }
    for (daemon, store) in daemons.iter_mut().zip(&stores) {
        // It has looked again since the second drift.
        daemon.ask_to_train()?;
        wait_until("the run asked for", 3 * WAIT, || {
            Ok(Registry(store).runs()?.iter().any(|r| r.trigger == "demand" && r.finished.is_some()))
        })?;
    }
    let patient = Registry(&stores[0]).runs()?;
    assert_eq!(drifts(&stores[0])?, 1, "{patient:#?}");
    assert_eq!(daemons[0].metrics()?.sum("vidente_drifts_total", &[]), 1.0);
    daemons.iter_mut().try_for_each(Daemon::stop)
}

const SERIES: usize = 6;

/// What a faulty sensor says: one in five readings is right.
fn storm(reading: Reading) -> String {
    let value = ["NaN", "null", "\"n/a\"", "-9999"].get(reading.position % 5);
    value.map_or_else(|| jagged(reading), |value| format!("{{\"value\":{value},\"ts\":{}}}", reading.time()))
}

/// Half the series are faulty in a way, the others go on.
fn half(faulty: impl Fn(Reading) -> String) -> impl Fn(Reading) -> String {
    move |reading| if reading.series < SERIES / 2 { faulty(reading) } else { jagged(reading) }
}

#[test]
fn a_poisoned_history_does_not_dethrone_a_good_champion() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let settings = Settings::learning("[training]\nevery = \"off\"\n[models]\nprobation = \"30m\"\n");
    let mut daemon = rig.daemon(&settings)?;
    publish(&rig, SERIES, 0..300, jagged)?;
    daemon.wait_stored(300 * SERIES)?;
    let database = rig.database(&settings)?;
    let registry = Registry(&database);
    daemon.ask_to_train()?;
    registry.wait_promotion("probation")?;
    publish(&rig, SERIES, 300..340, jagged)?;
    registry.wait_promotion("confirmed")?;

    let stuck = |reading: Reading| reading.payload_of(7.0);
    let other_unit = |reading: Reading| reading.payload_of(32.0 + 1.8 * reading.jagged());
    let mut length = 340;
    let mut poison = |what: &str, payload: &dyn Fn(Reading) -> String| -> Result<Run> {
        publish(&rig, SERIES, length..length + 100, half(payload))?;
        length += 100;
        daemon.wait_metrics(what, |m| m.stored() + m.rejected(None) >= (length * SERIES) as f64)?;
        let before = registry.runs()?.len();
        daemon.ask_to_train()?;
        registry.wait_ended(before + 1)?.pop().context("no run")
    };
    for run in [poison("stuck", &stuck)?, poison("unit", &other_unit)?, poison("storm", &storm)?] {
        assert_eq!(
            (run.status.as_str(), run.judged["decision"]["won"].as_bool()),
            ("rejected", Some(false)),
            "{run:#?}"
        );
        assert_eq!(run.judged["against"], "climate-1");
    }
    assert_eq!(registry.champion()?.as_deref(), Some("climate-1"));
    let metrics = daemon.metrics()?;
    // Of a faulty series, three in five readings are no numbers.
    assert_eq!(metrics.rejected(None), (100 / 5 * 3 * SERIES / 2) as f64);
    assert_eq!(metrics.received(), metrics.stored() + metrics.rejected(None));
    // It goes on to forecast every series.
    publish(&rig, SERIES, length..length + 1, jagged)?;
    wait_until("the last forecasts", WAIT, || {
        let newest = "select count(*) from forecasts f join models m on m.id = f.model_id \
                      where m.name = 'climate-1' and f.origin = (select max(origin) from forecasts)";
        Ok(database.int(newest)? == SERIES as i64)
    })?;
    daemon.stop()
}
