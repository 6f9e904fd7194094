//! Series of which it is known how well they can be forecast.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::f64::consts::TAU;
use std::ops::ControlFlow;

use forecaster::backtest::{Backtest, Ratios};
use forecaster::train::TrainConfig;
use forecaster::{Reading, SECOND, StreamSpec, Timestamp};
use rand::{RngExt, SeedableRng, rngs::StdRng};

const HOUR: i64 = 3600 * SECOND;

/// A standard normal number (Box & Muller 1958).
fn normal(rng: &mut StdRng) -> f64 {
    let (u, v) = (rng.random_range(f64::MIN_POSITIVE..1.0), rng.random_range(0.0..TAU));
    (-2.0 * u.ln()).sqrt() * v.cos()
}

fn series(rows: i64, interval: i64, mut value: impl FnMut(i64) -> f64) -> Vec<Reading> {
    (0..rows).map(|row| Reading { time: Timestamp(row * interval), value: value(row) }).collect()
}

/// Forecasts everything cold, and scores what comes after so many rows.
fn cold(readings: &[Reading], from: usize) -> (Ratios, Vec<[f64; 7]>) {
    let (mut backtest, mut accuracy) = (Backtest::new(StreamSpec::default(), 1), Vec::new());
    for reading in readings {
        let rows = backtest.feed(0, *reading);
        accuracy.extend(rows.first().map(|row| row.forecast.quantiles));
    }
    let made = accuracy.split_off(from);
    (backtest.accuracy(0).unwrap().ratios(), made)
}

/// Mean absolute error of the median over the last value's, from a row on.
fn relative_error(readings: &[Reading], from: usize) -> f64 {
    let (_, made) = cold(readings, from);
    // The first row has no forecast.
    let (mut error, mut naive) = (0.0, 0.0);
    for (pair, quantiles) in readings[from..].windows(2).zip(&made) {
        error += (pair[1].value - quantiles[3]).abs();
        naive += (pair[1].value - pair[0].value).abs();
    }
    error / naive
}

#[test]
fn a_pure_sine_is_foreseen() {
    let sine = series(3000, 300 * SECOND, |i| 20.0 + 5.0 * (TAU * i as f64 / 100.0).sin());
    let error = relative_error(&sine, 1000);
    assert!(error < 0.02, "{error}");
}

/// Nothing beats the last value on a random walk; whatever is cleverer must not be much worse.
#[test]
fn a_random_walk_costs_less_than_one_percent() {
    let mut sum = 0.0;
    for seed in 0..8 {
        let (mut rng, mut value) = (StdRng::seed_from_u64(seed), 0.0);
        let walk = series(4000, 60 * SECOND, |_| {
            value += normal(&mut rng);
            value
        });
        let (ratios, _) = cold(&walk, 0);
        assert!(ratios.mae.unwrap() < 1.01, "seed {seed}: {ratios:?}");
        assert!((0.88..0.92).contains(&ratios.coverage.unwrap()), "seed {seed}: {ratios:?}");
        sum += ratios.crps.unwrap();
    }
    assert!(sum / 8.0 < 1.01, "{sum}");
}

/// Noise around a level is forecast by the level: the error is the noise's own, 1/√2 of that of the last
/// value. After the level has shifted, too.
#[test]
fn a_shifted_level_is_followed() {
    let mut rng = StdRng::seed_from_u64(3);
    let shifted = series(4000, 60 * SECOND, |i| normal(&mut rng) + if i < 2000 { 50.0 } else { 90.0 });
    for from in [500, 2200] {
        let until = if from < 2000 { 1990 } else { 4000 };
        let error = relative_error(&shifted[..until], from);
        assert!((0.69..0.74).contains(&error), "from {from}: {error}");
    }
}

#[test]
fn a_counter_keeps_its_pace() {
    let mut rng = StdRng::seed_from_u64(4);
    let mut value = 1e6;
    let counter = series(4000, 60 * SECOND, |_| {
        value += 10.0 + normal(&mut rng);
        value
    });
    // The last value is off by 10, the pace by a mean of 0.8.
    let error = relative_error(&counter, 500);
    assert!(error < 0.085, "{error}");
}

/// Busy on workdays from eight to six, quiet otherwise: after some weeks its steps are foreseen.
#[test]
fn the_shape_of_a_week_is_learned() {
    let mut rng = StdRng::seed_from_u64(5);
    let week = series(24 * 7 * 16, HOUR, |i| {
        let (day, hour) = (i / 24 % 7, i % 24);
        let busy = day < 5 && (8..18).contains(&hour);
        normal(&mut rng) + if busy { 100.0 } else { 10.0 }
    });
    let error = relative_error(&week, 24 * 7 * 8);
    assert!(error < 0.5, "{error}");
}

