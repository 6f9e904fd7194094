//! The streaming kernel against the dfdx network, on every code path this processor has.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use forecaster::cell::Recurrent;
use forecaster::kernel::{Isa, Network, Scratch};
use forecaster::weights::{Cell, Sizes, Weights};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::StdRng};

const TOLERANCE: f32 = 1e-5;

/// No sum of a row's recurrent weights is larger, so that units without an upper bound (relu) stay bounded, and
/// with them the rounding that goes round.
const LOOP: f32 = 0.9;

fn weights(sizes: Sizes, seed: u64, gain: f32) -> Weights {
    let mut weights = Weights::random(sizes, seed);
    weights.tensors_mut().flatten().for_each(|w| *w *= gain);
    if sizes.cell == Cell::Relu {
        for row in weights.layers.iter_mut().flat_map(|l| l.weight_hh.chunks_exact_mut(sizes.hidden)) {
            let sum: f32 = row.iter().map(|w| w.abs()).sum();
            row.iter_mut().for_each(|w| *w *= LOOP / sum.max(LOOP));
        }
    }
    weights
}

/// The largest difference, against the largest value of the layer where that is above 1.
fn difference(expected: &[f32], found: &[f32]) -> f32 {
    let size = expected.iter().fold(1.0_f32, |size, v| size.max(v.abs()));
    expected.iter().zip(found).map(|(a, b)| (a - b).abs() / size).fold(0.0, f32::max)
}

fn compare(sizes: Sizes, seed: u64, gain: f32, isa: Isa, steps: usize) -> f32 {
    let weights = weights(sizes, seed, gain);
    let (reference, network) = (Recurrent::new(&weights), Network::with_isa(&weights, isa));
    let (mut slow, mut fast) = (reference.zero_state(1), network.zero_state());
    let mut scratch = Scratch::default();
    let mut rng = StdRng::seed_from_u64(seed + 1);
    let mut worst: f32 = 0.0;
    for _ in 0..steps {
        let input: Vec<f32> = (0..sizes.inputs).map(|_| rng.random_range(-3.0..3.0)).collect();
        let expected = reference.step(&input, &mut slow);
        let found = network.step(&input, &mut fast, &mut scratch);
        worst = worst.max(difference(&expected, &found));
        for layer in 0..sizes.layers {
            let outputs = Recurrent::output(&slow, layer);
            worst = worst.max(difference(&outputs, fast.output(layer, sizes.hidden)));
        }
    }
    worst
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn equals_dfdx_over_a_thousand_steps(
        cell in prop::sample::select(&Cell::ALL),
        inputs in 1_usize..12,
        hidden in 1_usize..50,
        layers in 1_usize..4,
        seed in 0_u64..1_000_000,
        gain in 0.2_f32..1.5,
    ) {
        let sizes = Sizes { cell, inputs, hidden, layers };
        for isa in [Isa::detect(), Isa::Portable] {
            let worst = compare(sizes, seed, gain, isa, 1000);
            prop_assert!(worst <= TOLERANCE, "{isa:?}: differs by {worst}");
        }
    }
}

#[test]
fn saturated_gates_stay_finite_and_equal() {
    for cell in [Cell::Lstm, Cell::Gru, Cell::Tanh] {
        let sizes = Sizes { cell, inputs: 3, hidden: 8, layers: 1 };
        saturated(sizes);
    }
}

fn saturated(sizes: Sizes) {
    let mut weights = Weights::random(sizes, 3);
    weights.tensors_mut().take(4).flatten().for_each(|w| *w *= 100.0);
    let network = Network::new(&weights);
    let (mut state, mut scratch) = (network.zero_state(), Scratch::default());
    let reference = Recurrent::new(&weights);
    let mut slow = reference.zero_state(1);
    for input in [[1e6, -1e6, 0.0], [f32::MAX, 0.0, -1.0], [-1e30, 1e30, 5.0]] {
        let found = network.step(&input, &mut state, &mut scratch);
        assert!(found.iter().all(|x| x.is_finite()));
        if input[0].abs() < 1e7 {
            let expected = reference.step(&input, &mut slow);
            assert!(expected.iter().zip(found).all(|(a, b)| (a - b).abs() < TOLERANCE));
        }
    }
}

#[test]
fn a_batch_is_as_many_single_sequences() {
    Cell::ALL.into_iter().for_each(batched);
}

fn batched(cell: Cell) {
    let sizes = Sizes { cell, inputs: 4, hidden: 32, layers: 2 };
    let weights = Weights::random(sizes, 9);
    let network = Recurrent::new(&weights);
    let mut together = network.zero_state(3);
    let mut alone: Vec<_> = (0..3).map(|_| network.zero_state(1)).collect();
    for step in 0..20 {
        let inputs: Vec<f32> = (0..12).map(|i| ((i * 7 + step * 3) % 11) as f32 / 5.0 - 1.0).collect();
        let batch = network.step(&inputs, &mut together);
        for (i, state) in alone.iter_mut().enumerate() {
            let single = network.step(&inputs[i * 4..(i + 1) * 4], state);
            for (a, b) in single.iter().zip(&batch[i * 7..]) {
                assert!((a - b).abs() < 1e-6);
            }
        }
    }
}
