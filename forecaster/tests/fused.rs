//! The fused forward and backward pass of training against dfdx, operation by operation.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use forecaster::cell::{Batch, Pass, Recurrent};
use forecaster::weights::{Cell, Sizes, Weights};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Of the loss.
const LOSS: f32 = 1e-5;

/// Of a gradient's norm: sums in another order, and a target that lies on a quantile.
fn gradient_tolerance(cell: Cell) -> f32 {
    // A relu unit on its kink counts whole in one pass and not at all in the other.
    if cell == Cell::Relu { 2e-2 } else { 5e-5 }
}

fn batch(sizes: Sizes, (steps, batch): (usize, usize), seed: u64) -> Batch {
    let mut rng = StdRng::seed_from_u64(seed);
    let rows = steps * batch;
    let mut draw =
        |n: usize, bound: f32| (0..n).map(|_| rng.random_range(-bound..bound)).collect::<Vec<f32>>();
    let mask = draw(rows, 1.0).into_iter().map(|m| if m < -0.5 { 0.0 } else { 1.0 }).collect();
    Batch { steps, batch, inputs: draw(rows * sizes.inputs, 2.0), targets: draw(rows, 1.0), mask }
}

fn norm(values: &[f32]) -> f32 {
    values.iter().map(|v| v * v).sum::<f32>().sqrt()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn loss_and_gradients_equal_dfdx(
        cell in prop::sample::select(&Cell::ALL),
        inputs in 1_usize..40,
        hidden in 1_usize..40,
        layers in 1_usize..4,
        steps in 1_usize..70,
        sequences in 1_usize..40,
        seed in 0_u64..1_000_000,
    ) {
        let sizes = Sizes { cell, inputs, hidden, layers };
        let weights = Weights::random(sizes, seed);
        let network = Recurrent::new(&weights);
        let batch = batch(sizes, (steps, sequences), seed + 1);
        let (loss, expected) = network.loss_and_gradients(&batch, Pass::Plain);
        let (fused_loss, found) = network.loss_and_gradients(&batch, Pass::Fused(1));
        prop_assert!((loss - fused_loss).abs() <= LOSS * loss);
        for ((name, _, _), (expected, found)) in weights.named().zip(expected.iter().zip(&found)) {
            prop_assert_eq!(expected.len(), found.len());
            let apart: Vec<f32> = expected.iter().zip(found).map(|(a, b)| a - b).collect();
            let (apart, size) = (norm(&apart), norm(expected));
            prop_assert!(apart <= gradient_tolerance(cell) * size.max(1e-3), "{}: {} of {}", name, apart, size);
        }
        for threads in [2, 3, 8] {
            prop_assert!(network.loss_and_gradients(&batch, Pass::Fused(threads)) == (fused_loss, found.clone()));
        }
    }
}
