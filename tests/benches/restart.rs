//! How long a daemon with many series takes from its start to being ready, after a stop and after kills,
//! with a network in every series' state, on SQLite and on Postgres.
//!
//! `cargo bench -p vidente-tests --bench restart [-- SERIES...]`, 10,000 and 100,000 unless given.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use vidente_tests::{Counter, Daemon, Load, Reading, Rig, Settings, Store, quiet};

/// Messages published and not yet answered, at most.
const WINDOW: u64 = 5_000;
/// Readings of each series before the first start that is measured.
const BEFORE: usize = 20;
/// Readings of each series that the checkpoint before the kill does not hold.
const REPLAYED: usize = 3;
/// Series whose readings the model is tried on.
const FEW: usize = 20;

fn main() -> Result<()> {
    // Cargo adds --bench.
    let given: Vec<usize> =
        std::env::args().skip(1).filter(|a| a != "--bench").map(|a| Ok(a.parse()?)).collect::<Result<_>>()?;
    let sizes = if given.is_empty() { vec![10_000, 100_000] } else { given };
    println!(
        "{:>8} {:9} {:>24} {:>30}",
        "series", "store", "ready after a stop", "after a kill, to replay 3 each"
    );
    for series in sizes {
        for store in [Store::Sqlite, Store::Postgres] {
            measure(series, store)?;
        }
    }
    Ok(())
}

fn measure(series: usize, kind: Store) -> Result<()> {
    quiet();
    let rig = Rig::new(kind)?;
    // Nothing is checkpointed but at a stop.
    let rest = format!(
        "{}[models]\nprobation = \"off\"\n[limits]\nmax_series = {series}\n",
        Settings::climate().rest
    );
    let store = "checkpoint_every = \"1d\"".to_owned();
    let settings = Settings { qos: 0, store, rest, ..Settings::climate() };
    let weights = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/models/lstm.safetensors"))?;

    let mut daemon = rig.daemon(&settings)?;
    publish(&rig, &mut daemon, FEW, 0..300)?;
    let name = rig.import(&settings, &weights)?;
    let name = name.split_whitespace().find(|word| word.starts_with("climate-")).context("no name")?;
    rig.command(&settings, &["models", "promote", name.trim_end_matches(':')])?;
    daemon.wait_metrics("the model", |m| m.sum("vidente_model_version", &[]) > 0.0)?;
    publish(&rig, &mut daemon, series, 300..300 + BEFORE)?;
    daemon.stop()?;

    let (mut daemon, stopped) = timed(&rig, &settings)?;
    publish(&rig, &mut daemon, series, 300 + BEFORE..300 + BEFORE + REPLAYED)?;
    daemon.kill()?;
    let mut killed = Vec::new();
    for _ in 0..3 {
        let (mut daemon, took) = timed(&rig, &settings)?;
        let known = daemon.metrics()?.sum("vidente_series", &[]);
        ensure!(known == series as f64, "{known} series");
        killed.push(took);
        daemon.kill()?;
    }
    killed.sort_unstable();
    println!("{series:>8} {kind:9?} {:>22.2} s {:>28.2} s", stopped.as_secs_f64(), killed[1].as_secs_f64());
    Ok(())
}

fn publish(rig: &Rig, daemon: &mut Daemon, series: usize, positions: std::ops::Range<usize>) -> Result<()> {
    let before = daemon.metrics()?.stored() as usize;
    let forecasts = Counter::new(&rig.broker, "vidente/forecast/#")?;
    let count = positions.len() * series;
    for (n, position) in positions.enumerate() {
        let mut load = Load::default();
        for series in 0..series {
            load.push(&format!("sensors/hall/dev{series}/climate"), &Reading { series, position }.payload())?;
        }
        load.run(&rig.broker, &forecasts, WINDOW, None)?;
        daemon.wait_stored(before + n * series)?;
    }
    daemon.wait_stored(before + count)?;
    Ok(())
}

fn timed(rig: &Rig, settings: &Settings) -> Result<(Daemon, Duration)> {
    let begin = Instant::now();
    let daemon = rig.daemon(settings)?;
    Ok((daemon, begin.elapsed()))
}