/// An on/off series is one or the other: the median is one of both, and no forecast is outside.
#[test]
fn an_on_off_series_is_on_or_off() {
    let mut rng = StdRng::seed_from_u64(6);
    let mut on = false;
    let switch = series(6000, 60 * SECOND, |_| {
        on ^= rng.random::<f64>() < 0.05;
        f64::from(u8::from(on))
    });
    let (ratios, made) = cold(&switch, 1000);
    assert!(ratios.mae.unwrap() < 1.02, "{ratios:?}");
    let near = |q: f64| q.abs() < 0.02 || (q - 1.0).abs() < 0.02;
    let medians = made.iter().filter(|q| near(q[3])).count();
    assert!(medians * 100 > made.len() * 98, "{medians} of {}", made.len());
}

/// What no expert of its own can know, networks and trees learn from all series together.
#[test]
fn training_finds_what_the_experts_cannot() {
    let mut rng = StdRng::seed_from_u64(7);
    // A logistic map: chaotic, and one step of it a parabola of the last value.
    let all: Vec<Vec<Reading>> = (0..3)
        .map(|k| {
            let mut x = 0.2 + 0.2 * f64::from(k);
            series(1600, 60 * SECOND, |_| {
                x = (3.8 * x * (1.0 - x) + 0.005 * normal(&mut rng)).clamp(0.05, 0.95);
                x
            })
        })
        .collect();
    let histories: Vec<Vec<Reading>> = all.iter().map(|s| s[..1100].to_vec()).collect();
    let run = |trained: bool| {
        let mut backtest = Backtest::new(StreamSpec::default(), all.len());
        if trained {
            let config = TrainConfig { hidden: 12, max_updates: 240, ..TrainConfig::default() };
            backtest.train(&histories, &config, |_| ControlFlow::Continue(())).unwrap();
        }
        for (i, s) in all.iter().enumerate() {
            s[if trained { 1100 } else { 0 }..].iter().for_each(|r| drop(backtest.feed(i, *r)));
        }
        backtest.accuracy(0).unwrap().ratios().mae.unwrap()
    };
    let (cold, trained) = (run(false), run(true));
    assert!(trained < 0.6 * cold, "{cold} cold, {trained} trained");
}

/// Every step to the horizon has intervals that hold, and none is worse than the last value.
#[test]
fn steps_ahead_are_calibrated_each() {
    const HORIZON: usize = 12;
    let mut rng = StdRng::seed_from_u64(8);
    let mut state = 0.0;
    let readings = series(9000, 300 * SECOND, |i| {
        state = 0.9 * state + normal(&mut rng);
        10.0 * (TAU * i as f64 / 288.0).sin() + state
    });
    let mut backtest = Backtest::new(StreamSpec { horizon: HORIZON, ..StreamSpec::default() }, 1);
    readings.iter().for_each(|r| drop(backtest.feed(0, *r)));
    for step in 1..=HORIZON {
        let ratios = backtest.accuracy_at(0, step).unwrap().ratios();
        let (coverage, error) = (ratios.coverage.unwrap(), ratios.mae.unwrap());
        assert!((0.87..0.93).contains(&coverage), "step {step}: coverage {coverage}");
        // What can be known shrinks slowly: a cycle against a walk.
        assert!(error < 1.0 - 0.02 * step as f64, "step {step}: error {error}");
    }
}

/// A short cycle with a little noise, over hardly more than one of its turns: nothing that is learned from so little
/// may run away.
#[test]
fn the_first_readings_of_a_smooth_series_are_not_overrated() {
    let mut worst: f64 = 0.0;
    for number in 0..240 {
        // As the sensors of `tests/browser` have it.
        let value = |minute: i64| {
            let (series, minute) = (f64::from(number), minute as f64);
            let noise = (12.9898 * (series + 1.0) * (minute + 1.0)).sin() * 43758.5453;
            let cycle = 20.0 + series % 7.0 + 3.0 * (TAU * minute / 90.0 + series).sin();
            ((cycle + 0.4 * (noise - noise.floor())) * 1000.0).round() / 1000.0
        };
        for start in [0, 7 * HOUR + 1234 * SECOND] {
            let readings: Vec<Reading> = (0..200)
                .map(|row| Reading { time: Timestamp(start + row * 60 * SECOND), value: value(row) })
                .collect();
            let (_, made) = cold(&readings, 0);
            for (row, (quantiles, next)) in made.iter().zip(&readings[1..]).enumerate() {
                let width = quantiles[6] - quantiles[0];
                let miss = (quantiles[3] - next.value).abs();
                if width > 12.0 || miss > 6.0 {
                    println!("series {number}, row {row}: {quantiles:?} and then {}", next.value);
                }
                worst = worst.max(width / 6.0).max(miss / 3.0);
            }
        }
    }
    assert!(worst < 2.0, "{worst} times the cycle");
}
