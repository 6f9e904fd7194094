//! A daemon that retrains itself again and again in a world that drifts, against each of its models pinned:
//! the loss of the forecasts that it stored, and of what each model would have forecast over the same stretch.
//!
//! `cargo bench -p vidente-tests --bench retraining [-- RUNS [WORLD]]`, where each number is a world of its own

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use forecaster::judge::trial;
use forecaster::{LEVELS, Model, StreamSpec, Timestamp};
use vidente_tests::{Database, Feed, Reading, Registry, Rig, Settings, Store, quiet, wait_until};

const SERIES: usize = 12;
/// Readings of a series before the first run.
const PAST: usize = 300;
/// Readings of a series between two looks at what the daemon does.
const PIECE: usize = 20;
/// Time between two pieces.
const PACE: Duration = Duration::from_millis(1500);
/// Readings of a series at most: more than any number of runs takes.
const MOST: usize = 20_000;
/// Readings after which a series may change abruptly.
const AGE: usize = 400;
/// Bound on an error in `forecaster::judge`, in its units.
const MAX_LOSS: f64 = 8.0;
/// How long a run may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(600);

fn main() -> Result<()> {
    // Cargo adds --bench.
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let number = |at: usize, default: usize| args.get(at).map_or(Ok(default), |a| a.parse());
    run(number(0, 50)?, number(1, 0)?)
}

/// A series whose amplitude, period, shape and noise drift, and at times change abruptly.
fn drifting(world: usize, series: usize) -> Vec<f64> {
    let draw = |position: usize, of: usize| {
        Reading { series: series + SERIES * (of + 10 * world), position }.noise() + 0.5
    };
    let (mut amplitude, mut period, mut bend, mut noise) = (4.0, 24.0, 0.5, 0.5);
    let (mut phase, mut level) = (0.0, 20.0 + series as f64);
    (0..MOST)
        .map(|position| {
            let by_chance = |of: usize| 2.0 * draw(position, of) - 1.0;
            if position % AGE == 0 && draw(position, 0) < 0.5 {
                (amplitude, period) = (2.0 + 6.0 * draw(position, 1), 12.0 + 20.0 * draw(position, 2));
                (bend, noise) = (draw(position, 3), 0.2 + 1.5 * draw(position, 4));
            }
            amplitude = (amplitude * (1.0 + 0.005 * by_chance(5))).clamp(1.0, 10.0);
            period = (period + 0.02 * by_chance(6)).clamp(10.0, 40.0);
            noise = (noise * (1.0 + 0.005 * by_chance(7))).clamp(0.1, 2.0);
            level += 0.05 * by_chance(8);
            phase = (phase + 1.0 / period) % 1.0;
            // Between a wave and a saw.
            let shape = (1.0 - bend) * (std::f64::consts::TAU * phase).sin() + bend * (2.0 * phase - 1.0);
            level + amplitude * shape + noise * by_chance(9)
        })
        .collect()
}

fn run(runs: usize, world: usize) -> Result<()> {
    quiet();
    let rig = Rig::new(Store::Sqlite)?;
    let settings = Settings::learning(
        "[training]\nevery = \"1s\"\nwindow = \"10h\"\ndrift_cooldown = \"1s\"\n\
         [models]\nprobation = \"40m\"\nkeep = 100000\n",
    );
    let world: Vec<Vec<f64>> = (0..SERIES).map(|series| drifting(world, series)).collect();
    let mut daemon = rig.daemon(&settings)?;
    let database = rig.database(&settings)?;
    let registry = Registry(&database);
    let judged = "select count(*) from training_runs where status in ('succeeded', 'rejected')";
    let on_probation = "select count(*) from promotions where status = 'probation'";
    let mut feed = Feed::new(&rig.broker, SERIES, 1)?;
    let payload = |r: Reading| r.payload_of(world[r.series][r.position]);
    let (mut rows, mut seen) = (PAST, 0);
    feed.publish_with(0..PAST, payload)?;
    while seen < runs as i64 {
        // A champion on probation waits for readings, and all else for a run.
        wait_until("a run, or a champion on probation", PATIENCE, || {
            Ok(database.int(judged)? > seen || database.int(on_probation)? > 0)
        })?;
        // Readings must not outrun the looks of the trainer, as they do not in life.
        std::thread::sleep(PACE);
        seen = database.int(judged)?;
        ensure!(rows + PIECE <= MOST, "the world ends after {MOST} readings of a series");
        feed.publish_with(rows..rows + PIECE, payload)?;
        rows += PIECE;
        daemon.wait_stored(rows * SERIES)?;
    }
    feed.finish()?;
    let rollbacks = daemon.metrics()?.sum("vidente_model_rollbacks_total", &[]);
    daemon.stop()?;

    let all = registry.runs()?;
    let count = |what: &dyn Fn(&vidente_tests::Run) -> bool| all.iter().filter(|r| what(r)).count();
    println!(
        "{SERIES} series, {rows} readings each; runs: {} succeeded, {} rejected, {} else; {} because of drift; \
         rollbacks: {rollbacks}",
        count(&|r| r.status == "succeeded"),
        count(&|r| r.status == "rejected"),
        count(&|r| r.status != "succeeded" && r.status != "rejected"),
        count(&|r| r.trigger == "drift"),
    );
    compare(&database)
}

