//! Recursive least squares with forgetting, on factors that stay positive in single precision.
//!
//! The covariance is kept as U·D·Uᵀ and updated as in Bierman, "Factorization Methods for Discrete
//! Sequential Estimation" (1977), section V.3.

use serde::{Deserialize, Serialize};

use crate::kernel::{Work, vectorised};

/// Above this a direction that the inputs leave unexcited is forgotten no further.
const LARGEST: f32 = 100.0;

/// Variance of the weights after the factors have overflown and all is learned anew.
const RESTART: f32 = 0.03;

/// A linear model of `N` inputs learned one example at a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rls<const N: usize> {
    /// The weights, then D, then the columns of U above its unit diagonal, one after the other.
    values: Box<[f32]>,
}

impl<const N: usize> Rls<N> {
    /// All weights 0, each with this variance.
    pub(crate) fn new(variance: f32) -> Self {
        let mut values = vec![0.0; 2 * N + N * (N - 1) / 2];
        values[N..2 * N].fill(variance);
        Rls { values: values.into() }
    }

    /// Sets a weight.
    pub(crate) fn set(&mut self, at: usize, weight: f32) {
        self.values[at] = weight;
    }

    /// The model's answer.
    pub(crate) fn predict(&self, x: &[f32; N]) -> f32 {
        vectorised(Answer(&self.values[..N], x))
    }

    /// Learns from an input and the error of the answer to it; `keep` is the share of the past kept.
    pub(crate) fn learn(&mut self, x: &[f32; N], error: f32, keep: f32) {
        if !vectorised(Update { model: self, x, error, keep }) {
            *self = Rls::new(RESTART);
        }
    }
}

struct Update<'a, const N: usize> {
    model: &'a mut Rls<N>,
    x: &'a [f32; N],
    error: f32,
    keep: f32,
}

impl<const N: usize> Work for Update<'_, N> {
    /// Whether all is still finite.
    type Output = bool;

    #[inline(always)]
    fn run(self) -> bool {
        let Update { model, x, error, keep } = self;
        let (weights, rest) = model.values.split_at_mut(N);
        let (diagonal, mut columns) = rest.split_at_mut(N);
        let mut gain = [0.0_f32; N];
        let mut alpha = keep;
        for (j, d) in diagonal.iter_mut().enumerate() {
            let (column, rest) = std::mem::take(&mut columns).split_at_mut(j);
            columns = rest;
            let f = x[j] + dot(column, &x[..j]);
            let g = *d * f;
            let before = alpha;
            alpha += f * g;
            let keep = if *d > LARGEST { 1.0 } else { keep };
            *d = (*d * before / (alpha * keep)).max(1e-12);
            let back = -f / before;
            for (u, k) in column.iter_mut().zip(&mut gain[..j]) {
                let old = *u;
                *u += back * *k;
                *k += g * old;
            }
            gain[j] = g;
        }
        let step = error / alpha;
        for (w, k) in weights.iter_mut().zip(gain) {
            *w += step * k;
        }
        step.is_finite() && gain.iter().all(|k| k.is_finite())
    }
}

struct Answer<'a>(&'a [f32], &'a [f32]);

impl Work for Answer<'_> {
    type Output = f32;

    #[inline(always)]
    fn run(self) -> f32 {
        dot(self.0, self.1)
    }
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 8];
    let (a8, a_rest) = a.as_chunks::<8>();
    let (b8, b_rest) = b.as_chunks::<8>();
    for (a, b) in a8.iter().zip(b8) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}
