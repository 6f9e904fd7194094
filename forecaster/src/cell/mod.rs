//! The networks in dfdx: their definition, and the reference that the streaming
//! [`kernel`](crate::kernel) and training are held to.
//!
//! Equations, gate order and shapes are those of `torch.nn.LSTM`, `torch.nn.GRU` and
//! `torch.nn.RNN`, one or more layers of them under a linear head.

mod elman;
mod fused;
mod gru;
mod loss;
mod lstm;

use dfdx::{
    shapes::{Axes3, Axis, HasShape, Shape},
    tensor::{
        Cpu, Gradients, NoneTape, PutTape, SplitTape, Tape, Tensor, TensorFrom, TensorFromVec, WithEmptyTape,
        ZerosTensor,
    },
    tensor_ops::{BroadcastTo, PermuteTo, SelectTo, TryMatMul, TryStack},
};

pub use fused::Fused;
pub use loss::{Batch, Pass};

use crate::bptt::Spare;
use crate::weights::{Cell, OUTPUTS, Sizes, Weights};

/// A matrix of run-time size.
pub type Matrix<T = NoneTape> = Tensor<(usize, usize), f32, Cpu, T>;
/// A tensor of three dimensions of run-time size.
pub type Cube<T = NoneTape> = Tensor<(usize, usize, usize), f32, Cpu, T>;
type Vector = Tensor<(usize,), f32, Cpu>;

/// Parameters of one layer as tensors.
#[derive(Debug, Clone)]
struct Layer {
    weight_ih: Matrix,
    weight_hh: Matrix,
    bias_ih: Vector,
    bias_hh: Vector,
}

/// A network as dfdx tensors.
#[derive(Debug, Clone)]
pub struct Recurrent {
    device: Cpu,
    sizes: Sizes,
    layers: Vec<Layer>,
    head_weight: Matrix,
    head_bias: Vector,
    /// Memory of the fused pass.
    spare: Spare,
}

/// State of each layer for a batch of sequences, batch × hidden.
#[derive(Debug, Clone)]
pub struct BatchState<T: Tape<f32, Cpu> = NoneTape> {
    /// Hidden outputs.
    h: Vec<Matrix<T>>,
    /// Cell states of an LSTM; empty for the other kinds.
    c: Vec<Matrix<T>>,
}

/// What a network makes of a batch of sequences, in the shapes of PyTorch with `batch_first=True`.
#[derive(Debug, Clone)]
pub struct Unrolled<T: Tape<f32, Cpu> = NoneTape> {
    /// Hidden output of the last layer at every step, batch × steps × hidden.
    pub outputs: Cube<T>,
    /// Hidden output of every layer after the last step, layers × batch × hidden.
    pub h: Cube,
    /// The same of the cell states; of an LSTM only.
    pub c: Option<Cube>,
}

impl Layer {
    /// The input's and the hidden output's share in the gates, batch × rows each.
    fn shares<T: Tape<f32, Cpu>>(&self, x: Matrix<T>, h: Matrix<T>) -> (Matrix<T>, Matrix<T>) {
        (affine(x, &self.weight_ih, &self.bias_ih), affine(h, &self.weight_hh, &self.bias_hh))
    }
}

/// x Wᵀ + b, of batch × inputs.
fn affine<T: Tape<f32, Cpu>>(x: Matrix<T>, weight: &Matrix, bias: &Vector) -> Matrix<T> {
    let shape = (x.shape().0, bias.shape().0);
    x.matmul(weight.retaped::<T>().permute()) + bias.retaped::<T>().broadcast_like::<_, Axis<0>>(&shape)
}

/// Columns of one gate, without the tape of all of them.
fn gate<T: Tape<f32, Cpu>>(gates: &Matrix<T>, k: usize, hidden: usize) -> Matrix<T>
where
    Matrix<T>: WithEmptyTape,
{
    gates.with_empty_tape().slice((.., k * hidden..(k + 1) * hidden))
}

/// A tensor with its own tape and another one's.
fn with_tape<S: Shape, T: Tape<f32, Cpu>>(tensor: Tensor<S, f32, Cpu, T>, tape: T) -> Tensor<S, f32, Cpu, T> {
    let (tensor, own) = tensor.split_tape();
    tensor.put_tape(tape.merge(own))
}

impl Recurrent {
    /// Makes tensors of weights.
    #[must_use]
    pub fn new(weights: &Weights) -> Recurrent {
        Recurrent::on(weights, Cpu::default(), Spare::default())
    }

    /// Makes tensors of other weights, in the same memory where it can be used again.
    pub fn renew(&mut self, weights: &Weights) {
        *self = Recurrent::on(weights, self.device.clone(), self.spare.clone());
    }

