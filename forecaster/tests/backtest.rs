//! A backtest is causal to the letter.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ops::ControlFlow;

use forecaster::backtest::{Backtest, Row};
use forecaster::train::{TrainConfig, TrainError};
use forecaster::{Reading, SECOND, StreamSpec, Timestamp};
use proptest::prelude::*;

/// Rows of several series, as a file holds them: ordered by time, at most one of a series at a time.
#[derive(Debug, Clone)]
struct File {
    series: usize,
    rows: Vec<(usize, Reading)>,
}

/// Series that mostly share their timestamps, with gaps and with values from calm to wild.
fn files(rows: std::ops::Range<usize>) -> impl Strategy<Value = File> {
    let value = prop_oneof![
        8 => -5.0..5.0_f64,
        3 => Just(1.0),
        1 => prop_oneof![Just(0.0), Just(1e9), Just(-1e300)],
    ];
    let time = (1_i64..4, prop::collection::vec((prop::bool::weighted(0.85), value), 3));
    prop::collection::vec(time, rows).prop_map(|times| {
        let (mut minute, mut rows) = (0, Vec::new());
        for (gap, values) in times {
            minute += if gap == 3 { 7 } else { 1 };
            for (series, (there, value)) in values.into_iter().enumerate() {
                if there {
                    let time = Timestamp(minute * 60 * SECOND);
                    rows.push((series, Reading { time, value }));
                }
            }
        }
        File { series: 3, rows }
    })
}

/// How many rows of each series are history.
fn splits(file: &File, split: f64) -> Vec<usize> {
    let rows = |series| file.rows.iter().filter(|(s, _)| *s == series).count();
    (0..file.series).map(|s| (split * rows(s) as f64).floor() as usize).collect()
}

/// What is forecast for each row of the file; none for history.
fn run(file: &File, split: f64, horizon: usize) -> Vec<Option<Vec<Row>>> {
    let mut backtest = Backtest::new(StreamSpec { horizon, ..StreamSpec::default() }, file.series);
    let splits = splits(file, split);
    let (mut histories, mut later) = (vec![Vec::new(); file.series], Vec::new());
    for (place, (series, reading)) in file.rows.iter().enumerate() {
        if histories[*series].len() < splits[*series] {
            histories[*series].push(*reading);
        } else {
            later.push((place, *series, *reading));
        }
    }
    if split > 0.0 {
        let config = TrainConfig {
            hidden: 4,
            steps: 4,
            batch: 4,
            max_updates: 6,
            look_every: 3,
            ..TrainConfig::default()
        };
        if let Err(error) = backtest.train(&histories, &config, |_| ControlFlow::Continue(())) {
            assert!(matches!(error, TrainError::TooLittle { .. }), "{error}");
        }
    }
    let mut made = vec![None; file.rows.len()];
    for (place, series, reading) in later {
        made[place] = Some(backtest.feed(series, reading));
    }
    made
}

/// Changes a value of the forecast part, and holds what comes out against both sentences.
fn assert_causal(file: &File, split: f64, horizon: usize, which: f64, value: f64) {
    let before = run(file, split, horizon);
    let part: Vec<usize> = (0..before.len()).filter(|i| before[*i].is_some()).collect();
    let place = part[((part.len() - 1) as f64 * which) as usize];
    let mut changed = file.clone();
    changed.rows[place].1.value = value;
    let after = run(&changed, split, horizon);
    let forecasts =
        |rows: &Option<Vec<Row>>| rows.iter().flatten().map(|r| (r.step, r.forecast)).collect::<Vec<_>>();
    assert_eq!(forecasts(&before[place]), forecasts(&after[place]), "row {place} itself");
    let time = file.rows[place].1.time;
    for (at, (_, reading)) in file.rows.iter().enumerate() {
        if at < place || at > place && reading.time == time {
            assert_eq!(before[at], after[at], "row {at}, by a change of row {place}");
        }
    }
}

/// Every row from a series' second on is forecast.
fn assert_complete(file: &File, split: f64) {
    let mut seen = vec![0; file.series];
    for (made, (series, _)) in run(file, split, 1).iter().zip(&file.rows) {
        if let Some(made) = made {
            assert_eq!(made.len(), usize::from(seen[*series] > 0));
        }
        seen[*series] += 1;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn nothing_knows_the_future_when_cold(
        file in files(2..60), horizon in 1_usize..4, which in 0.0..1.0_f64, value in -50.0..50.0_f64,
    ) {
        prop_assume!(!file.rows.is_empty());
        assert_causal(&file, 0.0, horizon, which, value);
        assert_complete(&file, 0.0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn nothing_knows_the_future_after_training(
        file in files(60..90), horizon in 1_usize..4, which in 0.0..1.0_f64, value in -50.0..50.0_f64,
    ) {
        assert_causal(&file, 0.6, horizon, which, value);
        assert_complete(&file, 0.6);
    }
}
