//! Growing a forest: gradient boosting on the pinball loss.

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

use super::bins::Column;
use super::splits::{self, Gradient};
use super::{DEPTH, Forest, LEAVES, OUTPUTS, Splits};
use crate::reading::LEVELS;

/// Levels of [`LEVELS`] whose gradients choose the questions.
const STRUCTURE: [usize; 3] = [1, 3, 5];
/// Trees without improvement after which growing stops.
const PATIENCE: usize = 20;
/// Rows at most that a forest is grown from.
const MOST_ROWS: usize = 400_000;

/// How to grow a forest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ForestConfig {
    /// Trees at most.
    pub(crate) trees: usize,
    /// Share of a leaf's value that is added.
    pub(crate) rate: f32,
    /// Share of the rows, and of the features, that a tree is grown from.
    pub(crate) share: f32,
    /// Readings of a leaf at which half of its value counts.
    pub(crate) doubt: f32,
    /// Seed of what is drawn.
    pub(crate) seed: u64,
}

impl Default for ForestConfig {
    fn default() -> Self {
        ForestConfig { trees: 250, rate: 0.12, share: 0.5, doubt: 20.0, seed: 1 }
    }
}

/// A row to learn from, or to validate on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Example<'a> {
    pub(crate) features: &'a [f32],
    pub(crate) target: f32,
    pub(crate) held_out: bool,
}

struct Grower {
    columns: Vec<Column>,
    targets: Vec<f32>,
    learned: Vec<u32>,
    held_out: Vec<u32>,
    /// What the trees so far say of each row.
    outputs: Vec<[f32; 8]>,
}

