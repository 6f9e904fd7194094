//! Champion and challenger: the better one wins, and nothing else does.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ops::ControlFlow;
use std::sync::OnceLock;

use forecaster::features::INPUTS;
use forecaster::judge::{Decision, Rule, SURE, Trial, cutoff, trial};
use forecaster::train::{TrainConfig, TrainingSet, train};
use forecaster::weights::{Cell, Sizes, Weights};
use forecaster::{Model, Reading, SECOND, StreamSpec, Timestamp};
use rand::{RngExt, SeedableRng, rngs::StdRng};

const RULE: Rule = Rule { margin: 0.01, max_worse: 0.25, sure: SURE };
const ROWS: usize = 1500;
const SERIES: u64 = 8;

/// Sawtooth-like series, each of its own phase and unit, that a network learns and autoregressions do not.
fn histories() -> Vec<Vec<Reading>> {
    (0..SERIES)
        .map(|series| {
            let mut rng = StdRng::seed_from_u64(series);
            let unit = 10_f64.powi(series as i32 % 3);
            (0..ROWS as i64)
                .map(|i| {
                    let phase = (i + 7 * series as i64) % 23;
                    let value = (phase * phase % 11) as f64 + rng.random_range(-0.3..0.3);
                    Reading { time: Timestamp(i * 60 * SECOND), value: unit * value }
                })
                .collect()
        })
        .collect()
}

fn split(histories: &[Vec<Reading>]) -> Timestamp {
    cutoff(histories.iter().map(Vec::as_slice), 0.15)
}

fn fit(histories: &[Vec<Reading>], until: Timestamp, seed: u64) -> Model {
    let mut set = TrainingSet::default();
    for history in histories {
        set.add(&history[..history.partition_point(|r| r.time <= until)], None);
    }
    let config = TrainConfig {
        hidden: 16,
        max_updates: 500,
        trees: false,
        networks: 1,
        seed,
        ..TrainConfig::default()
    };
    train(&set, &config, |_| ControlFlow::Continue(())).unwrap().0
}

/// Trained on the clean series.
fn champion() -> &'static Model {
    static CHAMPION: OnceLock<Model> = OnceLock::new();
    CHAMPION.get_or_init(|| fit(&histories(), split(&histories()), 1))
}

fn untrained() -> Model {
    Model::new(vec![Weights::random(Sizes { cell: Cell::Lstm, inputs: INPUTS, hidden: 16, layers: 1 }, 5)])
}

fn tried(model: Option<&Model>, histories: &[Vec<Reading>], from: Timestamp) -> Trial {
    trial(model, histories.iter().map(Vec::as_slice), from, &StreamSpec::default(), || false).unwrap()
}

fn challenge(candidate: &Model, champion: Option<&Model>, histories: &[Vec<Reading>]) -> Decision {
    let from = split(histories);
    tried(Some(candidate), histories, from).against(&tried(champion, histories, from), &RULE)
}

#[test]
fn the_cutoff_leaves_the_latest_readings_of_all_series_out() {
    let all = histories();
    let from = split(&all);
    let later = all.iter().flatten().filter(|r| r.time > from).count();
    assert_eq!(later, (0.15 * (SERIES as usize * ROWS) as f64) as usize);
    assert_eq!(cutoff(std::iter::empty(), 0.15), Timestamp(i64::MIN));
}

#[test]
fn a_trained_model_beats_the_experts_and_its_equals_do_not_beat_it() {
    let all = histories();
    let won = challenge(champion(), None, &all);
    assert!(won.won && won.better_by > 0.02, "{won:?}");
    let same = challenge(champion(), Some(champion()), &all);
    assert!(
        !same.won && same.better_by == 0.0 && same.reason.contains("1.00 % below is asked for"),
        "{same:?}"
    );
    let worse = challenge(&untrained(), Some(champion()), &all);
    assert!(!worse.won && worse.better_by < 0.0, "{worse:?}");
    let standing = tried(Some(champion()), &all, split(&all)).standing().unwrap();
    assert!(standing.relative_error < 0.6 && (0.8..=1.0).contains(&standing.coverage), "{standing:?}");
}

#[test]
fn too_few_readings_decide_nothing() {
    let all = histories();
    let from = Timestamp((ROWS as i64 - 5) * 60 * SECOND);
    let decision = tried(Some(champion()), &all, from).against(&tried(Some(&untrained()), &all, from), &RULE);
    assert!(decision.reason.starts_with("32 readings to judge on"), "{decision:?}");
}

/// What sensors and people do to histories. None of it may dethrone a model that was trained on clean data.
#[test]
fn a_poisoned_history_dethrones_nobody() {
    type Poison = fn(usize, usize, &mut f64);
    let stuck: Poison = |series, row, value| {
        if series % 2 == 0 && row > 900 {
            *value = 3.0;
        }
    };
    let unit: Poison = |series, row, value| {
        if series % 2 == 0 && row > 900 {
            *value = 1.8 * *value + 32.0;
        }
    };
    let storms: Poison = |series, row, value| {
        let dice = StdRng::seed_from_u64((row * 1009 + series) as u64).random_range(0..12);
        if (row / 50 + series) % 7 == 0 && dice < 4 {
            *value = if dice % 2 == 0 { 1e9 } else { -9999.0 };
        }
    };
    let spikes: Poison = |series, row, value| {
        if StdRng::seed_from_u64((row * 1009 + series) as u64).random_range(0..50) == 0 {
            *value = -9999.0;
        }
    };
    for (name, poison) in [("stuck", stuck), ("unit", unit), ("storms", storms), ("spikes", spikes)] {
        let mut all = histories();
        for (series, history) in all.iter_mut().enumerate() {
            history.iter_mut().enumerate().for_each(|(row, r)| poison(series, row, &mut r.value));
        }
        let candidate = fit(&all, split(&all), 2);
        let decision = challenge(&candidate, Some(champion()), &all);
        assert!(!decision.won, "{name}: {decision:?}");
        // It would be no better once the sensors are well again.
        let clean = challenge(&candidate, Some(champion()), &histories());
        assert!(clean.better_by < 0.0, "{name}: {clean:?}");
    }
}

#[test]
fn a_sensor_that_is_stuck_is_not_judged_on() {
    let mut all = histories();
    let from = split(&all);
    for reading in all[0].iter_mut().filter(|r| r.time > from) {
        reading.value = 3.0;
    }
    let judged = tried(None, &all, from).standing().unwrap().readings;
    let whole = tried(None, &histories(), from).standing().unwrap().readings;
    assert!(whole - judged > 190, "{judged} of {whole}");
}
