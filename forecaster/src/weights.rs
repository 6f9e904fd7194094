//! The parameters of a recurrent network, in PyTorch's layout and under PyTorch's names.
//!
//! With g gates (4 in an LSTM, 3 in a GRU, 1 in an Elman network), `rnn.weight_ih_l{k}` is
//! (g·hidden × inputs), `rnn.weight_hh_l{k}` (g·hidden × hidden), `rnn.bias_ih_l{k}` and
//! `rnn.bias_hh_l{k}` g·hidden, all row-major with the gates in PyTorch's order: input, forget, cell,
//! output for an LSTM; reset, update, new for a GRU. `head.weight` is (7 × hidden) and gives one row to
//! each level of [`LEVELS`](crate::LEVELS).

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Outputs of the head: one a quantile level.
pub const OUTPUTS: usize = 7;

/// Kinds of recurrent cell; the equations stand in [`crate::cell`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cell {
    /// `torch.nn.LSTM`.
    #[default]
    Lstm,
    /// `torch.nn.GRU`.
    Gru,
    /// `torch.nn.RNN` with tanh.
    Tanh,
    /// `torch.nn.RNN` with relu.
    Relu,
}

impl Cell {
    /// All kinds.
    pub const ALL: [Cell; 4] = [Cell::Lstm, Cell::Gru, Cell::Tanh, Cell::Relu];

    /// Gates, each of which has a block of `hidden` rows in every parameter of a layer.
    #[must_use]
    pub fn gates(self) -> usize {
        match self {
            Cell::Lstm => 4,
            Cell::Gru => 3,
            Cell::Tanh | Cell::Relu => 1,
        }
    }

    /// Name in configuration and files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Cell::Lstm => "lstm",
            Cell::Gru => "gru",
            Cell::Tanh | Cell::Relu => "rnn",
        }
    }

    /// The nonlinearity of an `rnn`, the only kind that has a choice of it.
    #[must_use]
    pub fn nonlinearity(self) -> Option<&'static str> {
        match self {
            Cell::Tanh => Some("tanh"),
            Cell::Relu => Some("relu"),
            Cell::Lstm | Cell::Gru => None,
        }
    }

    /// The kind of these names; an `rnn` without a nonlinearity has tanh, as in PyTorch. None where
    /// there is no such kind.
    #[must_use]
    pub fn named(name: &str, nonlinearity: Option<&str>) -> Option<Cell> {
        let nonlinearity = if name == "rnn" { nonlinearity.or(Some("tanh")) } else { nonlinearity };
        Cell::ALL.into_iter().find(|c| c.name() == name && c.nonlinearity() == nonlinearity)
    }
}

/// Kind and sizes of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Kind of cell.
    pub cell: Cell,
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

    /// Rows of a layer's parameters: gates × hidden.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.cell.gates() * self.hidden
    }

    /// PyTorch's names and the shapes of all parameters.
    pub(crate) fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        let (hidden, rows) = (self.hidden, self.rows());
        (0..self.layers)
            .flat_map(|k| {
                [
                    (format!("rnn.weight_ih_l{k}"), vec![rows, self.inputs_of(k)]),
                    (format!("rnn.weight_hh_l{k}"), vec![rows, hidden]),
                    (format!("rnn.bias_ih_l{k}"), vec![rows]),
                    (format!("rnn.bias_hh_l{k}"), vec![rows]),
                ]
            })
            .chain([("head.weight".into(), vec![OUTPUTS, hidden]), ("head.bias".into(), vec![OUTPUTS])])
            .collect()
    }
}

/// Parameters of one layer; g is the number of gates.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Input weights, (g·hidden × inputs).
    pub weight_ih: Vec<f32>,
    /// Recurrent weights, (g·hidden × hidden).
    pub weight_hh: Vec<f32>,
    /// Input bias, g·hidden.
    pub bias_ih: Vec<f32>,
    /// Recurrent bias, g·hidden.
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
        let mut draw = |(_, shape): (String, Vec<usize>)| {
            (0..shape.iter().product()).map(|_| rng.random_range(-bound..bound)).collect()
        };
        Weights::from_tensors(sizes, sizes.shapes().into_iter().map(&mut draw).collect())
    }

    /// Parameters in the order of [`Sizes::shapes`], one after the other.
    pub(crate) fn from_tensors(sizes: Sizes, tensors: Vec<Vec<f32>>) -> Weights {
        let mut tensors = tensors.into_iter();
        let mut next = || tensors.next().unwrap_or_default();
        let layers = (0..sizes.layers)
            .map(|_| Layer { weight_ih: next(), weight_hh: next(), bias_ih: next(), bias_hh: next() })
            .collect();
        Weights { sizes, layers, head_weight: next(), head_bias: next() }
    }

    /// Every parameter with its PyTorch name and shape, in a fixed order.
    pub fn named(&self) -> impl Iterator<Item = (String, Vec<usize>, &Vec<f32>)> {
        self.sizes
            .shapes()
            .into_iter()
            .zip(self.tensors())
            .map(|((name, shape), values)| (name, shape, values))
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
