//! Adam (Kingma & Ba, ICLR 2015) and gradient clipping over all parameters at once.
//!
//! dfdx has an Adam of its own, for models built of its modules; ours is a plain list of tensors,
//! and clipping by the global norm, which dfdx lacks, needs all gradients together.

use crate::weights::Weights;

const BETA1: f32 = 0.9;
const BETA2: f32 = 0.99;
const EPSILON: f32 = 1e-8;

/// Running moments of the gradients.
pub(super) struct Adam {
    first: Vec<Vec<f32>>,
    second: Vec<Vec<f32>>,
    updates: i32,
}

impl Adam {
    pub(super) fn new(weights: &Weights) -> Adam {
        let zeros = || weights.named().map(|(_, _, v)| vec![0.0; v.len()]).collect();
        Adam { first: zeros(), second: zeros(), updates: 0 }
    }

    /// One update; `gradients` in the order of [`Weights::named`].
    pub(super) fn update(&mut self, weights: &mut Weights, gradients: &[Vec<f32>], rate: f32) {
        self.updates += 1;
        let (c1, c2) = (1.0 - BETA1.powi(self.updates), 1.0 - BETA2.powi(self.updates));
        let moments = self.first.iter_mut().flatten().zip(self.second.iter_mut().flatten());
        let gradients = gradients.iter().flatten();
        for ((w, g), (m, v)) in weights.tensors_mut().flatten().zip(gradients).zip(moments) {
            *m += (1.0 - BETA1) * (g - *m);
            *v += (1.0 - BETA2) * (g * g - *v);
            *w -= rate * (*m / c1) / ((*v / c2).sqrt() + EPSILON);
        }
    }
}

/// Scales the gradients down to a global norm of at most `bound`.
pub(super) fn clip(gradients: &mut [Vec<f32>], bound: f32) {
    let norm = gradients.iter().flatten().map(|g| g * g).sum::<f32>().sqrt();
    if norm > bound {
        let factor = bound / norm;
        gradients.iter_mut().flatten().for_each(|g| *g *= factor);
    }
}
