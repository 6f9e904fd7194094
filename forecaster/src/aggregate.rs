//! Online aggregation of experts' quantiles: Bernstein online aggregation (Wintenberger, Machine
//! Learning 106, 2017) on the linearised pinball loss, a level at a time, with forgetting.

use serde::{Deserialize, Serialize};

use crate::reading::LEVELS;

/// A value for each of the seven levels, and one for the mean.
pub(crate) type Lanes = [f32; 8];
/// The lane of the mean.
pub(crate) const MEAN: usize = 7;

/// Share of past regret forgotten with each reading.
const FORGET: f32 = 0.0005;
/// The learning rate, in multiples of the one that theory gives.
const RATE: f32 = 3.0;
/// Weight of the prior in the variance, against a rush to judgement on the first readings.
const PRIOR: f32 = 4.0;
/// Bound on a linearised regret.
const BOUND: f32 = 4.0;

/// Weights of `K` experts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Aggregator {
    regret: Vec<Lanes>,
    variance: Vec<Lanes>,
}

impl Aggregator {
    pub(crate) fn new(experts: usize) -> Aggregator {
        Aggregator { regret: vec![[0.0; 8]; experts], variance: vec![[0.0; 8]; experts] }
    }

    /// Experts it weighs.
    pub(crate) fn len(&self) -> usize {
        self.regret.len()
    }

    /// The weighted mean of the experts' answers, in order of size; absent ones do not count.
    pub(crate) fn combine(&self, answers: &[Option<Lanes>]) -> Lanes {
        let log_experts = (answers.len() as f32).ln();
        let rate = |variance: f32| RATE * (log_experts / (variance + PRIOR)).sqrt();
        let mut peak = [f32::NEG_INFINITY; 8];
        let present = || answers.iter().zip(self.regret.iter().zip(&self.variance));
        for (answer, (regret, variance)) in present() {
            if answer.is_some() {
                for lane in 0..8 {
                    peak[lane] = peak[lane].max(rate(variance[lane]) * regret[lane]);
                }
            }
        }
        let (mut sum, mut weights) = ([0.0_f32; 8], [0.0_f32; 8]);
        for (answer, (regret, variance)) in present() {
            let Some(answer) = answer else { continue };
            for lane in 0..8 {
                let rate = rate(variance[lane]);
                let weight = rate * (rate * regret[lane] - peak[lane]).exp();
                sum[lane] += weight * answer[lane];
                weights[lane] += weight;
            }
        }
        for lane in 0..8 {
            sum[lane] /= weights[lane].max(f32::MIN_POSITIVE);
        }
        sum
    }

    /// Learns from how the answers and their combination did.
    pub(crate) fn learn(&mut self, answers: &[Option<Lanes>], combined: &Lanes, actual: f32) {
        let mut slope = [0.0_f32; 8];
        for (s, (level, c)) in slope.iter_mut().zip(LEVELS.iter().zip(combined)) {
            *s = f32::from(u8::from(actual < *c)) - *level as f32;
        }
        // The squared error's, of a size like the others'.
        slope[MEAN] = (0.5 * (combined[MEAN] - actual)).clamp(-1.0, 1.0);
        let log_experts = (answers.len() as f32).ln();
        for (answer, (regret, variance)) in
            answers.iter().zip(self.regret.iter_mut().zip(&mut self.variance))
        {
            for lane in 0..8 {
                let won = match answer {
                    Some(a) => (slope[lane] * (combined[lane] - a[lane])).clamp(-BOUND, BOUND),
                    None => 0.0,
                };
                variance[lane] += won * won - FORGET * variance[lane];
                let rate = RATE * (log_experts / (variance[lane] + PRIOR)).sqrt();
                regret[lane] += won - rate.min(0.5) * won * won - FORGET * regret[lane];
            }
        }
    }
}
