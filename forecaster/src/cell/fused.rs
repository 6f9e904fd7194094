//! The fused forward and backward pass, and the loss, as operations of dfdx's tape.

use dfdx::{
    shapes::{HasShape, Shape},
    tensor::{Cpu, Gradients, PutTape, SplitTape, Tape, Tensor, TensorFrom, TensorFromVec},
};

use super::{Batch, Cube, Matrix, Recurrent};
use crate::bptt::{Slopes, Unrolled};
use crate::reading::LEVELS;
use crate::weights::{self, OUTPUTS};

/// What the fused operation gives: the same as [`Recurrent::forward`], time-major, with rows of steps and
/// then sequences.
#[derive(Debug, Clone)]
pub struct Fused<T: Tape<f32, Cpu>> {
    /// Hidden output of the last layer, (steps · batch) × hidden.
    pub outputs: Matrix<T>,
    /// Hidden outputs after the last step, layers × batch × hidden.
    pub h: Vec<f32>,
    /// Cell states likewise; empty but for an LSTM.
    pub c: Vec<f32>,
}

/// Adds to a tensor's gradient.
fn add<S: Shape>(
    gradients: &mut Gradients<f32, Cpu>,
    tensor: &Tensor<S, f32, Cpu>,
    values: &[f32],
) -> Result<(), dfdx::tensor::CpuError> {
    let gradient = gradients.get_or_alloc_mut(tensor)?;
    gradient.iter_mut().zip(values).for_each(|(g, v)| *g += v);
    Ok(())
}

impl Recurrent {
    /// The recurrent layers as one operation: `inputs` is steps × batch × inputs, contiguous. It works on
    /// up to `threads` threads, of which the results do not depend, and computes the inputs' gradient only
    /// if asked to.
    pub fn fused<T: Tape<f32, Cpu>>(&self, inputs: Cube<T>, of_inputs: bool, threads: usize) -> Fused<T> {
        let (steps, batch, _) = *inputs.shape();
        let (inputs, mut tape) = inputs.split_tape();
        let layers: Vec<_> = self.layers.iter().map(super::Layer::weights).collect();
        let (shape, spare) = ((steps, batch), self.spare.clone());
        let unrolled = Unrolled::new(self.sizes, &layers, &inputs.as_vec(), shape, threads, spare);
        let (h, c) = unrolled.last();
        let outputs: Matrix =
            self.device.tensor_from_vec(unrolled.outputs(), (steps * batch, self.sizes.hidden));
        let (tensors, of) = (self.layers.clone(), outputs.clone());
        tape.add_backward_op(move |gradients| {
            let d_outputs = gradients.get_or_alloc_mut(&of)?.to_vec();
            let Slopes { layers, inputs: d_inputs } = unrolled.back(&d_outputs, of_inputs);
            for (layer, [weight_ih, weight_hh, bias_ih, bias_hh]) in tensors.iter().zip(&layers) {
                add(gradients, &layer.weight_ih, weight_ih)?;
                add(gradients, &layer.weight_hh, weight_hh)?;
                add(gradients, &layer.bias_ih, bias_ih)?;
                add(gradients, &layer.bias_hh, bias_hh)?;
            }
            if of_inputs { add(gradients, &inputs, &d_inputs) } else { Ok(()) }
        });
        Fused { outputs: outputs.put_tape(tape), h, c }
    }
}

/// Mean pinball loss as one operation.
pub(super) fn pinball<T: Tape<f32, Cpu>>(quantiles: Matrix<T>, batch: &Batch) -> Tensor<(), f32, Cpu, T> {
    let (quantiles, mut tape) = quantiles.split_tape();
    let levels = LEVELS.map(|level| level as f32);
    let scale = 1.0 / (batch.weight() * OUTPUTS as f32);
    let mut slopes = quantiles.as_vec();
    let mut sum = 0.0_f64;
    for ((row, target), mask) in slopes.as_chunks_mut().0.iter_mut().zip(&batch.targets).zip(&batch.mask) {
        let (mut loss, row): (f32, &mut [f32; OUTPUTS]) = (0.0, row);
        for (q, level) in row.iter_mut().zip(levels) {
            let error = target - *q;
            let (under, over) = (level * error, (level - 1.0) * error);
            loss += mask * if under > over { under } else { over };
            // Where the two sides meet, halfway between their slopes.
            let slope = if under > over { level } else { level - if under < over { 1.0 } else { 0.5 } };
            *q = -slope * mask * scale;
        }
        sum += f64::from(loss);
    }
    let loss = quantiles.device().tensor(sum as f32 * scale);
    let of = loss.clone();
    tape.add_backward_op(move |gradients| {
        let factor = gradients.get_or_alloc_mut(&of)?.first().copied().unwrap_or_default();
        slopes.iter_mut().for_each(|slope| *slope *= factor);
        add(gradients, &quantiles, &slopes)
    });
    loss.put_tape(tape)
}

impl super::Layer {
    /// The parameters as plain values.
    fn weights(&self) -> weights::Layer {
        weights::Layer {
            weight_ih: self.weight_ih.as_vec(),
            weight_hh: self.weight_hh.as_vec(),
            bias_ih: self.bias_ih.as_vec(),
            bias_hh: self.bias_hh.as_vec(),
        }
    }
}
