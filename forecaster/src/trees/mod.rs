//! Gradient-boosted oblivious trees, the second learner beside the network.
//!
//! All nodes of a level ask the same question (Prokhorenkova et al. 2018, CatBoost), so a tree is
//! [`DEPTH`] comparisons whose answers are the bits of a leaf's number: no branches, no pointers.
//! A leaf holds one output for each of [`LEVELS`](crate::LEVELS), so that seven quantiles cost one walk.

mod bins;
mod splits;
#[cfg(test)]
mod tests;
mod train;

use thiserror::Error;

use crate::kernel::{Work, vectorised};

pub(crate) use train::{Example, ForestConfig, grow};

/// Questions of a tree.
pub const DEPTH: usize = 6;
/// Leaves of a tree.
pub const LEAVES: usize = 1 << DEPTH;
/// Features a row may have: what a byte can number, so that no lookup needs a check.
pub const MAX_FEATURES: usize = 256;
/// Quantile levels, the outputs of a leaf.
const OUTPUTS: usize = 7;

/// The questions of one tree: whether a feature exceeds a threshold. NaN exceeds nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Splits {
    threshold: [f32; DEPTH],
    feature: [u8; DEPTH],
}

/// A forest: the sum of its trees' leaves over a constant.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Forest {
    splits: Vec<Splits>,
    /// Seven outputs and a zero each, so that a leaf is one aligned vector.
    leaves: Vec<[[f32; 8]; LEAVES]>,
    bias: [f32; 8],
}

/// A named array of a stored forest: name, shape, values.
pub type NamedTensor = (&'static str, Vec<usize>, Vec<f32>);

/// Names of [`Forest::to_tensors`], in order.
pub const TENSOR_NAMES: [&str; 4] = ["trees.feature", "trees.threshold", "trees.leaves", "trees.bias"];

/// Why stored arrays are no forest.
#[derive(Debug, Error, PartialEq)]
pub enum ForestError {
    /// An array has another shape or length than the others imply.
    #[error("tensor `{0}` has an unexpected shape")]
    Shape(&'static str),
    /// A value is NaN or infinite.
    #[error("tensor `{0}` holds a value that is not finite")]
    NotFinite(&'static str),
    /// A tree asks for a feature that rows do not have.
    #[error("a tree asks for feature {0}, rows have {1}")]
    Feature(f32, usize),
}

impl Forest {
    /// Quantiles at [`LEVELS`](crate::LEVELS), which may cross: sort them. Features beyond the slice
    /// count as zero.
    #[must_use]
    pub fn predict(&self, features: &[f32]) -> [f32; 7] {
        vectorised(Sum { forest: self, features })
    }

    /// Number of trees.
    #[must_use]
    pub fn trees(&self) -> usize {
        self.splits.len()
    }

    /// The forest as flat arrays under [`TENSOR_NAMES`], to be stored beside the network's.
    #[must_use]
    pub fn to_tensors(&self) -> [NamedTensor; 4] {
        let trees = self.trees();
        let [feature, threshold, leaves, bias] = TENSOR_NAMES;
        let outputs = |v: &[f32; 8]| v[..OUTPUTS].to_vec();
        [
            (
                feature,
                vec![trees, DEPTH],
                self.splits.iter().flat_map(|s| s.feature.map(f32::from)).collect(),
            ),
            (threshold, vec![trees, DEPTH], self.splits.iter().flat_map(|s| s.threshold).collect()),
            (leaves, vec![trees, LEAVES, OUTPUTS], self.leaves.iter().flatten().flat_map(outputs).collect()),
            (bias, vec![OUTPUTS], outputs(&self.bias)),
        ]
    }

    /// Reads what [`Forest::to_tensors`] gives, in the same order; `width` is how many features the
    /// caller's rows have.
    ///
    /// # Errors
    /// Says which array is misshapen, not finite, or asks for a feature that rows do not have.
    pub fn from_tensors(tensors: &[NamedTensor; 4], width: usize) -> Result<Forest, ForestError> {
        let trees = tensors[0].1.first().copied().unwrap_or_default();
        let shapes = [vec![trees, DEPTH], vec![trees, DEPTH], vec![trees, LEAVES, OUTPUTS], vec![OUTPUTS]];
        for (((_, shape, values), expected), name) in tensors.iter().zip(&shapes).zip(TENSOR_NAMES) {
            let length = expected.iter().try_fold(1_usize, |product, n| product.checked_mul(*n));
            if shape != expected || Some(values.len()) != length {
                return Err(ForestError::Shape(name));
            }
            if values.iter().any(|v| !v.is_finite()) {
                return Err(ForestError::NotFinite(name));
            }
        }
        let width = width.min(MAX_FEATURES);
        let [(_, _, features), (_, _, thresholds), (_, _, leaves), (_, _, bias)] = tensors;
        if let Some(bad) = features.iter().find(|f| f.fract() != 0.0 || **f < 0.0 || **f >= width as f32) {
            return Err(ForestError::Feature(*bad, width));
        }
        let mut forest = Forest { bias: padded(bias), ..Forest::default() };
        for (feature, threshold) in features.chunks_exact(DEPTH).zip(thresholds.chunks_exact(DEPTH)) {
            let mut splits = Splits { threshold: [0.0; DEPTH], feature: [0; DEPTH] };
            splits.threshold.copy_from_slice(threshold);
            for (to, from) in splits.feature.iter_mut().zip(feature) {
                *to = *from as u8;
            }
            forest.splits.push(splits);
        }
        for tree in leaves.chunks_exact(LEAVES * OUTPUTS) {
            let mut table = [[0.0; 8]; LEAVES];
            for (to, from) in table.iter_mut().zip(tree.chunks_exact(OUTPUTS)) {
                *to = padded(from);
            }
            forest.leaves.push(table);
        }
        Ok(forest)
    }
}

/// See [`Forest::predict`].
struct Sum<'a> {
    forest: &'a Forest,
    features: &'a [f32],
}

impl Work for Sum<'_> {
    type Output = [f32; 7];

    #[inline(always)]
    fn run(self) -> [f32; 7] {
        let mut row = [0.0; MAX_FEATURES];
        for (to, from) in row.iter_mut().zip(self.features) {
            *to = *from;
        }
        let mut sum = self.forest.bias;
        for (splits, leaves) in self.forest.splits.iter().zip(&self.forest.leaves) {
            let mut leaf = 0;
            for level in 0..DEPTH {
                leaf |=
                    usize::from(row[usize::from(splits.feature[level])] > splits.threshold[level]) << level;
            }
            for (sum, output) in sum.iter_mut().zip(&leaves[leaf]) {
                *sum += output;
            }
        }
        let [outputs @ .., _] = sum;
        outputs
    }
}

fn padded(outputs: &[f32]) -> [f32; 8] {
    let mut all = [0.0; 8];
    for (to, from) in all.iter_mut().zip(outputs) {
        *to = *from;
    }
    all
}
