//! The network in dfdx: its definition, what training differentiates, and the reference that the
//! streaming [`kernel`](crate::kernel) is held to.
//!
//! Equations and gate order are those of `torch.nn.LSTM` (Hochreiter & Schmidhuber 1997 with the
//! forget gate of Gers et al. 2000):
//! i, f, o = σ(W x + b + U h + d), g = tanh(…), c' = f·c + i·g, h' = o·tanh(c').

use dfdx::{
    shapes::{Axis, HasShape},
    tensor::{
        AsArray, Cpu, Gradients, NoneTape, PutTape, SplitTape, Tape, Tensor, TensorFromVec, Trace,
        WithEmptyTape, ZerosTensor,
    },
    tensor_ops::{Backward, BroadcastTo, MeanTo, PermuteTo, ReshapeTo, TryMatMul, TryStack, maximum},
};

use crate::reading::LEVELS;
use crate::weights::{GATES, OUTPUTS, Sizes, Weights};

type Matrix<T = NoneTape> = Tensor<(usize, usize), f32, Cpu, T>;
type Vector = Tensor<(usize,), f32, Cpu>;

/// Parameters of one layer as tensors.
#[derive(Debug, Clone)]
struct LstmLayer {
    weight_ih: Matrix,
    weight_hh: Matrix,
    bias_ih: Vector,
    bias_hh: Vector,
}

/// The network as dfdx tensors.
#[derive(Debug, Clone)]
pub struct Lstm {
    device: Cpu,
    sizes: Sizes,
    layers: Vec<LstmLayer>,
    head_weight: Matrix,
    head_bias: Vector,
}

/// State (h, c) of each layer for a batch of sequences, batch × hidden.
#[derive(Debug, Clone)]
pub struct BatchState<T: Tape<f32, Cpu> = NoneTape> {
    layers: Vec<(Matrix<T>, Matrix<T>)>,
}

/// A batch of sequences to learn from: `steps` × `batch` rows, time-major.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Steps of each sequence.
    pub steps: usize,
    /// Sequences.
    pub batch: usize,
    /// Inputs, steps × batch × inputs.
    pub inputs: Vec<f32>,
    /// Targets, steps × batch.
    pub targets: Vec<f32>,
    /// Weight of each target in the loss, steps × batch; 0 leaves it out.
    pub mask: Vec<f32>,
}

impl Lstm {
    /// Makes tensors of weights.
    #[must_use]
    pub fn new(weights: &Weights) -> Lstm {
        let device = Cpu::default();
        let Sizes { hidden, .. } = weights.sizes;
        let rows = GATES * hidden;
        let layers = weights
            .layers
            .iter()
            .enumerate()
            .map(|(k, l)| LstmLayer {
                weight_ih: device.tensor_from_vec(l.weight_ih.clone(), (rows, weights.sizes.inputs_of(k))),
                weight_hh: device.tensor_from_vec(l.weight_hh.clone(), (rows, hidden)),
                bias_ih: device.tensor_from_vec(l.bias_ih.clone(), (rows,)),
                bias_hh: device.tensor_from_vec(l.bias_hh.clone(), (rows,)),
            })
            .collect();
        Lstm {
            sizes: weights.sizes,
            layers,
            head_weight: device.tensor_from_vec(weights.head_weight.clone(), (OUTPUTS, hidden)),
            head_bias: device.tensor_from_vec(weights.head_bias.clone(), (OUTPUTS,)),
            device,
        }
    }

    /// All-zero state for a batch.
    #[must_use]
    pub fn zero_state(&self, batch: usize) -> BatchState {
        let zeros = || self.device.zeros_like(&(batch, self.sizes.hidden));
        BatchState { layers: self.layers.iter().map(|_| (zeros(), zeros())).collect() }
    }

    /// One step without a tape: inputs of a batch (batch × inputs) to outputs (batch × 7).
    pub fn step(&self, inputs: &[f32], state: &mut BatchState) -> Vec<f32> {
        let batch = inputs.len() / self.sizes.inputs;
        let x = self.device.tensor_from_vec(inputs.to_vec(), (batch, self.sizes.inputs));
        let h = self.advance(x, state);
        self.head(h).as_vec()
    }

    /// Hidden output of a layer, batch × hidden.
    #[must_use]
    pub fn output(state: &BatchState, layer: usize) -> Vec<f32> {
        state.layers.get(layer).map(|(h, _)| h.as_vec()).unwrap_or_default()
    }

