//! The dfdx network against PyTorch 2.15: outputs, hidden state, loss and gradients of a two-layer
//! LSTM. The values are what `tests/parity/lstm.py` prints.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::excessive_precision, reason = "as PyTorch prints them")]

use forecaster::cell::{Batch, Lstm};
use forecaster::kernel::{Network, Scratch};
use forecaster::weights::{Sizes, Weights};

const SIZES: Sizes = Sizes { inputs: 3, hidden: 4, layers: 2 };
const STEPS: usize = 5;

const OUTPUTS: [[f32; 7]; STEPS] = [
    [0.090851612, 0.795085073, 0.867626429, 0.250663131, -0.837495744, -0.949139476, -0.217399746],
    [0.183969527, 0.758057892, 0.822913647, 0.346142709, -0.917602181, -0.939896882, -0.149375990],
    [0.247256249, 0.722845614, 0.805659413, 0.403911114, -0.975867927, -0.921495259, -0.115166470],
    [0.293827683, 0.696790993, 0.793148875, 0.446320653, -1.018798828, -0.907781839, -0.090163007],
    [0.330734640, 0.662290573, 0.801343918, 0.470107853, -1.058090568, -0.880203426, -0.086924165],
];
const HIDDEN_0: [f32; 4] = [0.184846237, 0.022769077, 0.170889616, -0.051458888];
const HIDDEN_1: [f32; 4] = [0.149063274, -0.311387837, -0.098176196, 0.050632901];
const LOSS: f32 = 0.568337381;
/// Name, sum, first, last, norm.
const GRADIENTS: [(&str, f32, f32, f32, f32); 10] = [
    ("rnn.weight_ih_l0", 0.001169459, -0.000003541, -0.000086245, 0.003593336),
    ("rnn.weight_hh_l0", -0.001633845, 0.000002190, -0.000032267, 0.000665004),
    ("rnn.bias_ih_l0", -0.014153218, -0.000050276, -0.000098599, 0.008112901),
    ("rnn.bias_hh_l0", -0.014153218, -0.000050276, -0.000098599, 0.008112901),
    ("rnn.weight_ih_l1", 0.002545465, -0.000084904, -0.000045060, 0.004203323),
    ("rnn.weight_hh_l1", -0.004026374, -0.000070447, 0.000013979, 0.006229472),
    ("rnn.bias_ih_l1", 0.024308348, -0.001168934, 0.000571550, 0.047939993),
    ("rnn.bias_hh_l1", 0.024308348, -0.001168934, 0.000571550, 0.047939993),
    ("head.weight", 0.068903655, -0.001253214, -0.002453430, 0.051095683),
    ("head.bias", -0.328571379, 0.021428574, -0.135714278, 0.225876957),
];

fn weights() -> Weights {
    let mut weights = Weights::random(SIZES, 0);
    for (n, w) in weights.tensors_mut().flatten().enumerate() {
        *w = ((n + 1) as f64).sin() as f32;
    }
    weights
}

fn inputs() -> Vec<f32> {
    (0..STEPS * SIZES.inputs).map(|i| (i as f64).cos() as f32).collect()
}

fn close(found: f32, expected: f32, tolerance: f32) {
    assert!((found - expected).abs() <= tolerance, "found {found}, PyTorch says {expected}");
}

#[test]
fn outputs_and_hidden_state() {
    let (weights, inputs) = (weights(), inputs());
    let (lstm, network) = (Lstm::new(&weights), Network::new(&weights));
    let (mut slow, mut fast, mut scratch) = (lstm.zero_state(1), network.zero_state(), Scratch::default());
    for (input, expected) in inputs.chunks(SIZES.inputs).zip(OUTPUTS) {
        let dfdx = lstm.step(input, &mut slow);
        let fused = network.step(input, &mut fast, &mut scratch);
        for i in 0..7 {
            close(dfdx[i], expected[i], 1e-5);
            close(fused[i], expected[i], 1e-5);
        }
    }
    for (layer, expected) in [HIDDEN_0, HIDDEN_1].into_iter().enumerate() {
        let (dfdx, fused) = (Lstm::output(&slow, layer), fast.output(layer, SIZES.hidden));
        for i in 0..SIZES.hidden {
            close(dfdx[i], expected[i], 1e-5);
            close(fused[i], expected[i], 1e-5);
        }
    }
}

#[test]
fn loss_and_gradients() {
    let batch = Batch {
        steps: STEPS,
        batch: 1,
        inputs: inputs(),
        targets: (0..STEPS).map(|i| (i as f64 / 2.0).sin() as f32).collect(),
        mask: vec![1.0; STEPS],
    };
    let weights = weights();
    let (loss, gradients) = Lstm::new(&weights).loss_and_gradients(&batch);
    close(loss, LOSS, 1e-6);
    let names = weights.named().map(|(name, _, _)| name);
    for ((name, found), (expected_name, sum, first, last, norm)) in names.zip(gradients).zip(GRADIENTS) {
        assert_eq!(name, expected_name);
        close(found.iter().sum(), sum, 1e-5);
        close(*found.first().unwrap(), first, 1e-6);
        close(*found.last().unwrap(), last, 1e-6);
        close(found.iter().map(|g| g * g).sum::<f32>().sqrt(), norm, 1e-6);
    }
}

#[test]
fn a_masked_row_weighs_nothing() {
    let rows =
        |targets: Vec<f32>, mask: Vec<f32>| Batch { steps: STEPS, batch: 1, inputs: inputs(), targets, mask };
    let lstm = Lstm::new(&weights());
    let mask = vec![1.0, 0.0, 1.0, 0.0, 1.0];
    let one = lstm.loss_and_gradients(&rows(vec![0.1, 9.0, 0.3, -9.0, 0.5], mask.clone()));
    let other = lstm.loss_and_gradients(&rows(vec![0.1, 0.0, 0.3, 7.0, 0.5], mask));
    assert_eq!(one, other);
}