    fn on(weights: &Weights, device: Cpu, spare: Spare) -> Recurrent {
        let sizes @ Sizes { hidden, .. } = weights.sizes;
        let rows = sizes.rows();
        let layers = weights
            .layers
            .iter()
            .enumerate()
            .map(|(k, l)| Layer {
                weight_ih: device.tensor_from_vec(l.weight_ih.clone(), (rows, sizes.inputs_of(k))),
                weight_hh: device.tensor_from_vec(l.weight_hh.clone(), (rows, hidden)),
                bias_ih: device.tensor_from_vec(l.bias_ih.clone(), (rows,)),
                bias_hh: device.tensor_from_vec(l.bias_hh.clone(), (rows,)),
            })
            .collect();
        Recurrent {
            sizes,
            layers,
            head_weight: device.tensor_from_vec(weights.head_weight.clone(), (OUTPUTS, hidden)),
            head_bias: device.tensor_from_vec(weights.head_bias.clone(), (OUTPUTS,)),
            device,
            spare,
        }
    }

    /// Kind and sizes.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// All-zero state for a batch.
    #[must_use]
    pub fn zero_state<T: Tape<f32, Cpu>>(&self, batch: usize) -> BatchState<T> {
        let zeros = |layers| {
            let zeros = || self.device.zeros_like(&(batch, self.sizes.hidden)).put_tape(T::default());
            (0..layers).map(|_| zeros()).collect()
        };
        let layers = self.sizes.layers;
        BatchState { h: zeros(layers), c: zeros(if self.sizes.cell == Cell::Lstm { layers } else { 0 }) }
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
        state.h.get(layer).map(Tensor::as_vec).unwrap_or_default()
    }

    /// Unrolls the network over sequences from an all-zero state, as calling the PyTorch module does.
    ///
    /// `inputs` is batch × steps × inputs, and neither of the first two may be zero.
    #[must_use]
    pub fn forward<T: Tape<f32, Cpu> + 'static>(&self, inputs: Cube<T>) -> Unrolled<T> {
        let (outputs, state) = self.unroll(inputs.permute::<_, Axes3<1, 0, 2>>());
        let values =
            |layers: Vec<Matrix<T>>| layers.into_iter().map(|m| m.split_tape().0).collect::<Vec<_>>().stack();
        Unrolled {
            outputs: outputs.permute::<_, Axes3<1, 0, 2>>(),
            h: values(state.h),
            c: (self.sizes.cell == Cell::Lstm).then(|| values(state.c)),
        }
    }

    /// The same, time-major: steps × batch × inputs to steps × batch × hidden.
    fn unroll<T: Tape<f32, Cpu>>(&self, inputs: Cube<T>) -> (Cube<T>, BatchState<T>) {
        let (steps, batch, _) = *inputs.shape();
        let mut state = self.zero_state(batch);
        let outputs: Vec<_> = (0..steps)
            .map(|step| {
                let x = inputs.with_empty_tape().select(self.device.tensor(step));
                self.advance(x, &mut state)
            })
            .collect();
        let (_, tape) = inputs.split_tape();
        (with_tape(outputs.stack(), tape), state)
    }

    /// One step of all layers. The tape goes up with the output; the state keeps values only, so that
    /// dropping it at the end of a sequence loses no gradient.
    fn advance<T: Tape<f32, Cpu>>(&self, x: Matrix<T>, state: &mut BatchState<T>) -> Matrix<T> {
        let mut x = x;
        for (k, (layer, h)) in self.layers.iter().zip(&mut state.h).enumerate() {
            let (input, recurrent) = layer.shares(x, h.with_empty_tape());
            x = match (self.sizes.cell, state.c.get_mut(k)) {
                (Cell::Gru, _) => gru::step(input, recurrent, h.with_empty_tape()),
                (Cell::Lstm, Some(c)) => lstm::step(input + recurrent, c),
                (Cell::Relu, _) => elman::relu(input + recurrent),
                _ => elman::tanh(input + recurrent),
            };
            *h = x.with_empty_tape();
        }
        x
    }

    /// Hidden outputs (rows × hidden) to quantiles (rows × 7).
    fn head<T: Tape<f32, Cpu>>(&self, h: Matrix<T>) -> Matrix<T> {
        affine(h, &self.head_weight, &self.head_bias)
    }

    /// Gradients of all parameters, in the order of [`Weights::named`]; zero where nothing reached one.
    #[must_use]
    pub fn collect(&self, gradients: &mut Gradients<f32, Cpu>) -> Vec<Vec<f32>> {
        fn of<S: Shape>(gradients: &mut Gradients<f32, Cpu>, tensor: &Tensor<S, f32, Cpu>) -> Vec<f32> {
            match gradients.get_or_alloc_mut(tensor) {
                Ok(gradient) => gradient.to_vec(),
                Err(_) => Vec::new(),
            }
        }
        let mut all = Vec::new();
        for l in &self.layers {
            all.extend([of(gradients, &l.weight_ih), of(gradients, &l.weight_hh)]);
            all.extend([of(gradients, &l.bias_ih), of(gradients, &l.bias_hh)]);
        }
        all.extend([of(gradients, &self.head_weight), of(gradients, &self.head_bias)]);
        all
    }
}
