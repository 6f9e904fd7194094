//! Training learns what can be learned, and the same data and seed give the same weights.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ops::ControlFlow;

use forecaster::backtest::Backtest;
use forecaster::train::{TrainConfig, TrainError, TrainingSet, train};
use forecaster::weights::Cell;
use forecaster::{Reading, SECOND, StreamSpec, Timestamp};
use rand::{RngExt, SeedableRng, rngs::StdRng};

fn spec() -> StreamSpec {
    StreamSpec::default()
}

fn config() -> TrainConfig {
    TrainConfig { hidden: 12, max_updates: 400, ..TrainConfig::default() }
}

fn series(rows: i64, value: impl Fn(i64) -> f64) -> Vec<Reading> {
    (0..rows).map(|i| Reading { time: Timestamp(i * 300 * SECOND), value: value(i) }).collect()
}

/// Two noisy waves of other phase and unit.
fn waves() -> Vec<Vec<Reading>> {
    let mut rng = StdRng::seed_from_u64(1);
    let noise: Vec<f64> = (0..1500).map(|_| rng.random_range(-0.05..0.05)).collect();
    vec![
        series(1500, |i| (i as f64 / 7.0).sin() + noise[i as usize]),
        series(1500, |i| 500.0 + 40.0 * (i as f64 / 11.0).cos() + 40.0 * noise[i as usize]),
    ]
}

#[test]
fn a_wave_is_learned() {
    let all = waves();
    let histories: Vec<_> = all.iter().map(|s| s[..1050].to_vec()).collect();
    let mut backtest = Backtest::new(spec(), 2);
    let mut looks = 0;
    let report = backtest
        .train(&histories, &config(), |p| {
            looks += 1;
            assert_eq!(p.update % config().look_every * usize::from(p.update < 400), 0);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(looks, report.curve.len());
    assert!(report.validation_loss < report.naive_loss);
    for (i, series) in all.iter().enumerate() {
        for reading in &series[1050..] {
            assert_eq!(backtest.feed(i, *reading).len(), 1);
        }
        let accuracy = backtest.accuracy(i).unwrap();
        assert_eq!(accuracy.rows(), 450);
        let error = accuracy.ratios().mae.unwrap();
        assert!(error < 0.7, "series {i}: error {error} of the naive forecast's");
        let coverage = accuracy.ratios().coverage.unwrap();
        assert!((0.75..=1.0).contains(&coverage), "series {i}: coverage {coverage}");
    }
}

#[test]
fn the_same_seed_and_data_give_the_same_weights() {
    let mut set = TrainingSet::default();
    waves().iter().for_each(|s| set.add(s, None));
    let short = TrainConfig { max_updates: 60, ..config() };
    let run = |seed| {
        let config = TrainConfig { seed, ..short };
        let (model, report) = train(&set, &config, |_| ControlFlow::Continue(())).unwrap();
        (model.weights().cloned().collect::<Vec<_>>(), model.forest().cloned(), report)
    };
    let first = run(3);
    assert!(first == run(3));
    assert!(first.0 != run(4).0);
}

#[test]
fn threads_change_no_weight_and_every_cell_learns() {
    let mut set = TrainingSet::default();
    waves().iter().for_each(|s| set.add(s, None));
    for cell in Cell::ALL {
        let config = TrainConfig { cell, trees: false, networks: 1, max_updates: 120, ..config() };
        let run = |threads| {
            let config = TrainConfig { threads, ..config };
            let (model, report) = train(&set, &config, |_| ControlFlow::Continue(())).unwrap();
            (model.weights().cloned().collect::<Vec<_>>(), report)
        };
        let (weights, report) = run(1);
        assert_eq!(weights[0].sizes.cell, cell);
        assert!(report.validation_loss < 0.9 * report.naive_loss, "{cell:?}: {report:?}");
        assert!((weights, report) == run(2), "{cell:?}");
    }
}

#[test]
fn what_is_no_longer_finite_is_named() {
    let mut set = TrainingSet::default();
    waves().iter().for_each(|s| set.add(s, None));
    for (learning_rate, expected) in [
        (f32::INFINITY, "a weight of `rnn.weight_ih_l0` is no longer finite at update 0"),
        (1e36, "the gradient is no longer finite at update 1"),
        (f32::MAX, "the loss is no longer finite at update 1"),
    ] {
        let config = TrainConfig { learning_rate, ..config() };
        let error = train(&set, &config, |_| ControlFlow::Continue(())).unwrap_err().to_string();
        assert!(error.contains(expected), "{learning_rate}: {error}");
    }
}

#[test]
fn too_little_data_and_a_stop_say_so() {
    let mut set = TrainingSet::default();
    set.add(&series(100, |i| i as f64), None);
    assert!(matches!(
        train(&set, &config(), |_| ControlFlow::Continue(())),
        Err(TrainError::TooLittle { rows: 91, needed: 256 })
    ));
    let mut set = TrainingSet::default();
    waves().iter().for_each(|s| set.add(s, None));
    assert!(matches!(train(&set, &config(), |_| ControlFlow::Break(())), Err(TrainError::Stopped)));
}

#[test]
fn the_empty_the_short_and_the_constant_do_no_harm() {
    let mut set = TrainingSet::default();
    set.add(&[], None);
    set.add(&series(3, |i| i as f64), None);
    set.add(&series(600, |_| 5.0), None);
    set.add(&series(600, |i| if i == 300 { 1e300 } else { 1.0 }), None);
    let short = TrainConfig { max_updates: 60, ..config() };
    let (model, report) = train(&set, &short, |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(report.series, 2);
    assert!(model.weights().flat_map(|w| w.named()).all(|(_, _, v)| v.iter().all(|w| w.is_finite())));
}

#[test]
fn a_forecast_knows_nothing_of_its_row() {
    let all = waves();
    let histories: Vec<_> = all.iter().map(|s| s[..1050].to_vec()).collect();
    let short = TrainConfig { max_updates: 60, ..config() };
    let run = |changed: Option<usize>| {
        let mut backtest = Backtest::new(spec(), 2);
        backtest.train(&histories, &short, |_| ControlFlow::Continue(())).unwrap();
        let mut rows = Vec::new();
        for (row, reading) in all[0].iter().enumerate().skip(1050) {
            let mut reading = *reading;
            reading.value += if changed == Some(row) { 3.0 } else { 0.0 };
            rows.push(backtest.feed(0, reading)[0]);
        }
        rows
    };
    let (plain, changed) = (run(None), run(Some(1200)));
    assert_eq!(plain[..150], changed[..150]);
    assert_eq!(plain[150].forecast, changed[150].forecast);
    assert_ne!(plain[150].score, changed[150].score);
    assert_ne!(plain[151].forecast, changed[151].forecast);
}
