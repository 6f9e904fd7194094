//! A model takes over from another: without a seam, with the one before in its shadow, and with a watch on
//! whether forecasts became worse.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;

use forecaster::engine::SHADOWS;
use forecaster::features::INPUTS;
use forecaster::weights::{Cell, Sizes, Weights};
use forecaster::{
    Drift, Engine, Installed, LEVELS, Model, Reading, SECOND, Step, StreamSpec, Tally, Timestamp, Verdict,
    rebuild,
};
use hashbrown::HashMap;
use rand::{RngExt, SeedableRng, rngs::StdRng};

const FAR: Timestamp = Timestamp(i64::MAX);

fn model(id: i64) -> Installed {
    let weights =
        Weights::random(Sizes { cell: Cell::Lstm, inputs: INPUTS, hidden: 8, layers: 1 }, id as u64);
    Installed { id, name: format!("s-{id}").into(), version: id, model: Arc::new(Model::new(vec![weights])) }
}

/// Readings of a noisy wave.
fn wave(rows: i64, seed: u64) -> Vec<Reading> {
    let mut rng = StdRng::seed_from_u64(seed);
    let value = |i: i64, noise: f64| (i as f64 / 9.0).sin() + noise;
    (0..rows)
        .map(|i| Reading { time: Timestamp(i * 60 * SECOND), value: value(i, rng.random_range(-0.1..0.1)) })
        .collect()
}

fn feed(engine: &mut Engine, series: u32, reading: Reading) -> (Option<[f64; 7]>, Step) {
    let Verdict::Accepted(outcome) = engine.observe(series, reading, FAR) else { panic!("refused") };
    (outcome.verification.map(|v| v.expected), engine.steps().first().copied().unwrap_or(NOTHING))
}

fn pass(engine: &mut Engine, series: u32, reading: Reading) {
    feed(engine, series, reading);
}

const NOTHING: Step = Step { time: Timestamp(0), mean: 0.0, quantiles: [0.0; 7] };

#[test]
fn the_reading_after_a_swap_is_judged_by_the_forecast_that_was_given_out() {
    let readings = wave(200, 1);
    let mut engine = Engine::new([StreamSpec::default()]);
    engine.set_model(0, model(1));
    let series = engine.add_series(0);
    let mut given = NOTHING;
    for reading in &readings[..120] {
        given = feed(&mut engine, series, *reading).1;
    }
    for (id, known) in [(2, 100), (3, 120)] {
        engine.open_journal(0);
        let new = model(id);
        let states = rebuild(&new.model, &readings[..known], &StreamSpec::default());
        // What came since the states were read is caught up with before the swap.
        let mut states: HashMap<u32, _> = states.into_iter().map(|s| (series, s)).collect();
        let mut room = forecaster::Room::default();
        for reading in &readings[known..120] {
            states.get_mut(&series).unwrap().step(
                *reading,
                &StreamSpec::default(),
                &new.model,
                true,
                &mut room,
            );
        }
        assert!(engine.install(0, new, states.into_iter().collect(), true));
    }
    assert_ne!(engine.forecast(series)[0].quantiles, given.quantiles);
    let mut restarted = Engine::new([StreamSpec::default()]);
    restarted.set_model(0, model(3));
    restarted.add_series(0);
    engine.checkpoint(usize::MAX, |_, _, model, state| {
        assert!(!restarted.restore(series, model, &state).unwrap());
    });
    for engine in [&mut engine, &mut restarted] {
        let (expected, next) = feed(engine, series, readings[120]);
        assert_eq!(expected, Some(given.quantiles));
        let (expected, _) = feed(engine, series, readings[121]);
        assert_eq!(expected, Some(next.quantiles));
    }
}

/// The median's error in parts of the scale is not seen from outside; the order of two losses is.
fn loss(quantiles: &[f64; 7], value: f64) -> f64 {
    let losses = quantiles.iter().zip(LEVELS).map(|(q, l)| (l * (value - q)).max((l - 1.0) * (value - q)));
    losses.sum::<f64>() / 7.0
}

