//! Killed at any moment while readings flow, again and again, a daemon forecasts what one would have that
//! nothing ever happened to: float for float, with and without a trained model.

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use vidente_tests::{Feed, Plan, Publisher, Rig, Settings, Store};

const SERIES: usize = 5;
/// Readings of a series before, for the model to be trained on.
const PAST: usize = 200;
/// Readings a second, of all series.
const RATE: f64 = 300.0;
const KILLS: u64 = 6;

#[test]
fn the_experts_continue_after_kills_at_random_moments_on_postgres() -> Result<()> {
    compare(Store::Postgres, false)
}

#[test]
fn the_experts_continue_after_kills_at_random_moments_on_sqlite() -> Result<()> {
    compare(Store::Sqlite, false)
}

#[test]
fn the_trained_model_continues_after_kills_at_random_moments() -> Result<()> {
    compare(Store::Sqlite, true)
}

fn compare(store: Store, trained: bool) -> Result<()> {
    let seed = match std::env::var("VIDENTE_SEED") {
        Ok(text) => text.parse()?,
        Err(_) => rand::random(),
    };
    println!("seed {seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    let rounds: u64 = std::env::var("VIDENTE_ROUNDS").map_or(Ok(1), |text| text.parse())?;
    let rig = Rig::new(store)?;
    // The undisturbed one has a store of its own, of the other kind where there is one: they agree on that, too.
    let (steady, killed) = (Settings::named("steady"), Settings::named("killed"));
    let calm = Rig::new(Store::Sqlite)?;
    let begin = if trained { PAST } else { 0 };
    if trained {
        calm.trained(&steady, SERIES, PAST, &[&rig.store_url("killed")])?;
    }
    // So often that some kills come after one.
    let often = [("VIDENTE__STORE__CHECKPOINT_EVERY", "200ms")];
    let mut daemon = rig.launch(&killed, &often)?;
    daemon.wait_ready()?;
    let plan = Plan { begin, garbage_every: 0, ..Plan::new(SERIES, RATE) };
    let publisher = Publisher::start(rig.broker.port(), plan);
    for _ in 0..KILLS * rounds {
        std::thread::sleep(std::time::Duration::from_millis(chance.random_range(20..900)));
        daemon.kill()?;
        std::thread::sleep(std::time::Duration::from_millis(chance.random_range(0..100)));
        daemon = rig.launch(&killed, &often)?;
        // Some are killed before they are ready.
        if chance.random_range(0..4) > 0 {
            daemon.wait_ready()?;
        }
    }
    daemon.wait_ready()?;
    let made = publisher.finish()?.made;
    let length = usize::try_from(made)? / SERIES;
    let database = rig.database(&killed)?;
    let expected = i64::try_from(made)? + (begin * SERIES) as i64;
    daemon.wait_metrics("all readings", |_| {
        database.int("select count(*) from readings").is_ok_and(|n| n >= expected)
    })?;
    daemon.stop()?;

    let mut undisturbed = calm.daemon(&steady)?;
    Feed::run(&calm.broker, SERIES, 1, begin..begin + length)?;
    undisturbed.wait_stored(length * SERIES)?;
    undisturbed.stop()?;
    let a = calm.database(&steady)?.forecasts(begin..begin + length)?;
    let b = database.forecasts(begin..begin + length)?;
    let each = if trained { length } else { length - 1 };
    ensure!(a.len() == each * SERIES, "{} forecasts of {}", a.len(), each * SERIES);
    if let Some((a, b)) = a.iter().zip(&b).find(|(a, b)| a != b) {
        anyhow::bail!("undisturbed {a:?}, killed {b:?}");
    }
    ensure!(a.len() == b.len(), "{} forecasts of {}", b.len(), a.len());
    let models = "select count(distinct model_id) from forecasts where model_id is not null";
    ensure!(database.int(models).context("models")? == i64::from(trained));
    println!("{} kills, {made} readings, {} forecasts the same", KILLS * rounds, a.len());
    Ok(())
}
