//! The cells against PyTorch: outputs, final hidden states and gradients of parameters and inputs, by dfdx
//! operation by operation, by the fused pass of training, and (forward) by the streaming kernel.
//!
//! The reference values are made by `tests/peers/parity.py` and stored in `data/parity.safetensors`;
//! `tests/parity SEED` makes fresh ones and names their file in `VIDENTE_PARITY`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;

use dfdx::prelude::*;
use forecaster::cell::{Batch, Cube, Pass, Recurrent};
use forecaster::kernel::{Network, Scratch};
use forecaster::weights::{Cell, Sizes, Weights};
use safetensors::SafeTensors;
use serde::Deserialize;

const TOLERANCE: f32 = 1e-5;

#[derive(Debug, Deserialize)]
struct About {
    cell: String,
    nonlinearity: Option<String>,
    inputs: usize,
    hidden: usize,
    layers: usize,
    batch: usize,
    steps: usize,
}

struct Case {
    about: About,
    weights: Weights,
    tensors: HashMap<String, (Vec<usize>, Vec<f32>)>,
}

fn cases() -> Vec<Case> {
    let stored = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/parity.safetensors");
    let path = std::env::var("VIDENTE_PARITY").unwrap_or_else(|_| stored.to_owned());
    let bytes = std::fs::read(&path).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = metadata.metadata().clone().unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let abouts = (0..).map_while(|n: usize| metadata.get(&n.to_string()));
    let cases: Vec<Case> =
        abouts.enumerate().map(|(n, about)| case(&file, n, serde_json::from_str(about).unwrap())).collect();
    println!("{} cases of PyTorch {}, seed {}", cases.len(), metadata["torch"], metadata["seed"]);
    for cell in Cell::ALL {
        for layers in [1, 2] {
            let there = |c: &&Case| c.weights.sizes.cell == cell && c.about.layers == layers;
            assert!(cases.iter().any(|c| there(&c)), "no {cell:?} of {layers} layers");
        }
    }
    cases
}

fn case(file: &SafeTensors<'_>, n: usize, about: About) -> Case {
    let prefix = format!("{n}.");
    let tensors = file.tensors().into_iter().filter_map(|(name, view)| {
        let values = view.data().as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect();
        Some((name.strip_prefix(&prefix)?.to_owned(), (view.shape().to_vec(), values)))
    });
    let tensors: HashMap<String, (Vec<usize>, Vec<f32>)> = tensors.collect();
    let sizes = Sizes {
        cell: Cell::named(&about.cell, about.nonlinearity.as_deref()).unwrap(),
        inputs: about.inputs,
        hidden: about.hidden,
        layers: about.layers,
    };
    let mut weights = Weights::random(sizes, 0);
    let names: Vec<_> = weights.named().map(|(name, shape, _)| (name, shape)).collect();
    for ((name, shape), into) in names.into_iter().zip(weights.tensors_mut()) {
        let (stored_shape, values) = &tensors[&name];
        assert_eq!((stored_shape, values.len()), (&shape, into.len()), "{name}");
        into.clone_from(values);
    }
    Case { about, weights, tensors }
}

impl Case {
    fn values(&self, name: &str) -> &[f32] {
        &self.tensors[name].1
    }

    fn shape(&self) -> (usize, usize, usize) {
        (self.about.batch, self.about.steps, self.about.inputs)
    }

    fn close(&self, what: &str, found: &[f32], name: &str) {
        let expected = self.values(name);
        assert_eq!(found.len(), expected.len(), "{what}, {name} of {:?}", self.about);
        for (found, expected) in found.iter().zip(expected) {
            let apart = (found - expected).abs();
            assert!(apart <= TOLERANCE, "{what}, {name} of {:?}: {found}, not {expected}", self.about);
        }
    }

    /// Gradients of all parameters that the loss reaches.
    fn gradients_close(&self, what: &str, found: &[Vec<f32>], prefix: &str) {
        for ((name, _, _), found) in self.weights.named().zip(found) {
            let name = format!("{prefix}.{name}");
            if self.tensors.contains_key(&name) {
                self.close(what, found, &name);
            } else {
                assert!(found.iter().all(|g| *g == 0.0), "{what}, {name} of {:?}", self.about);
            }
        }
    }

    /// A tensor of the file, in rows of sequence and then step, in rows of step and then sequence.
    fn time_major(&self, name: &str) -> Vec<f32> {
        let (batch, steps, _) = self.shape();
        let values = self.values(name);
        let width = values.len() / batch / steps;
        let row = |step, sequence| &values[(sequence * steps + step) * width..][..width];
        (0..steps).flat_map(|step| (0..batch).flat_map(move |s| row(step, s))).copied().collect()
    }
}

#[test]
fn the_shapes_are_those_of_pytorch() {
    let sizes = Sizes { cell: Cell::Tanh, inputs: 10, hidden: 20, layers: 1 };
    let device = Cpu::default();
    let unrolled =
        Recurrent::new(&Weights::random(sizes, 1)).forward::<NoneTape>(device.zeros_like(&(1, 5, 10)));
    assert_eq!((*unrolled.outputs.shape(), *unrolled.h.shape()), ((1, 5, 20), (1, 1, 20)));
    assert!(unrolled.c.is_none());
    let listed = cases().iter().any(|c| {
        let shape = |name: &str| c.tensors[name].0.clone();
        c.about.cell == "rnn" && shape("outputs") == [1, 5, 20] && shape("h") == [1, 1, 20]
    });
    assert!(listed, "RNN(10, 20) on (1, 5, 10) is missing");
}