#[test]
fn the_shadow_forecasts_as_if_there_had_been_no_swap() {
    let readings = wave(600, 2);
    let (mut swapped, mut steady) =
        (Engine::new([StreamSpec::default()]), Engine::new([StreamSpec::default()]));
    for engine in [&mut swapped, &mut steady] {
        engine.set_model(0, model(1));
        engine.add_series(0);
        readings[..300].iter().for_each(|r| pass(engine, 0, *r));
    }
    let new = model(2);
    let states = rebuild(&new.model, &readings[..300], &StreamSpec::default());
    assert!(swapped.install(0, new, states.into_iter().map(|s| (0, s)).collect(), true));
    let (mut made, mut kept) = (swapped.forecast(0)[0], steady.forecast(0)[0]);
    let (mut sum, mut sum_before) = (0.0, 0.0);
    for reading in &readings[300..] {
        let scale = swapped.series(0).unwrap().scale();
        sum += loss(&made.quantiles, reading.value) / scale;
        sum_before += loss(&kept.quantiles, reading.value) / scale;
        made = feed(&mut swapped, 0, *reading).1;
        kept = feed(&mut steady, 0, *reading).1;
    }
    let tally = swapped.probation(0).unwrap();
    assert_eq!(tally.readings, 300);
    assert!((tally.loss - sum).abs() < 1e-9 * sum, "{} {sum}", tally.loss);
    assert!((tally.loss_before - sum_before).abs() < 1e-9 * sum_before, "{} {sum_before}", tally.loss_before);
    assert!((tally.rise().unwrap() - (sum / sum_before - 1.0)).abs() < 1e-9);
    swapped.end_probation(0);
    assert_eq!(swapped.probation(0), None);
}

#[test]
fn a_probation_goes_on_after_a_restart_and_shadows_a_bounded_number_of_series() {
    let all = 2 * SHADOWS + 1;
    let mut engine = Engine::new([StreamSpec::default()]);
    let readings = wave(30, 3);
    for series in 0..all as u32 {
        engine.add_series(0);
        readings[..20].iter().for_each(|r| pass(&mut engine, series, *r));
    }
    let before = model(1).model;
    let states = (0..all as u32)
        .map(|series| (series, rebuild(&before, &readings[..20], &StreamSpec::default()).unwrap()))
        .collect();
    let mut counted = Tally::default();
    (counted.readings, counted.loss, counted.loss_before) = (7, 1.0, 2.0);
    engine.resume_probation(0, Some(before), states, counted);
    for series in 0..all as u32 {
        feed(&mut engine, series, readings[20]);
    }
    let tally = engine.probation(0).unwrap();
    let shadowed = (tally.readings - 7) as usize;
    assert!((SHADOWS / 2..=SHADOWS).contains(&shadowed), "{shadowed}");
    assert!(tally.loss > 1.0 && tally.loss_before > 2.0);
}

#[test]
fn a_model_taken_out_leaves_the_experts_to_forecast() {
    let readings = wave(300, 4);
    let mut engine = Engine::new([StreamSpec::default()]);
    engine.set_model(0, model(1));
    let series = engine.add_series(0);
    readings[..200].iter().for_each(|r| pass(&mut engine, series, *r));
    assert!(engine.model_of(series).is_some());
    engine.uninstall(0);
    assert!(engine.model_of(series).is_none() && engine.installed(0).is_none());
    for reading in &readings[200..] {
        let (_, step) = feed(&mut engine, series, *reading);
        assert!(step.quantiles.is_sorted() && step.quantiles[6] > step.quantiles[0]);
    }
}

/// Eight series that follow their past by `pull`, and jump at times.
fn stream(engine: &mut Engine, rows: std::ops::Range<i64>, pull: f64, noise: f64, rng: &mut StdRng) {
    for row in rows {
        for series in 0..8 {
            let last = engine.series(series).and_then(|s| s.last()).map_or(0.0, |r| r.value);
            let value = pull * last + rng.random_range(-noise..noise);
            feed(engine, series, Reading { time: Timestamp(row * 60 * SECOND), value });
        }
    }
}

#[test]
fn a_change_of_nature_is_drift_and_a_livelier_world_alone_is_not() {
    let mut alarms = 0;
    for seed in 0..10 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut engine = Engine::new([StreamSpec::default()]);
        (0..8).for_each(|series| assert_eq!(engine.add_series(0), series));
        stream(&mut engine, 0..1000, 0.3, 1.0, &mut rng);
        engine.reset_drift(0);
        stream(&mut engine, 1000..6000, 0.3, 1.0, &mut rng);
        alarms += u32::from(engine.drift(0).is_some());
        engine.reset_drift(0);
        stream(&mut engine, 6000..7000, 0.3, 1.0, &mut rng);
        // From a series that comes back to its mean to one that wanders: the forecast loses its lead over
        // the last value.
        stream(&mut engine, 7000..8000, 1.0, 1.0, &mut rng);
        assert_eq!(engine.drift(0), Some(Drift::Error), "seed {seed}");
    }
    assert!(alarms <= 1, "{alarms} false alarms in 10 × 40,000 readings");
}
