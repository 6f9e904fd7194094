//! Training: truncated backpropagation through time on windows of history, pinball loss, Adam with
//! clipped gradients, early stopping on the latest slice. The same seed and data give the same
//! weights.

mod data;
mod optimizer;

use std::ops::ControlFlow;

use rand::{SeedableRng, rngs::StdRng};
use serde::Serialize;
use thiserror::Error;

pub use data::{TrainingSet, learned};

use crate::cell::Lstm;
use crate::reading::{LEVELS, MEDIAN};
use crate::weights::{Sizes, Weights};
use optimizer::Adam;

/// How to train. The defaults suit anything from a thousand to millions of readings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainConfig {
    /// Hidden units of a layer.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Seed of weights and windows.
    pub seed: u64,
    /// Steps that gradients reach back.
    pub steps: usize,
    /// Windows an update learns from.
    pub batch: usize,
    /// Learning rate at its height.
    pub learning_rate: f32,
    /// Bound on the gradient's global norm (Pascanu, Mikolov & Bengio 2013).
    pub clip: f32,
    /// Updates between looks at the validation slice.
    pub look_every: usize,
    /// Updates at most.
    pub max_updates: usize,
}

impl Default for TrainConfig {
    fn default() -> Self {
        TrainConfig {
            hidden: 32,
            layers: 1,
            seed: 1,
            steps: 64,
            batch: 32,
            learning_rate: 5e-3,
            clip: 1.0,
            look_every: 60,
            max_updates: 3000,
        }
    }
}

/// Updates over which the learning rate rises from zero.
const WARM_UP: usize = 50;
/// Share of the old weights in the running average that is validated and kept.
const AVERAGING: f32 = 0.98;
/// Looks without improvement after which the learning rate is halved.
const PATIENCE: usize = 4;
/// Halvings after which training stops.
const HALVINGS: usize = 4;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Progress {
    /// Updates done.
    pub update: usize,
    /// Updates at most.
    pub max_updates: usize,
    /// Mean pinball loss over the updates since the last look, in units of the series' scale.
    pub training_loss: f32,
    /// Mean pinball loss on the validation slice.
    pub validation_loss: f32,
}

/// What a run found, for `models.metrics` and the reader.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Series with enough readings to learn from.
    pub series: usize,
    /// Rows learned from.
    pub training_rows: usize,
    /// Latest rows, learned from by none.
    pub validation_rows: usize,
    /// Updates done.
    pub updates: usize,
    /// Mean pinball loss on the validation slice.
    pub validation_loss: f32,
    /// Pinball loss of the naive forecast with the training rows' quantiles, on the same slice.
    pub naive_loss: f32,
    /// Mean absolute error of the median on the validation slice over that of the last value.
    pub relative_error: f32,
    /// Share of the validation slice inside the 90 % interval.
    pub coverage: f32,
    /// Losses at every look.
    pub curve: Vec<Progress>,
}

/// Why a run gave no model.
#[derive(Debug, Error)]
pub enum TrainError {
    /// Too little to learn from.
    #[error("too little data: {rows} usable readings, {needed} needed")]
    TooLittle {
        /// Rows found.
        rows: usize,
        /// Rows needed.
        needed: usize,
    },
    /// The loss or a weight became NaN or infinite.
    #[error("the loss is no longer finite at update {0}")]
    NotFinite(usize),
    /// The caller asked to stop.
    #[error("stopped")]
    Stopped,
}

/// Trains a network.
///
/// `look` is called at every look at the validation slice and can stop the run.
///
/// # Errors
/// See [`TrainError`].
pub fn train(
    set: &TrainingSet,
    config: &TrainConfig,
    mut look: impl FnMut(&Progress) -> ControlFlow<()>,
) -> Result<(Weights, Report), TrainError> {
    let needed = 4 * config.steps;
    if set.training_rows() < needed || set.validation_rows() == 0 {
        return Err(TrainError::TooLittle { rows: set.training_rows() + set.validation_rows(), needed });
    }
    let sizes = Sizes { inputs: crate::features::INPUTS, hidden: config.hidden, layers: config.layers };
    let mut weights = initial(sizes, config.seed, set);
    let mut average = weights.clone();
    let mut rng = StdRng::seed_from_u64(config.seed ^ 0x9e37_79b9_7f4a_7c15);
    let mut adam = Adam::new(&weights);
    let mut best = (f32::INFINITY, weights.clone());
    let (mut rate, mut stale, mut halvings) = (config.learning_rate, 0, 0);
    let (mut curve, mut sum, mut updates) = (Vec::new(), 0.0, 0);
    while updates < config.max_updates && halvings < HALVINGS {
        let batch = set.sample(config.steps, config.batch, &mut rng);
        let (loss, mut gradients) = Lstm::new(&weights).loss_and_gradients(&batch);
        optimizer::clip(&mut gradients, config.clip);
        if !loss.is_finite() || gradients.iter().flatten().any(|g| !g.is_finite()) {
            return Err(TrainError::NotFinite(updates));
        }
        updates += 1;
        sum += loss;
        adam.update(&mut weights, &gradients, rate * (updates as f32 / WARM_UP as f32).min(1.0));
        let keep = AVERAGING.min(updates as f32 / (updates as f32 + 10.0));
        for (a, w) in average.tensors_mut().flatten().zip(weights.tensors_mut().flatten()) {
            *a += (1.0 - keep) * (*w - *a);
        }
        if updates % config.look_every == 0 || updates == config.max_updates {
            let validation = set.validate(&average);
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
            if validation.loss < best.0 * 0.9995 {
                best = (validation.loss, average.clone());
                stale = 0;
            } else {
                stale += 1;
                if stale >= PATIENCE {
                    rate *= 0.5;
                    halvings += 1;
                    stale = 0;
                    weights = best.1.clone();
                    average = best.1.clone();
                }
            }
            if look(&progress).is_break() {
                return Err(TrainError::Stopped);
            }
        }
    }
    let best = if best.0.is_finite() { best.1 } else { average };
    let validation = set.validate(&best);
    let report = Report {
        series: set.series(),
        training_rows: set.training_rows(),
        validation_rows: set.validation_rows(),
        updates,
        validation_loss: validation.loss,
        naive_loss: set.naive_loss(),
        relative_error: validation.relative_error,
        coverage: validation.coverage,
        curve,
    };
    Ok((best, report))
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

fn pinball(target: f32, quantiles: &[f32; 7]) -> f32 {
    let losses = quantiles.iter().zip(LEVELS).map(|(q, level)| {
        let error = target - q;
        (level as f32 * error).max((level as f32 - 1.0) * error)
    });
    losses.sum::<f32>() / 7.0
}
