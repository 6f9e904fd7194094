//! What is raised, what is not, and how often.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use forecaster::anomaly::{AnomalySettings, Change};
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
        let mut engine = Engine::new([StreamSpec { interval: None, horizon: 1, anomaly }]);
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
            let rate = bench.began.len() as f64 / weeks as f64 / per_week;
            println!(
                "{name} every {minutes} min, {per_week} a week: {rate:.2} of it, halves {} {}",
                bench.began.len() - bench.since(weeks * WEEK / minutes / 2),
                bench.since(weeks * WEEK / minutes / 2)
            );
        }
    }
}

#[test]
fn probe() {
    let mut second = 0.0;
    let events: Vec<(&str, Box<dyn FnMut(i64, f64) -> f64>)> = vec![
        ("spike", Box::new(|i, v| if i == 0 { v + 12.0 } else { v })),
        ("shift", Box::new(|_, v| v + 5.0)),
        ("ramp", Box::new(|i, v| v + 8.0 * (i as f64 / 300.0).min(1.0))),
        ("agitation", Box::new(|_, v| 4.0 * v)),
        (
            "flat",
            Box::new(move |i, v| {
                if i == 0 {
                    second = v
                }
                second
            }),
        ),
        ("none", Box::new(|_, v| v)),
    ];
    for (name, mut event) in events {
        let mut found = Vec::new();
        let mut scores = Vec::new();
        for seed in 0..12 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut bench =
                Bench::new(5, AnomalySettings { alarms_per_week: 0.5, ..AnomalySettings::DEFAULT });
            for _ in 0..4000 {
                bench.feed(gauss(&mut rng));
            }
            bench.largest = 0.0;
            for i in 0..300 {
                bench.feed(event(i, gauss(&mut rng)));
            }
            let at: Vec<i64> = bench.began.iter().filter(|a| **a >= 4000).map(|a| a - 4000).collect();
            found.push(at);
            scores.push((bench.largest * 100.0).round());
        }
        println!("{name}: {found:?} {scores:?}");
    }
}