/// Prints the table.
fn compare(database: &Database) -> Result<()> {
    let readings: Vec<(i64, i64, f64)> =
        database.rows("select series_id, time, value from readings order by series_id, time")?;
    let mut histories: Vec<Vec<forecaster::Reading>> = Vec::new();
    let mut last = 0;
    for (series, time, value) in readings {
        if std::mem::replace(&mut last, series) != series {
            histories.push(Vec::new());
        }
        let reading = forecaster::Reading { time: Timestamp(time), value };
        histories.last_mut().context("no series")?.push(reading);
    }
    let live = live(database, &histories)?;
    let begin = database.int("select min(origin) from forecasts where model_id is not null")?;
    let fixed = |model: Option<&Model>, from: i64| -> Result<f64> {
        let histories = histories.iter().map(Vec::as_slice);
        let trial = trial(model, histories, Timestamp(from), &StreamSpec::default(), || false);
        let standing = trial.and_then(|t| t.standing()).context("nothing to judge")?;
        let rows = live.iter().filter(|(time, _)| *time > from).count();
        ensure!(standing.readings == rows as u64, "{} readings, {rows} live", standing.readings);
        Ok(standing.loss)
    };
    let lived = |from: i64| {
        let losses: Vec<f64> = live.iter().filter(|(time, _)| *time > from).map(|(_, loss)| *loss).collect();
        losses.iter().sum::<f64>() / losses.len() as f64
    };
    let whole = lived(begin);
    println!("loss of the live forecasts since the first champion: {whole:.4}");
    println!("the online experts alone: {:.4}", fixed(None, begin)?);
    println!(
        "\n{:12} {:>9} | since the first champion: {:>7} live/fixed | since it was trained: {:>7} {:>7} live/fixed",
        "pinned", "status", "loss", "loss", "live"
    );
    let models: Vec<(String, String, Vec<u8>)> =
        database.rows("select name, status, weights from models order by id")?;
    let (mut best, mut best_later) = (f64::INFINITY, 0.0_f64);
    let end = live.iter().map(|(time, _)| *time).max().unwrap_or(begin);
    for (name, status, weights) in models {
        let model = Model::from_safetensors(&weights)?;
        let loss = fixed(Some(&model), begin)?;
        best = best.min(loss);
        print!("{name:12} {status:>9} | {:33.4} {:>10.4} |", loss, whole / loss);
        let from = model.trained_until().0.max(begin);
        // On a short rest, chance would decide.
        if end - from >= (end - begin) / 5 {
            let (later, alive) = (fixed(Some(&model), from)?, lived(from));
            best_later = best_later.max(alive / later);
            print!(" {later:29.4} {alive:>7.4} {:>10.4}", alive / later);
        }
        println!();
    }
    println!("\nlive / best fixed, those trained on the stretch itself among them: {:.4}", whole / best);
    println!("live / best fixed, each since it was trained: {best_later:.4}");
    Ok(())
}

/// Time of each reading that was forecast, and the loss, in the units of `forecaster::judge`.
fn live(database: &Database, histories: &[Vec<forecaster::Reading>]) -> Result<Vec<(i64, f64)>> {
    type Columns = (i64, f64, f64, f64, f64, f64, f64, f64, f64);
    let ids: Vec<(i64,)> = database.rows("select id from series order by id")?;
    let mut live = Vec::new();
    for ((series,), history) in ids.into_iter().zip(histories) {
        let moves: f64 = history.windows(2).map(|pair| (pair[1].value - pair[0].value).abs()).sum();
        let unit = moves / (history.len() - 1) as f64;
        let rows: Vec<Columns> = database.rows(&format!(
            "select (select min(r.time) from readings r where r.series_id = f.series_id and r.time > f.origin), \
             (select r.value from readings r where r.series_id = f.series_id and r.time > f.origin \
              order by r.time limit 1), q05, q10, q25, q50, q75, q90, q95 \
             from forecasts f where f.series_id = {series} and f.step = 1 \
             and f.origin < (select max(time) from readings where series_id = {series})"
        ))?;
        for (time, value, q05, q10, q25, q50, q75, q90, q95) in rows {
            let losses = [q05, q10, q25, q50, q75, q90, q95].into_iter().zip(LEVELS);
            let losses = losses.map(|(q, level)| {
                let off = ((value - q) / unit).clamp(-MAX_LOSS, MAX_LOSS);
                (level * off).max((level - 1.0) * off)
            });
            live.push((time, losses.sum::<f64>() / LEVELS.len() as f64));
        }
    }
    Ok(live)
}
