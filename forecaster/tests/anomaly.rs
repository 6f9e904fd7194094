//! What is raised, what is not, and how often.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use forecaster::anomaly::{AnomalySettings, Change, Detector, Direction};
use forecaster::{Engine, Reading, SECOND, StreamSpec, Timestamp, Verdict};
use rand::{RngExt, SeedableRng, rngs::StdRng};

const MINUTE: i64 = 60 * SECOND;
const WEEK: i64 = 7 * 24 * 60;

/// One series, read every `minutes` minutes.
struct Bench {
    engine: Engine,
    minutes: i64,
    readings: i64,
    began: Vec<i64>,
    largest: f64,
}

impl Bench {
    fn new(minutes: i64, anomaly: AnomalySettings) -> Bench {
        let mut engine = Engine::new([StreamSpec { anomaly, ..StreamSpec::default() }]);
        engine.add_series(0);
        Bench { engine, minutes, readings: 0, began: Vec::new(), largest: 0.0 }
    }

    fn feed(&mut self, value: f64) -> f64 {
        let time = Timestamp(self.readings * self.minutes * MINUTE);
        let verdict = self.engine.observe(0, Reading { time, value }, Timestamp(i64::MAX));
        let Verdict::Accepted(outcome) = verdict else { unreachable!("{verdict:?}") };
        assert!((0.0..=1.0).contains(&outcome.score), "{}", outcome.score);
        if outcome.change == Some(Change::Began) {
            self.began.push(self.readings);
        }
        self.readings += 1;
        self.largest = self.largest.max(outcome.score);
        outcome.score
    }

    /// Alarms raised from reading `from` on.
    fn since(&self, from: i64) -> usize {
        self.began.iter().filter(|&&at| at >= from).count()
    }
}

