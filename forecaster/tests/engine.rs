//! What the engine promises, on random and on awkward series.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use forecaster::features::INPUTS;
use forecaster::weights::{Cell, Sizes, Weights};
use forecaster::{Engine, Installed, Model, Reading, SECOND, Step, StreamSpec, Timestamp, Verdict, rebuild};
use proptest::prelude::*;

const FAR: Timestamp = Timestamp(i64::MAX);
const MINUTE: i64 = 60 * SECOND;

fn spec(horizon: usize) -> StreamSpec {
    StreamSpec { horizon, ..StreamSpec::default() }
}

fn model(id: i64, seed: u64) -> Installed {
    let weights = Weights::random(Sizes { cell: Cell::Lstm, inputs: INPUTS, hidden: 12, layers: 2 }, seed);
    Installed { id, name: format!("s-{id}").into(), version: id, model: Arc::new(Model::new(vec![weights])) }
}

fn at(minute: i64, value: f64) -> Reading {
    Reading { time: Timestamp(minute * MINUTE), value }
}

fn accept(engine: &mut Engine, series: u32, reading: Reading) -> Vec<Step> {
    assert!(matches!(engine.observe(series, reading, FAR), Verdict::Accepted(_)), "{reading:?}");
    engine.steps().to_vec()
}

