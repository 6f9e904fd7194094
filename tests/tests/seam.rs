//! One model takes over from another while readings flow, and nothing shows a seam.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result};
use serde_json::Value;
use vidente_tests::{
    Collected, Daemon, Feed, Reading, Registry, Rig, Settings, Store, Subscriber, WAIT, distorted, wait_until,
};

const SERIES: usize = 6;
const HORIZON: usize = 3;
/// Rows that are on the way at most.
const AHEAD: usize = 4;

/// Readings that flow on, row after row.
struct Flow<'a> {
    feed: Feed,
    heard: &'a Subscriber,
    rows: usize,
}

impl Flow<'_> {
    /// One row more, once those before are answered but for a few.
    fn on(&mut self) -> Result<()> {
        self.feed.publish_with(self.rows..self.rows + 1, |r| r.payload_of(r.jagged()))?;
        self.rows += 1;
        let answered = self.rows.saturating_sub(AHEAD) * SERIES;
        wait_until("the rows before", WAIT, || Ok(self.heard.count() >= answered))
    }

    /// Goes on until something has happened, and a while longer.
    fn until(&mut self, what: &str, mut happened: impl FnMut() -> Result<bool>) -> Result<()> {
        wait_until(what, 3 * WAIT, || {
            self.on()?;
            happened()
        })?;
        (0..20).try_for_each(|_| self.on())
    }
}

fn version(daemon: &Daemon) -> Result<f64> {
    Ok(daemon.metrics()?.sum("vidente_model_version", &[]))
}

/// Without a probation, so that every model stays until it is replaced.
fn settings() -> Settings {
    let learning = Settings::learning(
        "[training]\nevery = \"off\"\n[models]\nprobation = \"off\"\n[anomaly]\nwarm_up = 50\n",
    );
    let rest = learning.rest.replacen("time = \"ts\"", &format!("time = \"ts\"\nhorizon = {HORIZON}"), 1);
    Settings { rest, ..learning }
}

#[test]
fn swaps_show_no_seam_on_postgres() -> Result<()> {
    swaps(Store::Postgres)
}

#[test]
fn swaps_show_no_seam_on_sqlite() -> Result<()> {
    swaps(Store::Sqlite)
}

fn swaps(store: Store) -> Result<()> {
    let rig = Rig::new(store)?;
    let heard = Subscriber::new(&rig.broker, "vidente/forecast/#")?;
    let mut daemon = rig.daemon(&settings())?;
    let mut flow = Flow { feed: Feed::new(&rig.broker, SERIES, 1)?, heard: &heard, rows: 0 };
    for _ in 0..220 {
        flow.on()?;
    }
    daemon.ask_to_train()?;
    flow.until("the first model", || Ok(version(&daemon)? == 1.0))?;
    let database = rig.database(&settings())?;
    let weights = Registry(&database).weights("climate-1")?;
    for (number, factor) in [(2.0, 0.9), (3.0, 1.1)] {
        rig.import(&settings(), &distorted(&weights, factor)?)?;
        rig.command(&settings(), &["models", "promote", &format!("climate-{number}")])?;
        flow.until("the next model", || Ok(version(&daemon)? == number))?;
    }
    let rows = flow.rows;
    flow.feed.finish()?;
    let metrics = daemon.wait_stored(rows * SERIES)?;
    let heard = heard.wait_for(rows * SERIES)?;
    assert_eq!((metrics.received(), metrics.rejected(None)), ((rows * SERIES) as f64, 0.0));
    assert_eq!(heard.len(), rows * SERIES);
    daemon.stop()?;

    let published = published(&heard)?;
    let stored = stored(&rig)?;
    // One message a reading, and the row of each of its steps; after the first reading of a series there
    // are none, since its interval is not known yet.
    assert_eq!(published.len(), rows * SERIES);
    assert_eq!(stored.values().map(Vec::len).sum::<usize>(), (rows - 1) * SERIES * HORIZON);
    let mut models: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for ((series, origin), said) in &published {
        assert_eq!(said.steps.len(), if *origin == 0 { 0 } else { HORIZON }, "{series} {origin}");
        let rows = stored.get(&(series.clone(), *origin));
        let rows = rows.map_or(&[][..], Vec::as_slice);
        assert_eq!(said.steps.len(), rows.len(), "{series} {origin}");
        for (row, step) in rows.iter().zip(&said.steps) {
            assert_eq!((row.model.as_str(), &row.numbers), (said.model.as_str(), step), "{series} {origin}");
        }
        models.entry(series).or_default().push(&said.model);
    }
    // The keys are in order of time: each model goes on until the next takes over, and none comes back.
    for (series, mut models) in models {
        models.dedup();
        assert_eq!(models, ["naive", "climate-1", "climate-2", "climate-3"], "{series}");
    }
    Ok(())
}