fn gauss(rng: &mut StdRng) -> f64 {
    let (a, b): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

/// Student's t with three degrees of freedom.
fn heavy(rng: &mut StdRng) -> f64 {
    let chi: f64 = (0..3).map(|_| gauss(rng).powi(2)).sum();
    gauss(rng) / (chi / 3.0).sqrt()
}

type Noise = Box<dyn FnMut(i64, &mut StdRng) -> f64>;

/// Kinds of normal data; the first argument is the minute.
fn kinds() -> Vec<(&'static str, Noise)> {
    let mut level = 0.0;
    let mut walk = 0.0;
    let day = |minute: i64| (std::f64::consts::TAU * minute as f64 / 1440.0).sin();
    vec![
        ("gaussian", Box::new(|_, rng| gauss(rng))),
        ("heavy", Box::new(|_, rng| heavy(rng))),
        (
            "ar1",
            Box::new(move |_, rng| {
                level = 0.9 * level + gauss(rng);
                level
            }),
        ),
        ("daily", Box::new(move |minute, rng| 10.0 * day(minute) + gauss(rng))),
        ("rounded", Box::new(move |minute, rng| (20.0 + 3.0 * day(minute) + 0.3 * gauss(rng)).round())),
        ("whole", Box::new(|_, rng| (20.0 + gauss(rng)).round())),
        (
            "walk",
            Box::new(move |_, rng| {
                walk += gauss(rng);
                walk
            }),
        ),
    ]
}

#[test]
fn alarms_on_normal_data_come_at_the_chosen_rate() {
    for (minutes, weeks, per_week) in [(1, 12, 1.0), (5, 26, 1.0), (15, 52, 1.0), (5, 26, 3.0)] {
        for kind in 0..kinds().len() {
            let (name, mut noise) = kinds().swap_remove(kind);
            let mut rng = StdRng::seed_from_u64(7);
            let settings = AnomalySettings { alarms_per_week: per_week, ..AnomalySettings::DEFAULT };
            let mut bench = Bench::new(minutes, settings);
            for reading in 0..weeks * WEEK / minutes {
                bench.feed(noise(reading * minutes, &mut rng));
            }
            let share = bench.began.len() as f64 / (weeks as f64 * per_week);
            println!("{name} every {minutes} min, {per_week} a week: {share:.2} of the chosen rate");
            assert!((0.5..=2.0).contains(&share), "{name} every {minutes} min: {share}");
        }
    }
}

/// When alarms began, counted from the start of an event after 4,000 normal readings, and the largest
/// score since then, for each of some seeds.
fn raised(settings: AnomalySettings, event: impl Fn(i64, f64) -> f64) -> Vec<(Vec<i64>, f64)> {
    (0..12)
        .map(|seed| {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut bench = Bench::new(5, settings);
            for _ in 0..4000 {
                bench.feed(gauss(&mut rng));
            }
            bench.largest = 0.0;
            for i in 0..300 {
                bench.feed(event(i, gauss(&mut rng)));
            }
            (bench.began.iter().map(|at| at - 4000).filter(|at| *at >= 0).collect(), bench.largest)
        })
        .collect()
}

const SELDOM: AnomalySettings = AnomalySettings { alarms_per_week: 0.5, ..AnomalySettings::DEFAULT };

#[track_caller]
fn assert_raised_within(readings: i64, event: impl Fn(i64, f64) -> f64) {
    for (seed, (began, _)) in raised(SELDOM, event).into_iter().enumerate() {
        assert!(began.first().is_some_and(|at| *at < readings), "seed {seed}: {began:?}");
        assert!(began.len() <= 6, "seed {seed}: raised again and again, {began:?}");
    }
}

#[test]
fn a_spike_is_raised_at_once_and_once() {
    for (began, score) in raised(SELDOM, |i, v| if i == 0 { 12.0 } else { v }) {
        assert_eq!(began, [0]);
        assert!(score >= 0.5, "{score}");
    }
}

#[test]
fn a_shifted_level_is_raised() {
    assert_raised_within(8, |_, v| v + 5.0);
}

#[test]
fn a_slow_drift_is_raised() {
    assert_raised_within(150, |i, v| v + i as f64 / 36.0);
}

#[test]
fn agitation_is_raised() {
    assert_raised_within(30, |_, v| 4.0 * v);
}

#[test]
fn a_lively_series_that_freezes_is_raised() {
    // Nothing but its stillness speaks against it, and at one alarm in two weeks that is close.
    let raised = raised(SELDOM, |_, _| 0.3);
    let in_time = raised.iter().filter(|(began, _)| began.first().is_some_and(|at| *at < 150)).count();
    assert!(in_time >= 10, "{raised:?}");
}

#[test]
fn nothing_is_raised_where_nothing_happens() {
    let raised = raised(SELDOM, |_, v| v);
    assert!(raised.iter().filter(|(began, _)| !began.is_empty()).count() <= 2, "{raised:?}");
    assert!(raised.iter().all(|(_, score)| *score < 0.5), "{raised:?}");
}

#[test]
fn direction_and_least_deviation_decide_what_is_raised_and_leave_scores_alone() {
    let spike = |i: i64, v: f64| if i == 0 { 12.0 } else { v };
    let at_spike = |settings| -> Vec<bool> {
        raised(settings, spike).iter().map(|(began, _)| began.contains(&0)).collect()
    };
    let scores = |settings| -> Vec<f64> { raised(settings, spike).iter().map(|r| r.1).collect() };
    let up = AnomalySettings { direction: Direction::Up, ..SELDOM };
    let down = AnomalySettings { direction: Direction::Down, ..SELDOM };
    let far = AnomalySettings { min_deviation: 20.0, ..SELDOM };
    let near = AnomalySettings { min_deviation: 5.0, ..SELDOM };
    for settings in [SELDOM, up, near] {
        assert_eq!(at_spike(settings), [true; 12], "{settings:?}");
    }
    for settings in [down, far] {
        assert_eq!(at_spike(settings), [false; 12], "{settings:?}");
        assert_eq!(scores(settings), scores(SELDOM));
    }
    // A deviation that is never reached raises nothing at all, whatever the tracked bar.
    assert!(raised(far, |_, v| 3.0 * v).iter().all(|(began, _)| began.is_empty()));
}

#[test]
fn nothing_is_raised_during_warm_up_or_at_rate_zero() {
    for settings in [
        AnomalySettings { warm_up: 5000, ..AnomalySettings::DEFAULT },
        AnomalySettings { alarms_per_week: 0.0, ..AnomalySettings::DEFAULT },
    ] {
        for (began, score) in raised(settings, |_, v| v + 50.0) {
            assert!(began.is_empty(), "{began:?}");
            assert!(score >= 0.5, "the score speaks all the same: {score}");
        }
    }
}

#[test]
fn a_constant_scores_nothing_until_it_moves() {
    let mut bench = Bench::new(1, AnomalySettings::DEFAULT);
    for _ in 0..5000 {
        assert_eq!(bench.feed(20.0), 0.0);
    }
    assert!(bench.began.is_empty());
    assert!(bench.feed(21.0) > 0.5);
    assert_eq!(bench.began, [5000]);
    for _ in 0..200 {
        bench.feed(20.0);
    }
    assert_eq!(bench.began, [5000]);
}

#[test]
fn a_value_often_repeated_is_not_abnormal() {
    // A thermostat: on and off for a while each, as it does every day.
    let mut bench = Bench::new(5, AnomalySettings::DEFAULT);
    for reading in 0..26 * WEEK / 5 {
        let score = bench.feed(if (reading / 36) % 3 == 0 { 1.0 } else { 0.0 });
        assert!(reading < 1000 || score < 0.5, "{score} at {reading}");
    }
    assert!(bench.since(1000) <= 26, "{:?}", bench.began);
}

#[test]
fn a_counter_is_not_abnormal_for_counting() {
    let mut rng = StdRng::seed_from_u64(3);
    let mut bench = Bench::new(5, AnomalySettings::DEFAULT);
    let mut count = 1e6;
    for reading in 0..26 * WEEK / 5 {
        count += 10.0 + rng.random::<f64>() * 5.0;
        let score = bench.feed(count);
        assert!(reading < 500 || score < 0.5, "{score} at {reading}");
    }
    assert!(bench.since(0) <= 52, "{:?}", bench.began);
}

#[test]
fn any_finite_reading_has_a_score() {
    let mut rng = StdRng::seed_from_u64(5);
    let wild = [0.0, -0.0, 1e300, -1e300, 1e-300, f64::MIN_POSITIVE, 5e-324, 1.0, -1.0, 1e15];
    for mean_run in [1, 3, 50] {
        let mut bench = Bench::new(1, AnomalySettings::DEFAULT);
        let mut value = 0.0;
        for _ in 0..20_000 {
            if rng.random_range(0..mean_run) == 0 {
                value = wild[rng.random_range(0..wild.len())];
            }
            bench.feed(value);
        }
    }
}

#[test]
fn a_state_read_back_goes_on_as_the_one_written() {
    let mut rng = StdRng::seed_from_u64(9);
    let mut detector = Detector::default();
    for _ in 0..1000 {
        detector.observe(heavy(&mut rng), Some(&[-2.0, -1.5, -0.7, 0.0, 0.7, 1.5, 2.0]));
    }
    let written = postcard::to_stdvec(&detector).unwrap();
    let mut read: Detector = postcard::from_bytes(&written).unwrap();
    assert_eq!(read, detector);
    assert_eq!(read.observe(9.0, None), detector.observe(9.0, None));
}