    /// Mean pinball loss of a batch and its gradient, in the order of [`Weights::named`].
    ///
    /// Source of the loss: Koenker & Bassett, Regression Quantiles, Econometrica 46 (1978).
    #[must_use]
    pub fn loss_and_gradients(&self, batch: &Batch) -> (f32, Vec<Vec<f32>>) {
        let mut state = BatchState {
            layers: self
                .zero_state(batch.batch)
                .layers
                .into_iter()
                .map(|(h, c)| (h.leaky_traced(), c.leaky_traced()))
                .collect(),
        };
        let width = batch.batch * self.sizes.inputs;
        let outputs: Vec<_> = batch
            .inputs
            .chunks_exact(width)
            .map(|x| {
                let x = self.device.tensor_from_vec(x.to_vec(), (batch.batch, self.sizes.inputs));
                self.advance(x.leaky_traced(), &mut state)
            })
            .collect();
        let rows = batch.steps * batch.batch;
        let h = outputs.stack().reshape_like(&(rows, self.sizes.hidden));
        let predicted = self.head(h);
        let shape = (rows, OUTPUTS);
        let targets: Vector = self.device.tensor_from_vec(batch.targets.clone(), (rows,));
        let mask: Vector = self.device.tensor_from_vec(batch.mask.clone(), (rows,));
        let levels: Vector = self.device.tensor_from_vec(LEVELS.map(|l| l as f32).to_vec(), (OUTPUTS,));
        let levels = levels.broadcast_like::<_, Axis<0>>(&shape);
        let error = (-predicted) + targets.broadcast_like::<_, Axis<1>>(&shape);
        let under = error.with_empty_tape() * levels.clone();
        let over = error * (levels - 1.0);
        let loss = maximum(under, over) * mask.broadcast_like::<_, Axis<1>>(&shape);
        let weight = batch.mask.iter().sum::<f32>().max(1.0) / rows as f32;
        let loss = loss.mean() / weight;
        let value = loss.array();
        (value, self.collect(&loss.backward()))
    }

    fn advance<T: Tape<f32, Cpu>>(&self, x: Matrix<T>, state: &mut BatchState<T>) -> Matrix<T> {
        let mut x = x;
        let hidden = self.sizes.hidden;
        for (layer, (h, c)) in self.layers.iter().zip(&mut state.layers) {
            let shape = (x.shape().0, GATES * hidden);
            let bias = |b: &Vector| b.retaped::<T>().broadcast_like::<_, Axis<0>>(&shape);
            let gates = x.matmul(layer.weight_ih.retaped::<T>().permute())
                + bias(&layer.bias_ih)
                + h.with_empty_tape().matmul(layer.weight_hh.retaped::<T>().permute())
                + bias(&layer.bias_hh);
            let gate = |k: usize| gates.with_empty_tape().slice((.., k * hidden..(k + 1) * hidden));
            let (input, forget) = (gate(0).sigmoid(), gate(1).sigmoid());
            let (cell, output) = (gate(2).tanh(), gate(3).sigmoid());
            let (_, tape) = gates.split_tape();
            let next = forget * c.with_empty_tape() + input * cell;
            *c = next.with_empty_tape();
            // The tape goes up with the output; the state keeps values only, so that dropping it
            // at the end of a sequence loses no gradient.
            let out = output * next.tanh();
            *h = out.with_empty_tape();
            let (out, rest) = out.split_tape();
            x = out.put_tape(tape.merge(rest));
        }
        x
    }

    fn head<T: Tape<f32, Cpu>>(&self, h: Matrix<T>) -> Matrix<T> {
        let shape = (h.shape().0, OUTPUTS);
        h.matmul(self.head_weight.retaped::<T>().permute())
            + self.head_bias.retaped::<T>().broadcast_like::<_, Axis<0>>(&shape)
    }

    fn collect(&self, gradients: &Gradients<f32, Cpu>) -> Vec<Vec<f32>> {
        self.layers
            .iter()
            .flat_map(|l| {
                [
                    gradients.get(&l.weight_ih).as_vec(),
                    gradients.get(&l.weight_hh).as_vec(),
                    gradients.get(&l.bias_ih).as_vec(),
                    gradients.get(&l.bias_hh).as_vec(),
                ]
            })
            .chain([gradients.get(&self.head_weight).as_vec(), gradients.get(&self.head_bias).as_vec()])
            .collect()
    }
}
