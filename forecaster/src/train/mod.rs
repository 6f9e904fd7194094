//! Training: truncated backpropagation through time on windows of history, pinball loss, Adam with
//! gradients clipped by their global norm, early stopping on the latest slice. The learning rate rises
//! from zero over the first 50 updates, is halved whenever four looks at that slice in a row saw no
//! improvement, and training ends with the fourth halving; after it the best weights learn from the
//! latest slice, too. The same seed and data give the same weights, on any number of threads.

mod data;
mod forest;
mod inputs;
mod network;
mod optimizer;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use thiserror::Error;

pub use data::TrainingSet;
pub(crate) use data::learned;
pub use inputs::{Named, inputs_file};
pub use optimizer::Learner;

use crate::model::{Model, NETWORKS};
use crate::reading::{LEVELS, MEDIAN};
use crate::weights::Cell;

/// How to train. The defaults suit anything from a thousand to millions of readings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainConfig {
    /// Networks, drawn with seeds that follow each other; 2 at most.
    pub networks: usize,
    /// Whether a forest is grown beside them.
    pub trees: bool,
    /// Kind of recurrent cell.
    pub cell: Cell,
    /// Hidden units of a layer.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Seed of weights and windows.
    pub seed: u64,
    /// Threads that each network learns on; the weights do not depend on it.
    pub threads: usize,
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
            networks: NETWORKS,
            trees: true,
            cell: Cell::Lstm,
            hidden: 32,
            layers: 1,
            seed: 1,
            threads: 1,
            steps: 64,
            batch: 32,
            learning_rate: 5e-3,
            clip: 1.0,
            look_every: 60,
            max_updates: 3000,
        }
    }
}

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
    /// Updates done, of all networks together.
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
    /// The loss, the gradient or a weight became NaN or infinite.
    #[error("{what} is no longer finite at update {update}; a lower learning rate may help")]
    NotFinite {
        /// Which of them.
        what: String,
        /// Updates done before.
        update: usize,
    },
    /// The caller asked to stop.
    #[error("stopped")]
    Stopped,
}

/// Trains a model; see [`train_until`].
///
/// # Errors
/// See [`TrainError`].
pub fn train(
    set: &TrainingSet,
    config: &TrainConfig,
    look: impl FnMut(&Progress) -> ControlFlow<()>,
) -> Result<(Model, Report), TrainError> {
    train_until(set, config, &AtomicBool::new(false), look)
}

/// Trains a model: its networks at the same time, on a thread each, and a forest after them. It ends
/// early, within an update or a tree or so, once `stop` is true.
///
/// `look` is called at every look of the first network at the validation slice, and can stop the run.
///
/// # Errors
/// See [`TrainError`].
pub fn train_until(
    set: &TrainingSet,
    config: &TrainConfig,
    stop: &AtomicBool,
    look: impl FnMut(&Progress) -> ControlFlow<()>,
) -> Result<(Model, Report), TrainError> {
    let needed = 4 * config.steps;
    if set.training_rows() < needed || set.validation_rows() == 0 {
        return Err(TrainError::TooLittle { rows: set.training_rows() + set.validation_rows(), needed });
    }
    let failed = AtomicBool::new(false);
    let halt = || stop.load(Ordering::Relaxed) || failed.load(Ordering::Relaxed);
    let trained = std::thread::scope(|threads| {
        let others: Vec<_> = (1..config.networks.clamp(1, NETWORKS) as u64)
            .map(|k| {
                let go_on = |_: &Progress| ControlFlow::Continue(());
                threads.spawn(move || network::train(set, config, config.seed + k, halt, go_on))
            })
            .collect();
        let first = network::train(set, config, config.seed, halt, look);
        failed.store(first.is_err(), Ordering::Relaxed);
        let forest = config.trees.then(|| forest::train(set, config, halt)).flatten();
        let others = others.into_iter().map(|t| t.join().unwrap_or(Err(TrainError::Stopped)));
        let networks = [first].into_iter().chain(others).collect::<Result<Vec<_>, _>>()?;
        if halt() { Err(TrainError::Stopped) } else { Ok((networks, forest)) }
    });
    let (trained, forest) = trained?;
    let (best_forest, forest) = forest.unzip();
    let updates = trained.iter().map(|t| t.updates).sum();
    let curve = trained.first().map(|t| t.curve.clone()).unwrap_or_default();
    let (best, refit): (Vec<_>, Vec<_>) = trained.into_iter().map(|t| (t.best, t.refit)).unzip();
    let validation = set.validate(&Model::new(best).with_forest(best_forest));
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
    let model = Model::new(refit).with_forest(forest).with_trained_until(set.until());
    Ok((model, report))
}

fn pinball(target: f32, quantiles: &[f32; 7]) -> f32 {
    let losses = quantiles.iter().zip(LEVELS).map(|(q, level)| {
        let error = target - q;
        (level as f32 * error).max((level as f32 - 1.0) * error)
    });
    losses.sum::<f32>() / 7.0
}