#[test]
fn dfdx_operation_by_operation() {
    let device = Cpu::default();
    for case in cases() {
        let network = Recurrent::new(&case.weights);
        let x: Cube = device.tensor_from_vec(case.values("x").to_vec(), case.shape());
        let unrolled = network.forward(x.leaky_trace());
        case.close("dfdx", &unrolled.outputs.as_vec(), "outputs");
        case.close("dfdx", &unrolled.h.as_vec(), "h");
        assert_eq!(unrolled.c.is_some(), case.tensors.contains_key("c"));
        if let Some(c) = &unrolled.c {
            case.close("dfdx", &c.as_vec(), "c");
        }
        let shape = *unrolled.outputs.shape();
        let factors: Cube = device.tensor_from_vec(case.values("factors").to_vec(), shape);
        let mut gradients = (unrolled.outputs * factors).sum::<Rank0, _>().backward();
        case.close("dfdx", &gradients.get(&x).as_vec(), "gradient.x");
        case.gradients_close("dfdx", &network.collect(&mut gradients), "gradient");
    }
}

#[test]
fn the_fused_pass() {
    let device = Cpu::default();
    for case in cases() {
        let network = Recurrent::new(&case.weights);
        let (batch, steps, inputs) = case.shape();
        let x: Cube = device.tensor_from_vec(case.values("x").to_vec(), (batch, steps, inputs));
        let turned = x.leaky_trace().permute::<_, Axes3<1, 0, 2>>().reshape_like(&(steps, batch, inputs));
        let fused = network.fused(turned, true, 2);
        let outputs = fused.outputs.as_vec();
        let expected = case.time_major("outputs");
        assert_eq!(outputs.len(), expected.len());
        assert!(outputs.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= TOLERANCE), "{:?}", case.about);
        case.close("fused", &fused.h, "h");
        assert_eq!(fused.c.is_empty(), !case.tensors.contains_key("c"));
        if !fused.c.is_empty() {
            case.close("fused", &fused.c, "c");
        }
        let factors = device.tensor_from_vec(case.time_major("factors"), *fused.outputs.shape());
        let mut gradients = (fused.outputs * factors).sum::<Rank0, _>().backward();
        case.close("fused", &gradients.get(&x).as_vec(), "gradient.x");
        case.gradients_close("fused", &network.collect(&mut gradients), "gradient");
    }
}

#[test]
fn the_pinball_loss_of_the_head() {
    for case in cases() {
        let (batch, steps, _) = case.shape();
        let rows = Batch {
            steps,
            batch,
            inputs: case.time_major("x"),
            targets: case.time_major("targets"),
            mask: vec![1.0; steps * batch],
        };
        for pass in [Pass::Plain, Pass::Fused(1)] {
            let (loss, gradients) = Recurrent::new(&case.weights).loss_and_gradients(&rows, pass);
            case.close("loss", &[loss], "loss");
            case.gradients_close("loss", &gradients, "loss_gradient");
        }
    }
}

#[test]
fn the_streaming_kernel() {
    for case in cases() {
        let (_, steps, inputs) = case.shape();
        let About { hidden, layers, batch, .. } = case.about;
        let network = Network::new(&case.weights);
        let mut scratch = Scratch::default();
        let (mut quantiles, mut outputs, mut h) =
            (Vec::new(), Vec::new(), vec![0.0; layers * batch * hidden]);
        for (sequence, x) in case.values("x").chunks_exact(steps * inputs).enumerate() {
            let mut state = network.zero_state();
            for x in x.chunks_exact(inputs) {
                quantiles.extend(network.step(x, &mut state, &mut scratch));
                outputs.extend_from_slice(state.output(layers - 1, hidden));
            }
            for layer in 0..layers {
                h[(layer * batch + sequence) * hidden..][..hidden]
                    .copy_from_slice(state.output(layer, hidden));
            }
        }
        case.close("kernel", &quantiles, "quantiles");
        case.close("kernel", &outputs, "outputs");
        case.close("kernel", &h, "h");
    }
}

#[test]
fn a_masked_row_weighs_nothing() {
    let sizes = Sizes { cell: Cell::Lstm, inputs: 3, hidden: 4, layers: 2 };
    let inputs: Vec<f32> = (0..15).map(|i| (i as f64).cos() as f32).collect();
    let rows = |targets: [f32; 5]| Batch {
        steps: 5,
        batch: 1,
        inputs: inputs.clone(),
        targets: targets.to_vec(),
        mask: vec![1.0, 0.0, 1.0, 0.0, 1.0],
    };
    let network = Recurrent::new(&Weights::random(sizes, 1));
    for pass in [Pass::Plain, Pass::Fused(1)] {
        let one = network.loss_and_gradients(&rows([0.1, 9.0, 0.3, -9.0, 0.5]), pass);
        let other = network.loss_and_gradients(&rows([0.1, 0.0, 0.3, 7.0, 0.5]), pass);
        assert_eq!(one, other);
    }
}