/// Grows a forest: up to `config.trees` trees, or, if rows are held out, to the number that does best
/// on them. None without rows, or if `stop` says so.
pub(crate) fn grow(
    examples: &[Example<'_>],
    config: &ForestConfig,
    mut stop: impl FnMut() -> bool,
) -> Option<Forest> {
    let every = examples.len().div_ceil(MOST_ROWS).max(1);
    let examples: Vec<Example<'_>> = examples.iter().step_by(every).copied().collect();
    let width = examples.first()?.features.len();
    let (held_out, learned): (Vec<u32>, Vec<u32>) =
        (0..examples.len() as u32).partition(|row| examples[*row as usize].held_out);
    let targets: Vec<f32> = examples.iter().map(|e| e.target).collect();
    let mut known: Vec<f32> = learned.iter().map(|row| targets[*row as usize]).collect();
    if known.is_empty() {
        return None;
    }
    let mut bias = [0.0; 8];
    for (b, level) in bias.iter_mut().zip(LEVELS) {
        *b = quantile(&mut known, level);
    }
    let columns = (0..width).map(|f| Column::new(examples.iter().map(|e| e.features[f]))).collect();
    let outputs = vec![bias; examples.len()];
    let mut grower = Grower { columns, targets, learned, held_out, outputs };
    let mut forest = Forest { bias, ..Forest::default() };
    let mut rng = StdRng::seed_from_u64(config.seed);
    let (mut best, mut best_at) = (grower.loss(), 0);
    while forest.trees() < config.trees && forest.trees() < best_at + PATIENCE {
        if stop() {
            return None;
        }
        grower.add(&mut forest, config, &mut rng);
        let loss = grower.loss();
        if grower.held_out.is_empty() || loss < best {
            (best, best_at) = (loss, forest.trees());
        }
    }
    forest.splits.truncate(best_at);
    forest.leaves.truncate(best_at);
    Some(forest)
}

/// The value that a share of the others lies below: one of them, so that many equal ones are met
/// exactly.
fn quantile(values: &mut [f32], level: f64) -> f32 {
    let at = ((level * values.len() as f64) as usize).min(values.len().saturating_sub(1));
    if values.is_empty() { 0.0 } else { *values.select_nth_unstable_by(at, f32::total_cmp).1 }
}

impl Grower {
    /// Mean pinball loss on the rows held out.
    fn loss(&self) -> f32 {
        let mut sum = 0.0_f64;
        for row in &self.held_out {
            let (target, outputs) = (self.targets[*row as usize], &self.outputs[*row as usize]);
            for (output, level) in outputs.iter().zip(LEVELS) {
                let error = f64::from(target - output);
                sum += (level * error).max((level - 1.0) * error);
            }
        }
        (sum / (OUTPUTS * self.held_out.len().max(1)) as f64) as f32
    }

    fn add(&mut self, forest: &mut Forest, config: &ForestConfig, rng: &mut StdRng) {
        let rows: Vec<u32> =
            self.learned.iter().copied().filter(|_| rng.random::<f32>() < config.share).collect();
        let mut candidates: Vec<usize> = (0..self.columns.len()).collect();
        candidates.shuffle(rng);
        candidates.truncate(((self.columns.len() as f32 * config.share) as usize).max(1));
        let gradients: Vec<Gradient> = rows.iter().map(|row| self.gradient(*row as usize)).collect();
        let mut nodes = vec![0_u8; rows.len()];
        let mut splits = Splits { threshold: [f32::MAX; DEPTH], feature: [0; DEPTH] };
        let mut questions = Vec::with_capacity(DEPTH);
        for level in 0..DEPTH {
            let found = splits::best(&self.columns, &candidates, (&rows, &nodes, &gradients), level);
            let Some(question) = found else { break };
            let column = &self.columns[question.column];
            splits.feature[level] = question.column as u8;
            splits.threshold[level] = column.cuts[question.cut];
            for (node, row) in nodes.iter_mut().zip(&rows) {
                *node |= u8::from(usize::from(column.bins[*row as usize]) > question.cut) << level;
            }
            questions.push(question);
        }
        let leaves = self.leaves(&rows, &nodes, config);
        for (row, outputs) in self.outputs.iter_mut().enumerate() {
            let mut leaf = 0;
            for (level, q) in questions.iter().enumerate() {
                leaf |= usize::from(usize::from(self.columns[q.column].bins[row]) > q.cut) << level;
            }
            outputs.iter_mut().zip(&leaves[leaf]).for_each(|(output, value)| *output += value);
        }
        forest.splits.push(splits);
        forest.leaves.push(leaves);
    }

    /// Gradients of the pinball loss, which know nothing of how large an error is.
    fn gradient(&self, row: usize) -> Gradient {
        let (target, outputs) = (self.targets[row], &self.outputs[row]);
        let [a, b, c] = STRUCTURE.map(|k: usize| {
            let below = if target < outputs[k] { 1.0 } else { 0.0 };
            // Equal is right.
            if target == outputs[k] { 0.0 } else { LEVELS[k] as f32 - below }
        });
        [a, b, c, 1.0]
    }

    /// Each leaf's value for a level: that quantile of the errors of its rows (Friedman 2001, section
    /// 4.3), less where the rows are few.
    fn leaves(&self, rows: &[u32], nodes: &[u8], config: &ForestConfig) -> [[f32; 8]; LEAVES] {
        let mut members: Vec<Vec<u32>> = vec![Vec::new(); LEAVES];
        for (row, node) in rows.iter().zip(nodes) {
            members[usize::from(*node)].push(*row);
        }
        let mut leaves = [[0.0; 8]; LEAVES];
        let mut errors: Vec<f32> = Vec::new();
        for (leaf, members) in leaves.iter_mut().zip(&members) {
            let count = members.len() as f32;
            let share = config.rate * count / (count + config.doubt);
            for (k, (value, level)) in leaf.iter_mut().zip(LEVELS).enumerate() {
                errors.clear();
                errors.extend(
                    members.iter().map(|row| self.targets[*row as usize] - self.outputs[*row as usize][k]),
                );
                *value = share * quantile(&mut errors, level);
            }
        }
        leaves
    }
}
