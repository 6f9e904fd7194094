//! What training makes small, and its gradient.

use dfdx::{
    shapes::{Axis, HasShape},
    tensor::{AsArray, Cpu, Tape, Tensor, TensorFromVec, Trace, WithEmptyTape},
    tensor_ops::{Backward, BroadcastTo, MeanTo, ReshapeTo, maximum},
};

use super::{Matrix, Recurrent, Vector, fused};
use crate::reading::LEVELS;
use crate::weights::OUTPUTS;

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

impl Batch {
    /// Sum of the mask, by which the loss is divided.
    pub(super) fn weight(&self) -> f32 {
        self.mask.iter().sum::<f32>().max(1.0)
    }
}

/// How to go forward and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Operation by operation: the definition.
    Plain,
    /// [`Recurrent::fused`] on so many threads, and the loss as one operation.
    Fused(usize),
}

impl Recurrent {
    /// Mean pinball loss of a batch and its gradient, in the order of
    /// [`Weights::named`](crate::weights::Weights::named).
    ///
    /// Source of the loss: Koenker & Bassett, Regression Quantiles, Econometrica 46 (1978).
    #[must_use]
    pub fn loss_and_gradients(&self, batch: &Batch, pass: Pass) -> (f32, Vec<Vec<f32>>) {
        let shape = (batch.steps, batch.batch, self.sizes.inputs);
        let inputs = self.device.tensor_from_vec(batch.inputs.clone(), shape).leaky_traced();
        let rows = batch.steps * batch.batch;
        let loss = match pass {
            Pass::Plain => {
                let outputs = self.unroll(inputs).0.reshape_like(&(rows, self.sizes.hidden));
                self.pinball(self.head(outputs), batch)
            }
            Pass::Fused(threads) => {
                fused::pinball(self.head(self.fused(inputs, false, threads).outputs), batch)
            }
        };
        let value = loss.array();
        (value, self.collect(&mut loss.backward()))
    }

    /// Mean pinball loss of quantiles, of which there is a row for each step and sequence.
    fn pinball<T: Tape<f32, Cpu>>(&self, quantiles: Matrix<T>, batch: &Batch) -> Tensor<(), f32, Cpu, T> {
        let shape = *quantiles.shape();
        let rows = shape.0;
        let targets: Vector = self.device.tensor_from_vec(batch.targets.clone(), (rows,));
        let mask: Vector = self.device.tensor_from_vec(batch.mask.clone(), (rows,));
        let levels: Vector = self.device.tensor_from_vec(LEVELS.map(|l| l as f32).to_vec(), (OUTPUTS,));
        let levels = levels.broadcast_like::<_, Axis<0>>(&shape);
        let error = (-quantiles) + targets.broadcast_like::<_, Axis<1>>(&shape);
        let under = error.with_empty_tape() * levels.clone();
        let over = error * (levels - 1.0);
        let loss = maximum(under, over) * mask.broadcast_like::<_, Axis<1>>(&shape);
        loss.mean() / (batch.weight() / rows as f32)
    }
}
