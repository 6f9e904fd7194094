//! Training of the forest.

use super::{TrainConfig, TrainingSet};
use crate::trees::{Forest, ForestConfig, grow};

/// Grows a forest twice: once to see on the validation slice how many trees do best, which is the first
/// returned, and then so many over the whole. None if it was stopped.
pub(super) fn train(
    set: &TrainingSet,
    config: &TrainConfig,
    stop: impl Fn() -> bool,
) -> Option<(Forest, Forest)> {
    let mut examples = set.examples();
    let forest_config = ForestConfig { seed: config.seed, ..ForestConfig::default() };
    let best = grow(&examples, &forest_config, &stop)?;
    examples.iter_mut().for_each(|e| e.held_out = false);
    let whole = grow(&examples, &ForestConfig { trees: best.trees(), ..forest_config }, &stop)?;
    Some((best, whole))
}