/// Readings at growing minutes, some left out, with values from calm to wild.
fn readings() -> impl Strategy<Value = Vec<Reading>> {
    let value = prop_oneof![
        6 => -5.0..5.0_f64,
        2 => Just(1.0),
        1 => prop_oneof![Just(0.0), Just(1e12), Just(-1e300), Just(1e300), Just(f64::MIN_POSITIVE)],
    ];
    prop::collection::vec((1_i64..4, value), 2..150).prop_map(|steps| {
        let mut minute = 0;
        steps
            .into_iter()
            .map(|(gap, value)| {
                minute += gap;
                at(minute, value)
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn forecasts_are_ordered_finite_and_ahead(readings in readings(), with_model: bool, horizon in 1_usize..8) {
        let mut engine = Engine::new([spec(horizon)]);
        if with_model {
            engine.set_model(0, model(1, 1));
        }
        let series = engine.add_series(0);
        for (row, reading) in readings.iter().enumerate() {
            let steps = accept(&mut engine, series, *reading);
            let tame = readings[..=row].iter().all(|r| r.value.abs() < 1e100);
            prop_assert!(steps.len() == if row == 0 { 0 } else { horizon } || !tame, "{} steps", steps.len());
            let mut last = reading.time;
            for step in steps {
                prop_assert!(step.time > last);
                last = step.time;
                prop_assert!(step.mean.is_finite() && step.quantiles.iter().all(|q| q.is_finite()));
                prop_assert!(step.quantiles.is_sorted(), "{:?}", step.quantiles);
            }
        }
    }

    /// A restart restores the checkpoint and replays the readings since: float for float what an
    /// uninterrupted engine forecasts.
    #[test]
    fn a_restart_changes_nothing(readings in readings(), with_model: bool, cut in 0.0..1.0_f64, saved in 0.0..1.0_f64) {
        let cut = ((readings.len() - 1) as f64 * cut) as usize;
        let saved = (cut as f64 * saved) as usize;
        let start = || {
            let mut engine = Engine::new([spec(3)]);
            if with_model {
                engine.set_model(0, model(1, 1));
            }
            let series = engine.add_series(0);
            (engine, series)
        };
        let (mut steady, series) = start();
        let mut checkpoint = None;
        for (row, reading) in readings.iter().enumerate().take(cut) {
            accept(&mut steady, series, *reading);
            if row == saved {
                steady.checkpoint(usize::MAX, |_, time, model, state| checkpoint = Some((time, model, state)));
            }
        }
        let (mut restarted, series) = start();
        let mut since = Timestamp(i64::MIN);
        if let Some((time, model, state)) = checkpoint {
            prop_assert!(!restarted.restore(series, model, &state).unwrap());
            since = time;
        }
        for reading in readings.iter().take(cut).filter(|r| r.time > since) {
            accept(&mut restarted, series, *reading);
        }
        for reading in &readings[cut..] {
            let expected = steady.observe(series, *reading, FAR);
            prop_assert_eq!(restarted.observe(series, *reading, FAR), expected);
            prop_assert_eq!(restarted.steps(), steady.steps());
        }
    }

    /// The model of a swap sees every reading once: those in the rebuilt state, and those that came
    /// while it was rebuilt.
    #[test]
    fn a_swap_misses_nothing(readings in readings(), opened in 0.0..1.0_f64, rebuilt in 0.0..1.0_f64) {
        let opened = ((readings.len() - 1) as f64 * opened) as usize;
        let rebuilt = opened + ((readings.len() - 1 - opened) as f64 * rebuilt) as usize;
        let new = model(2, 2);
        let mut always = Engine::new([spec(2)]);
        always.set_model(0, new.clone());
        let mut swapped = Engine::new([spec(2)]);
        swapped.set_model(0, model(1, 1));
        let series = (always.add_series(0), swapped.add_series(0)).1;
        for (row, reading) in readings.iter().enumerate() {
            if row == opened {
                swapped.open_journal(0);
            }
            accept(&mut always, series, *reading);
            accept(&mut swapped, series, *reading);
        }
        let state = rebuild(&new.model, &readings[..rebuilt], &spec(2));
        prop_assert!(swapped.install(0, new, state.map(|s| (series, s)).into_iter().collect(), false));
        prop_assert_eq!(swapped.forecast(series).to_vec(), always.forecast(series).to_vec());
    }
}

#[test]
fn what_is_refused_and_why() {
    let mut engine = Engine::new([spec(1)]);
    let series = engine.add_series(0);
    let now = Timestamp(100 * MINUTE);
    let mut tell = |minute, value| engine.observe(series, at(minute, value), now);
    assert!(matches!(tell(100, 1.0), Verdict::Accepted(_)));
    assert_eq!(tell(100, 2.0), Verdict::Duplicate);
    assert_eq!(tell(99, 2.0), Verdict::Late);
    assert_eq!(tell(161, 2.0), Verdict::Future);
    assert!(matches!(tell(160, 2.0), Verdict::Accepted(_)));
    assert_eq!(tell(170, f64::NAN), Verdict::NotFinite);
    assert_eq!(tell(170, f64::INFINITY), Verdict::NotFinite);
}

#[test]
fn the_interval_is_learned_through_dropouts() {
    let mut engine = Engine::new([spec(1)]);
    let series = engine.add_series(0);
    assert!(accept(&mut engine, series, at(0, 1.0)).is_empty(), "nothing is known after one reading");
    let mut minute = 0;
    for row in 1..60 {
        minute += if row % 7 == 0 { 30 } else { 5 };
        let steps = accept(&mut engine, series, at(minute, f64::from(row)));
        assert_eq!(steps[0].time.0, (minute + 5) * MINUTE, "row {row}");
    }
}

#[test]
fn a_counter_is_forecast_to_go_on() {
    let mut engine = Engine::new([spec(4)]);
    let series = engine.add_series(0);
    for minute in 0..300 {
        accept(&mut engine, series, at(minute, 1000.0 + 3.0 * minute as f64));
    }
    for (step, made) in (1..).zip(engine.steps()) {
        let error = made.quantiles[3] - (1000.0 + 3.0 * f64::from(299 + step));
        assert!(error.abs() < 0.05, "step {step}: {error}");
    }
}

#[test]
fn neither_a_wild_value_nor_a_constant_stretch_breaks_the_scale() {
    let spread = |engine: &Engine| {
        let [q05, .., q95] = engine.steps()[0].quantiles;
        q95 - q05
    };
    let wave = |minute: i64| (minute as f64 / 9.0).sin() + 0.2 * ((minute * 7919) % 13) as f64;
    for wild in [0, 3, 40, 500] {
        for model_given in [false, true] {
            let mut engine = Engine::new([spec(1)]);
            if model_given {
                engine.set_model(0, model(1, 1));
            }
            let (clean, struck) = (engine.add_series(0), engine.add_series(0));
            for minute in 0..1200 {
                accept(&mut engine, clean, at(minute, wave(minute)));
                accept(&mut engine, struck, at(minute, if minute == wild { 1e9 } else { wave(minute) }));
            }
            let recovered = spread(&engine);
            accept(&mut engine, clean, at(1200, wave(1200)));
            let ratio = recovered / spread(&engine);
            // What a network answers that was never trained is forgotten slowly.
            let bounds = if model_given { 0.1..12.0 } else { 0.3..3.0 };
            assert!(bounds.contains(&ratio), "wild at {wild}, model {model_given}: ratio {ratio}");
        }
    }
    let mut engine = Engine::new([spec(1)]);
    engine.set_model(0, model(1, 1));
    let (lively, constant) = (engine.add_series(0), engine.add_series(0));
    for minute in 0..3200 {
        accept(&mut engine, lively, at(minute, wave(minute)));
        let usual = if minute == 3199 { spread(&engine) } else { 0.0 };
        accept(&mut engine, constant, at(minute, if minute < 3000 { 20.0 } else { wave(minute) }));
        match minute {
            2999 => assert!(spread(&engine) < 1e-6, "a constant is forecast with certainty"),
            3199 => {
                let ratio = spread(&engine) / usual;
                assert!((0.25..4.0).contains(&ratio), "and then it moves: ratio {ratio}");
            }
            _ => {}
        }
    }
}

#[test]
fn a_fault_is_flagged_once_and_calm_is_not() {
    let mut engine = Engine::new([spec(1)]);
    let series = engine.add_series(0);
    let (mut began, mut ended) = (Vec::new(), Vec::new());
    for minute in 0..2000_i64 {
        let noise = ((minute * 7919) % 101) as f64 / 50.0;
        let value = if (1000..1003).contains(&minute) { 500.0 + noise } else { noise };
        let Verdict::Accepted(outcome) = engine.observe(series, at(minute, value), FAR) else {
            unreachable!()
        };
        assert!((0.0..=1.0).contains(&outcome.score));
        match outcome.change {
            Some(forecaster::anomaly::Change::Began) => began.push(minute),
            Some(forecaster::anomaly::Change::Ended { since, at }) => {
                ended.push((since.0 / MINUTE, at.0 / MINUTE))
            }
            None => {}
        }
    }
    assert_eq!(began, [1000]);
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0].0, 1000);
    assert!((1001..=1010).contains(&ended[0].1), "{ended:?}");
}