/// A forecast as it was published.
struct Said {
    model: String,
    /// Mean and quantiles of each step.
    steps: Vec<[f64; 8]>,
}

const NUMBERS: [&str; 8] = ["mean", "q05", "q10", "q25", "q50", "q75", "q90", "q95"];

/// Forecasts by series and position of the reading; each once.
fn published(heard: &[Collected]) -> Result<BTreeMap<(String, i64), Said>> {
    let mut published = BTreeMap::new();
    for message in heard {
        let body: Value = message.json()?;
        let text =
            |key: &str| body[key].as_str().map(str::to_owned).with_context(|| format!("{key}: {body}"));
        let steps = body["steps"].as_array().context("steps")?.iter();
        let steps = steps.map(|step| NUMBERS.map(|name| step[name].as_f64().unwrap_or(f64::NAN))).collect();
        let key = (text("series")?, position(&text("origin")?)?);
        let before = published.insert(key, Said { model: text("model")?, steps });
        assert!(before.is_none(), "two messages: {body}");
    }
    Ok(published)
}

/// Position of a reading by its time on or after 2026-01-01.
fn position(time: &str) -> Result<i64> {
    let part = |range: std::ops::Range<usize>| time.get(range).unwrap_or_default().parse::<i64>();
    Ok((part(8..10)? - 1) * 1440 + part(11..13)? * 60 + part(14..16)?)
}

struct Row {
    model: String,
    numbers: [f64; 8],
}

/// Forecasts by series and position of the reading, in order of steps.
fn stored(rig: &Rig) -> Result<HashMap<(String, i64), Vec<Row>>> {
    type Columns = (String, i64, String, f64, f64, f64, f64, f64, f64, f64, f64);
    let database = rig.database(&settings())?;
    let origin = match database.is_postgres() {
        true => "extract(epoch from f.origin)::bigint",
        false => "f.origin / 1000000",
    };
    let rows: Vec<Columns> = database.rows(&format!(
        "select s.key, {origin}, coalesce(m.name, 'naive'), mean, q05, q10, q25, q50, q75, q90, q95 \
         from forecasts f join series s on s.id = f.series_id left join models m on m.id = f.model_id \
         order by s.key, f.origin, f.step"
    ))?;
    let mut stored: HashMap<_, Vec<Row>> = HashMap::new();
    for (series, second, model, mean, q05, q10, q25, q50, q75, q90, q95) in rows {
        let position = (second - Reading::BEGIN.cast_signed()) / Reading::INTERVAL.cast_signed();
        let numbers = [mean, q05, q10, q25, q50, q75, q90, q95];
        stored.entry((series, position)).or_default().push(Row { model, numbers });
    }
    Ok(stored)
}

/// What an anomaly broke is the interval that was published, even if another model is in by then.
#[test]
fn the_reading_after_a_swap_is_judged_by_the_forecast_that_was_published() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let heard = Subscriber::new(&rig.broker, "vidente/forecast/#")?;
    let mut daemon = rig.daemon(&settings())?;
    let mut flow = Flow { feed: Feed::new(&rig.broker, SERIES, 1)?, heard: &heard, rows: 0 };
    (0..220).try_for_each(|_| flow.on())?;
    daemon.wait_stored(220 * SERIES)?;
    rig.train(&settings())?;
    flow.until("the first model", || Ok(version(&daemon)? == 1.0))?;
    heard.wait_for(flow.rows * SERIES)?;
    let database = rig.database(&settings())?;
    rig.import(&settings(), &distorted(&Registry(&database).weights("climate-1")?, -4.0)?)?;
    rig.command(&settings(), &["models", "promote", "climate-2"])?;
    daemon.wait_metrics("the next model", |m| m.sum("vidente_model_version", &[]) == 2.0)?;
    let spike = flow.rows;
    flow.feed.publish_with(spike..spike + 1, |r| r.payload_of(500.0))?;
    let heard = heard.wait_for((spike + 1) * SERIES)?;
    let published = published(&heard)?;
    wait_until("the anomalies", WAIT, || {
        Ok(database.int("select count(*) from anomalies where value = 500")? == SERIES as i64)
    })?;
    let broken: Vec<(String, f64, f64)> = database.rows(
        "select s.key, a.q05, a.q95 from anomalies a join series s on s.id = a.series_id where a.value = 500",
    )?;
    for (series, q05, q95) in broken {
        let said = |position: usize| published.get(&(series.clone(), position as i64)).context("no forecast");
        let (before, after) = (said(spike - 1)?, said(spike)?);
        assert_eq!((before.model.as_str(), after.model.as_str()), ("climate-1", "climate-2"));
        assert_eq!((q05, q95), (before.steps[0][1], before.steps[0][7]), "{series}");
    }
    daemon.stop()
}
