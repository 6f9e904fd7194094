//! One step of the LSTM: fused against plain dfdx, and fused over very many series.
//!
//! The dfdx side is honest: modules built once, no tape, no weights copied per step.

use std::hint::black_box;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use forecaster::cell::Recurrent;
use forecaster::kernel::{Isa, Network, Scratch};
use forecaster::train::{TrainConfig, TrainingSet, train};
use forecaster::weights::{Cell, Sizes, Weights};
use forecaster::{Engine, Reading, SECOND, StreamSpec, Timestamp};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

const SIZES: Sizes = Sizes { cell: Cell::Lstm, inputs: 4, hidden: 32, layers: 1 };

fn steps(c: &mut Criterion) {
    let weights = Weights::random(SIZES, 1);
    let input = [0.3, -0.7, 1.1, 0.2];
    let mut group = c.benchmark_group("lstm_4_32");
    group.bench_function("dfdx/batch_1", |b| {
        let lstm = Recurrent::new(&weights);
        let mut state = lstm.zero_state(1);
        b.iter(|| lstm.step(black_box(&input), &mut state));
    });
    for isa in [Isa::detect(), Isa::Portable] {
        group.bench_function(format!("fused/{isa:?}"), |b| {
            let network = Network::with_isa(&weights, isa);
            let (mut state, mut scratch) = (network.zero_state(), Scratch::default());
            b.iter(|| network.step(black_box(&input), &mut state, &mut scratch));
        });
    }
    group.bench_function("fused/100000_series_random_order", |b| {
        let network = Network::new(&weights);
        let mut states = vec![network.zero_state(); 100_000];
        let mut order: Vec<usize> = (0..states.len()).collect();
        order.shuffle(&mut StdRng::seed_from_u64(2));
        let (mut scratch, mut next) = (Scratch::default(), order.iter().cycle());
        b.iter(|| {
            if let Some(&at) = next.next() {
                black_box(network.step(black_box(&input), &mut states[at], &mut scratch));
            }
        });
    });
    group.finish();
}

/// Prints the ratio of the two in one run, alternating, so that both meet the same machine.
fn ratio(_: &mut Criterion) {
    const ROUNDS: usize = 15;
    const STEPS: u32 = 20_000;
    let weights = Weights::random(SIZES, 1);
    let (lstm, network) = (Recurrent::new(&weights), Network::new(&weights));
    let (mut slow, mut fast, mut scratch) = (lstm.zero_state(1), network.zero_state(), Scratch::default());
    let input = [0.3, -0.7, 1.1, 0.2];
    let mut times: Vec<(Duration, Duration)> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..STEPS {
                black_box(lstm.step(black_box(&input), &mut slow));
            }
            let dfdx = start.elapsed() / STEPS;
            let start = Instant::now();
            for _ in 0..STEPS {
                black_box(network.step(black_box(&input), &mut fast, &mut scratch));
            }
            (dfdx, start.elapsed() / STEPS)
        })
        .collect();
    times.sort_by_key(|(d, f)| d.as_nanos() * 1_000_000 / f.as_nanos().max(1));
    let (dfdx, fused) = times[ROUNDS / 2];
    let ratio = dfdx.as_secs_f64() / fused.as_secs_f64();
    println!(
        "LSTM(4→32) step, batch 1: dfdx {dfdx:?}, fused {fused:?}, ratio {ratio:.1} (median of {ROUNDS} rounds)"
    );
}

/// A model as training makes it, of two networks and a forest, though of few updates.
fn trained() -> forecaster::Model {
    let mut rng = StdRng::seed_from_u64(3);
    let mut set = TrainingSet::default();
    for _ in 0..4 {
        let mut value = 0.0;
        let readings: Vec<Reading> = (0..4000)
            .map(|i| {
                value = 0.8 * value + rng.random_range(-1.0..1.0) + (f64::from(i) / 30.0).sin();
                Reading { time: Timestamp(i64::from(i) * SECOND), value }
            })
            .collect();
        set.add(&readings, None);
    }
    let config = TrainConfig { max_updates: 120, ..TrainConfig::default() };
    match train(&set, &config, |_| ControlFlow::Continue(())) {
        Ok((model, _)) => model,
        Err(error) => unreachable!("{error}"),
    }
}

/// The engine's whole step of a reading: verdict, experts, features, models, aggregation, calibration,
/// forecast, score.
fn engine(c: &mut Criterion) {
    let mut group = c.benchmark_group("engine");
    let model = Arc::new(trained());
    println!("{} trees", model.forest().map_or(0, forecaster::trees::Forest::trees));
    for (name, with_model, series) in
        [("experts", false, 1), ("all", true, 1), ("all_1000_series", true, 1000)]
    {
        group.bench_function(name, |b| {
            let mut engine =
                Engine::new([StreamSpec { interval: Some(SECOND), horizon: 1, ..StreamSpec::default() }]);
            if with_model {
                let model = model.clone();
                engine
                    .set_model(0, forecaster::Installed { id: 1, name: "bench-1".into(), version: 1, model });
            }
            let handles: Vec<_> = (0..series).map(|_| engine.add_series(0)).collect();
            let mut rng = StdRng::seed_from_u64(5);
            let (mut turn, mut value) = (0_usize, 20.0);
            b.iter(|| {
                let time = Timestamp((turn / series) as i64 * SECOND);
                value += rng.random_range(-0.1..0.1);
                let verdict = engine.observe(handles[turn % series], Reading { time, value }, time);
                turn += 1;
                black_box((verdict, engine.steps().len()))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, steps, ratio, engine);
criterion_main!(benches);
