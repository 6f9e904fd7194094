//! Training of one network.

use std::ops::ControlFlow;

use rand::{SeedableRng, rngs::StdRng};

use super::optimizer::{self, Adam};
use super::{Progress, TrainConfig, TrainError, TrainingSet};
use crate::cell::Lstm;
use crate::model::Model;
use crate::weights::{Sizes, Weights};

/// Updates over which the learning rate rises from zero.
const WARM_UP: usize = 50;
/// Share of the old weights in the running average that is validated and kept.
const AVERAGING: f32 = 0.98;
/// Looks without improvement after which the learning rate is halved.
const PATIENCE: usize = 4;
/// Halvings after which training stops.
const HALVINGS: usize = 4;

/// Rows for each window of an update.
const ROWS_A_WINDOW: usize = 250;
/// After the best weights are found, learning goes on over the whole, the validation slice included,
/// for this share of the updates that led to them.
const REFIT: f32 = 0.3;
/// Learning rate of that, in parts of the rate at its height.
const REFIT_RATE: f32 = 0.6;

/// A trained network.
pub(super) struct Trained {
    /// The weights that did best on the validation slice.
    pub(super) best: Weights,
    /// The same after learning from the validation slice, too.
    pub(super) refit: Weights,
    pub(super) updates: usize,
    pub(super) curve: Vec<Progress>,
}

/// Weights that learn, and the running average of them.
struct Learner<'a> {
    set: &'a TrainingSet,
    config: &'a TrainConfig,
    /// Windows of an update: fewer where there is little to draw from.
    batch: usize,
    rng: StdRng,
    adam: Adam,
    weights: Weights,
    average: Weights,
    updates: usize,
}

impl Learner<'_> {
    /// One update; the loss before it.
    fn update(&mut self, rate: f32, whole: bool) -> Result<f32, TrainError> {
        let batch = self.set.sample((self.config.steps, self.batch), whole, &mut self.rng);
        let (loss, mut gradients) = Lstm::new(&self.weights).loss_and_gradients(&batch);
        optimizer::clip(&mut gradients, self.config.clip);
        if !loss.is_finite() || gradients.iter().flatten().any(|g| !g.is_finite()) {
            return Err(TrainError::NotFinite(self.updates));
        }
        self.updates += 1;
        self.adam.update(&mut self.weights, &gradients, rate);
        let keep = AVERAGING.min(self.updates as f32 / (self.updates as f32 + 10.0));
        for (a, w) in self.average.tensors_mut().flatten().zip(self.weights.tensors_mut().flatten()) {
            *a += (1.0 - keep) * (*w - *a);
        }
        Ok(loss)
    }

    fn restart(&mut self, from: &Weights) {
        self.weights = from.clone();
        self.average = from.clone();
    }
}

/// Trains a network; see [`super::train`].
pub(super) fn train(
    set: &TrainingSet,
    config: &TrainConfig,
    seed: u64,
    halt: impl Fn() -> bool,
    mut look: impl FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Trained, TrainError> {
    let sizes = Sizes { inputs: crate::features::INPUTS, hidden: config.hidden, layers: config.layers };
    let weights = initial(sizes, seed, set);
    let mut learner = Learner {
        set,
        config,
        batch: (set.training_rows() / ROWS_A_WINDOW).clamp(config.batch.min(8), config.batch),
        rng: StdRng::seed_from_u64(seed ^ 0x9e37_79b9_7f4a_7c15),
        adam: Adam::new(&weights),
        average: weights.clone(),
        weights,
        updates: 0,
    };
    let (mut best, mut best_loss, mut best_at) = (learner.average.clone(), f32::INFINITY, 0);
    let (mut rate, mut stale, mut halvings) = (config.learning_rate, 0, 0);
    let (mut curve, mut sum) = (Vec::new(), 0.0);
    while learner.updates < config.max_updates && halvings < HALVINGS {
        if halt() {
            return Err(TrainError::Stopped);
        }
        let warm = ((learner.updates + 1) as f32 / WARM_UP as f32).min(1.0);
        sum += learner.update(rate * warm, false)?;
        let updates = learner.updates;
        if !updates.is_multiple_of(config.look_every) && updates != config.max_updates {
            continue;
        }
        let validation = set.validate(&Model::new(vec![learner.average.clone()]));
        let progress = Progress {
            update: updates,
            max_updates: config.max_updates,
            training_loss: sum / config.look_every as f32,
            validation_loss: validation.loss,
        };
        sum = 0.0;
        curve.push(progress);
        if !validation.loss.is_finite() {
            return Err(TrainError::NotFinite(updates));
        }
        if validation.loss < best_loss * 0.9995 {
            (best, best_loss, best_at, stale) = (learner.average.clone(), validation.loss, updates, 0);
        } else {
            stale += 1;
            if stale >= PATIENCE {
                rate *= 0.5;
                halvings += 1;
                stale = 0;
                learner.restart(&best);
            }
        }
        if look(&progress).is_break() {
            return Err(TrainError::Stopped);
        }
    }
    learner.restart(&best);
    learner.adam = Adam::new(&best);
    let more = (REFIT * best_at as f32) as usize;
    for update in 0..more {
        if halt() {
            return Err(TrainError::Stopped);
        }
        let warm = ((update + 1) as f32 / WARM_UP as f32).min(1.0);
        learner.update(REFIT_RATE * config.learning_rate * warm, true)?;
    }
    Ok(Trained { best, refit: learner.average, updates: learner.updates, curve })
}

/// Random weights, with the head starting at the quantiles of the training targets, so that the
/// first forecast is the naive one.
fn initial(sizes: Sizes, seed: u64, set: &TrainingSet) -> Weights {
    let mut weights = Weights::random(sizes, seed);
    weights.head_bias = set.target_quantiles().to_vec();
    for w in &mut weights.head_weight {
        *w *= 0.1;
    }
    // An open forget gate at the start carries gradients further back (Jozefowicz et al. 2015).
    for layer in &mut weights.layers {
        for b in layer.bias_ih.iter_mut().skip(sizes.hidden).take(sizes.hidden) {
            *b += 1.0;
        }
    }
    weights
}
