//! Backpropagation through time, fused: what [`crate::cell`] defines, forward and back over whole
//! sequences, several times as fast as operation by operation.
//!
//! A batch is split into parts of fixed size, whose gradients are added in a fixed order, so that the
//! results do not depend on how many threads work on them. Sequences of a part stand side by side: a step
//! is a product of small matrices, and what does not wait for the step before (the input's share in the
//! gates, the gradients of the weights) is done for all steps at once.

mod packed;
mod part;
mod step;
mod tiles;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::kernel::{FusedWork, fused};
use crate::weights::{Layer, Sizes};
use packed::{Packed, Sums};
use part::Part;
use tiles::QUAD;

/// Parts of a batch at most.
const PARTS: usize = 4;

/// Memory of earlier passes, to be used again.
#[derive(Clone, Default)]
pub(crate) struct Spare(Arc<Mutex<Vec<Part>>>);

impl std::fmt::Debug for Spare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Spare")
    }
}

impl Spare {
    fn parts(&self) -> MutexGuard<'_, Vec<Part>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A network unrolled over a batch, with what going back needs.
pub(crate) struct Unrolled {
    sizes: Sizes,
    layers: Vec<Packed>,
    parts: Vec<Part>,
    /// Steps and sequences.
    shape: (usize, usize),
    threads: usize,
    spare: Spare,
}

/// Gradients of a network's parameters and inputs.
pub(crate) struct Slopes {
    /// Of each layer: input weights, recurrent weights, input bias, recurrent bias, in PyTorch's layout.
    pub(crate) layers: Vec<[Vec<f32>; 4]>,
    /// Steps × sequences × inputs; empty if not asked for.
    pub(crate) inputs: Vec<f32>,
}

/// Does something to each part, on up to `threads` threads.
fn each(parts: &mut [Part], threads: usize, work: impl Fn(&mut Part) + Sync) {
    let share = parts.len().div_ceil(threads.max(1)).max(1);
    std::thread::scope(|scope| {
        let mut shares = parts.chunks_mut(share);
        let own = shares.next();
        for parts in shares {
            scope.spawn(|| parts.iter_mut().for_each(&work));
        }
        own.into_iter().flatten().for_each(&work);
    });
}

impl Unrolled {
    /// Goes forward from an all-zero state. `inputs` is steps × sequences × inputs.
    pub(crate) fn new(
        sizes: Sizes,
        layers: &[Layer],
        inputs: &[f32],
        shape: (usize, usize),
        threads: usize,
        spare: Spare,
    ) -> Unrolled {
        let packed = layers.iter().enumerate().map(|(k, l)| Packed::new(sizes, l, sizes.inputs_of(k)));
        let layers: Vec<_> = packed.collect();
        let (steps, batch) = shape;
        let size = batch.div_ceil(PARTS).next_multiple_of(QUAD);
        let mut parts: Vec<_> = (0..batch)
            .step_by(size.max(1))
            .map(|at| {
                let part = spare.parts().pop().unwrap_or_default();
                part.reused(at..batch.min(at + size), size, steps)
            })
            .collect();
        each(&mut parts, threads, |part| fused(Forward { part, sizes, layers: &layers, inputs, batch }));
        Unrolled { sizes, layers, parts, shape, threads, spare }
    }

    /// Hidden output of the last layer at every step, steps × sequences × hidden.
    pub(crate) fn outputs(&self) -> Vec<f32> {
        let (steps, batch) = self.shape;
        let mut outputs = vec![0.0; steps * batch * self.sizes.hidden];
        for part in &self.parts {
            part.outputs(&mut outputs, batch, self.sizes.hidden);
        }
        outputs
    }

    /// Hidden outputs after the last step, layers × sequences × hidden, and likewise the cell states, which
    /// only an LSTM has.
    pub(crate) fn last(&self) -> (Vec<f32>, Vec<f32>) {
        let (mut h, mut c) = (Vec::new(), Vec::new());
        for layer in 0..self.layers.len() {
            for part in &self.parts {
                part.last(layer, self.sizes.hidden, &mut h, &mut c);
            }
        }
        (h, c)
    }

    /// Goes back from the gradient of [`Unrolled::outputs`]; that of the inputs only if asked for.
    pub(crate) fn back(mut self, d_outputs: &[f32], of_inputs: bool) -> Slopes {
        let ((steps, batch), sizes, layers) = (self.shape, self.sizes, &self.layers);
        each(&mut self.parts, self.threads, |part| {
            fused(Back { part, sizes, layers, d_outputs, batch, of_inputs });
        });
        let mut inputs = vec![0.0; if of_inputs { steps * batch * sizes.inputs } else { 0 }];
        for part in &self.parts {
            part.d_inputs(&mut inputs, batch, sizes.inputs);
        }
        let mut sums = vec![Sums::default(); layers.len()];
        layers.iter().zip(&mut sums).for_each(|(l, s)| l.clear(s));
        for part in &self.parts {
            sums.iter_mut().zip(part.sums()).for_each(|(sum, part)| sum.add(part));
        }
        self.spare.parts().append(&mut self.parts);
        Slopes { layers: layers.iter().zip(&sums).map(|(l, s)| l.unpack(sizes, s)).collect(), inputs }
    }
}

struct Forward<'a> {
    part: &'a mut Part,
    sizes: Sizes,
    layers: &'a [Packed],
    inputs: &'a [f32],
    batch: usize,
}

impl FusedWork for Forward<'_> {
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        self.part.forward::<FMA>(self.sizes, self.layers, self.inputs, self.batch);
    }
}

struct Back<'a> {
    part: &'a mut Part,
    sizes: Sizes,
    layers: &'a [Packed],
    d_outputs: &'a [f32],
    batch: usize,
    of_inputs: bool,
}

impl FusedWork for Back<'_> {
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        self.part.back::<FMA>(self.sizes, self.layers, self.d_outputs, self.batch, self.of_inputs);
    }
}
