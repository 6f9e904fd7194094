//! Training of one network.

use std::ops::ControlFlow;

use rand::{SeedableRng, rngs::StdRng};

use super::optimizer::Learner;
use super::{Progress, TrainConfig, TrainError, TrainingSet};
use crate::model::Model;
use crate::weights::{Cell, Sizes, Weights};

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

/// A learner fed from the data, and the running average of its weights.
struct Run<'a> {
    set: &'a TrainingSet,
    config: &'a TrainConfig,
    /// Windows of an update: fewer where there is little to draw from.
    batch: usize,
    rng: StdRng,
    learner: Learner,
    average: Weights,
}

impl Run<'_> {
    /// One update; the loss before it.
    fn update(&mut self, rate: f32, whole: bool) -> Result<f32, TrainError> {
        let batch = self.set.sample((self.config.steps, self.batch), whole, &mut self.rng);
        let loss = self.learner.update(&batch, rate)?;
        let updates = self.updates() as f32;
        let keep = AVERAGING.min(updates / (updates + 10.0));
        for (average, (_, _, weights)) in self.average.tensors_mut().zip(self.learner.weights().named()) {
            for (a, w) in average.iter_mut().zip(weights) {
                *a += (1.0 - keep) * (*w - *a);
            }
        }
        Ok(loss)
    }

    fn updates(&self) -> usize {
        self.learner.updates()
    }

    fn restart(&mut self, from: &Weights) {
        self.learner.restart(from);
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
    let sizes = Sizes {
        cell: config.cell,
        inputs: crate::features::INPUTS,
        hidden: config.hidden,
        layers: config.layers,
    };
    let weights = initial(sizes, seed, set);
    let mut run = Run {
        set,
        config,
        batch: (set.training_rows() / ROWS_A_WINDOW).clamp(config.batch.min(8), config.batch),
        rng: StdRng::seed_from_u64(seed ^ 0x9e37_79b9_7f4a_7c15),
        average: weights.clone(),
        learner: Learner::new(weights, config.clip, config.threads),
    };
    let (mut best, mut best_loss, mut best_at) = (run.average.clone(), f32::INFINITY, 0);
    let (mut rate, mut stale, mut halvings) = (config.learning_rate, 0, 0);
    let (mut curve, mut sum) = (Vec::new(), 0.0);
    while run.updates() < config.max_updates && halvings < HALVINGS {
        if halt() {
            return Err(TrainError::Stopped);
        }
        let warm = ((run.updates() + 1) as f32 / WARM_UP as f32).min(1.0);
        sum += run.update(rate * warm, false)?;
        let updates = run.updates();
        if !updates.is_multiple_of(config.look_every) && updates != config.max_updates {
            continue;
        }
        let validation = set.validate(&Model::new(vec![run.average.clone()]));
        let progress = Progress {
            update: updates,
            max_updates: config.max_updates,
            training_loss: sum / config.look_every as f32,
            validation_loss: validation.loss,
        };
        sum = 0.0;
        curve.push(progress);
        if !validation.loss.is_finite() {
            let what = "the validation loss".to_owned();
            return Err(TrainError::NotFinite { what, update: updates });
        }
        if validation.loss < best_loss * 0.9995 {
            (best, best_loss, best_at, stale) = (run.average.clone(), validation.loss, updates, 0);
        } else {
            stale += 1;
            if stale >= PATIENCE {
                rate *= 0.5;
                halvings += 1;
                stale = 0;
                run.restart(&best);
            }
        }
        if look(&progress).is_break() {
            return Err(TrainError::Stopped);
        }
    }
    run.restart(&best);
    run.learner.forget();
    let more = (REFIT * best_at as f32) as usize;
    for update in 0..more {
        if halt() {
            return Err(TrainError::Stopped);
        }
        let warm = ((update + 1) as f32 / WARM_UP as f32).min(1.0);
        run.update(REFIT_RATE * config.learning_rate * warm, true)?;
    }
    let updates = run.updates();
    Ok(Trained { best, refit: run.average, updates, curve })
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
    for layer in weights.layers.iter_mut().filter(|_| sizes.cell == Cell::Lstm) {
        for b in layer.bias_ih.iter_mut().skip(sizes.hidden).take(sizes.hidden) {
            *b += 1.0;
        }
    }
    weights
}
