//! The parameters of a recurrent network, in PyTorch's layout and under PyTorch's names.
//!
//! `rnn.weight_ih_l{k}` is (4·hidden × inputs), `rnn.weight_hh_l{k}` (4·hidden × hidden), both
//! row-major with the gates in the order input, forget, cell, output; `head.weight` is
//! (7 × hidden) and gives one row to each level of [`LEVELS`](crate::LEVELS).

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Outputs of the head: one a quantile level.
pub const OUTPUTS: usize = 7;
/// Gates of an LSTM cell.
pub const GATES: usize = 4;

/// Sizes of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Inputs of the first layer.
    pub inputs: usize,
    /// Hidden units of each layer.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
}

impl Sizes {
    /// Inputs of a layer.
    #[must_use]
    pub fn inputs_of(&self, layer: usize) -> usize {
        if layer == 0 { self.inputs } else { self.hidden }
    }
}

/// Parameters of one LSTM layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Input weights, (4·hidden × inputs).
    pub weight_ih: Vec<f32>,
    /// Recurrent weights, (4·hidden × hidden).
    pub weight_hh: Vec<f32>,
    /// Input bias, 4·hidden.
    pub bias_ih: Vec<f32>,
    /// Recurrent bias, 4·hidden.
    pub bias_hh: Vec<f32>,
}

/// All parameters of a network.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    /// Sizes.
    pub sizes: Sizes,
    /// Layers from the input up.
    pub layers: Vec<Layer>,
    /// Head weights, (7 × hidden).
    pub head_weight: Vec<f32>,
    /// Head bias, 7.
    pub head_bias: Vec<f32>,
}

impl Weights {
    /// Fresh parameters as PyTorch draws them: uniform in ±1/√hidden.
    #[must_use]
    pub fn random(sizes: Sizes, seed: u64) -> Weights {
        let mut rng = StdRng::seed_from_u64(seed);
        let bound = 1.0 / (sizes.hidden as f32).sqrt();
        let mut draw = |n: usize| (0..n).map(|_| rng.random_range(-bound..bound)).collect::<Vec<f32>>();
        let rows = GATES * sizes.hidden;
        let layers = (0..sizes.layers)
            .map(|k| Layer {
                weight_ih: draw(rows * sizes.inputs_of(k)),
                weight_hh: draw(rows * sizes.hidden),
                bias_ih: draw(rows),
                bias_hh: draw(rows),
            })
            .collect();
        Weights { sizes, layers, head_weight: draw(OUTPUTS * sizes.hidden), head_bias: draw(OUTPUTS) }
    }

    /// Every parameter with its PyTorch name and shape, in a fixed order.
    pub fn named(&self) -> impl Iterator<Item = (String, Vec<usize>, &Vec<f32>)> {
        self.shapes().into_iter().zip(self.tensors()).map(|((name, shape), values)| (name, shape, values))
    }

    /// PyTorch's names and the shapes of all parameters.
    pub(crate) fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        let (hidden, rows) = (self.sizes.hidden, GATES * self.sizes.hidden);
        (0..self.sizes.layers)
            .flat_map(|k| {
                [
                    (format!("rnn.weight_ih_l{k}"), vec![rows, self.sizes.inputs_of(k)]),
                    (format!("rnn.weight_hh_l{k}"), vec![rows, hidden]),
                    (format!("rnn.bias_ih_l{k}"), vec![rows]),
                    (format!("rnn.bias_hh_l{k}"), vec![rows]),
                ]
            })
            .chain([("head.weight".into(), vec![OUTPUTS, hidden]), ("head.bias".into(), vec![OUTPUTS])])
            .collect()
    }

    fn tensors(&self) -> impl Iterator<Item = &Vec<f32>> {
        self.layers
            .iter()
            .flat_map(|l| [&l.weight_ih, &l.weight_hh, &l.bias_ih, &l.bias_hh])
            .chain([&self.head_weight, &self.head_bias])
    }

    /// The same parameters, to change, in the order of [`Weights::named`].
    pub fn tensors_mut(&mut self) -> impl Iterator<Item = &mut Vec<f32>> {
        self.layers
            .iter_mut()
            .flat_map(|l| [&mut l.weight_ih, &mut l.weight_hh, &mut l.bias_ih, &mut l.bias_hh])
            .chain([&mut self.head_weight, &mut self.head_bias])
    }
}
