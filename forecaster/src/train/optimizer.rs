//! One update: Adam (Kingma & Ba, ICLR 2015) and gradient clipping over all parameters at once.
//!
//! dfdx has an Adam of its own, for models built of its modules; ours is a plain list of tensors,
//! and clipping by the global norm, which dfdx lacks, needs all gradients together.

use super::TrainError;
use crate::cell::{Batch, Pass, Recurrent};
use crate::weights::Weights;

const BETA1: f32 = 0.9;
const BETA2: f32 = 0.99;
const EPSILON: f32 = 1e-8;

/// Weights that learn from batches.
#[derive(Debug, Clone)]
pub struct Learner {
    weights: Weights,
    /// Them as tensors, renewed at each update.
    network: Recurrent,
    adam: Adam,
    /// Bound on the gradient's global norm.
    clip: f32,
    pass: Pass,
    updates: usize,
}

impl Learner {
    /// `clip` bounds the gradient's global norm; `threads` are worked on.
    #[must_use]
    pub fn new(weights: Weights, clip: f32, threads: usize) -> Learner {
        let network = Recurrent::new(&weights);
        Learner { adam: Adam::new(&weights), network, weights, clip, pass: Pass::Fused(threads), updates: 0 }
    }

    /// The weights as they are now.
    #[must_use]
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Updates done.
    #[must_use]
    pub fn updates(&self) -> usize {
        self.updates
    }

    /// Goes on from other weights of the same sizes, with the moments kept.
    pub(super) fn restart(&mut self, from: &Weights) {
        self.weights = from.clone();
    }

    /// Forgets the moments.
    pub(super) fn forget(&mut self) {
        self.adam = Adam::new(&self.weights);
    }

    /// One update; the loss before it.
    ///
    /// # Errors
    /// If the loss, a gradient or a weight is no longer finite.
    pub fn update(&mut self, batch: &Batch, rate: f32) -> Result<f32, TrainError> {
        let at = self.updates;
        let not_finite = |what: String| TrainError::NotFinite { what, update: at };
        self.network.renew(&self.weights);
        let (loss, mut gradients) = self.network.loss_and_gradients(batch, self.pass);
        if !loss.is_finite() {
            return Err(not_finite("the loss".to_owned()));
        }
        if !clip(&mut gradients, self.clip).is_finite() {
            return Err(not_finite("the gradient".to_owned()));
        }
        self.updates += 1;
        self.adam.update(&mut self.weights, &gradients, rate);
        match self.weights.named().find(|(_, _, values)| !values.iter().all(|w| w.is_finite())) {
            Some((name, ..)) => Err(not_finite(format!("a weight of `{name}`"))),
            None => Ok(loss),
        }
    }
}

/// Running moments of the gradients.
#[derive(Debug, Clone)]
struct Adam {
    first: Vec<Vec<f32>>,
    second: Vec<Vec<f32>>,
    updates: i32,
}

impl Adam {
    fn new(weights: &Weights) -> Adam {
        let zeros = || weights.named().map(|(_, _, v)| vec![0.0; v.len()]).collect();
        Adam { first: zeros(), second: zeros(), updates: 0 }
    }

    /// One update; `gradients` in the order of [`Weights::named`].
    fn update(&mut self, weights: &mut Weights, gradients: &[Vec<f32>], rate: f32) {
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

/// Scales the gradients down to a global norm of at most `bound`; the norm before that.
fn clip(gradients: &mut [Vec<f32>], bound: f32) -> f32 {
    let norm = gradients.iter().flatten().map(|g| g * g).sum::<f32>().sqrt();
    if norm > bound {
        let factor = bound / norm;
        gradients.iter_mut().flatten().for_each(|g| *g *= factor);
    }
    norm
}
