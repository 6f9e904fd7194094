//! Online aggregation of experts' quantiles: Bernstein online aggregation (Wintenberger, Machine
//! Learning 106, 2017) on the linearised pinball loss, a level at a time, with forgetting.

use serde::{Deserialize, Serialize};

use crate::kernel::{Work, vectorised};
use crate::reading::LEVELS;

/// A value for each of the seven levels, and one for the mean.
pub(crate) type Lanes = [f32; 8];
/// The lane of the mean.
pub(crate) const MEAN: usize = 7;

/// Share of past regret forgotten with each reading.
const FORGET: f32 = 0.0005;
/// Added to the variance of regrets, against a rush to judgement on the first readings.
const PRIOR: f32 = 4.0;
/// Regret in favour of an expert that leads from the start.
const LEAD: f32 = 4.0;
/// Bound on the distance of an answer from the combined one, in units of the scale.
const BOUND: f32 = 8.0;

/// What is known of one expert, a lane for each level.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Record {
    /// By how much the aggregate did worse than this expert.
    regret: Lanes,
    /// Sum of squared regrets.
    variance: Lanes,
}

/// Weights of some experts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Aggregator {
    records: Box<[Record]>,
    /// Experts that have answered before, a bit each.
    known: u32,
}

/// The learning rate that theory gives for regrets of this variance.
#[inline(always)]
fn rate(log_experts: f32, variance: f32) -> f32 {
    (log_experts / (variance + PRIOR)).sqrt()
}

impl Aggregator {
    pub(crate) fn new(experts: usize) -> Aggregator {
        Aggregator { records: vec![Record::default(); experts].into(), known: 0 }
    }

    /// The same, with the first expert ahead at the start: it is to be outdone first.
    pub(crate) fn led_by_first(experts: usize) -> Aggregator {
        let mut all = Aggregator::new(experts);
        if let Some(first) = all.records.first_mut() {
            first.regret = [LEAD; 8];
        }
        all
    }

    fn log_experts(&self) -> f32 {
        (self.records.len() as f32).ln()
    }

    /// The weighted mean of the experts' answers; absent ones do not count. Zero if all are absent.
    pub(crate) fn combine(&self, answers: &[Option<Lanes>]) -> Lanes {
        vectorised(Combine { records: &self.records, log_experts: self.log_experts(), answers })
    }

    /// The weighted mean of values by the weights of one lane; experts without one do not count.
    pub(crate) fn weigh(&self, lane: usize, values: impl Iterator<Item = Option<f32>> + Clone) -> f32 {
        let log_experts = self.log_experts();
        let present = || self.records.iter().zip(values.clone()).filter_map(|(r, v)| Some((r, v?)));
        let power = |r: &Record| rate(log_experts, r.variance[lane]) * r.regret[lane];
        let peak = present().map(|(r, _)| power(r)).fold(f32::NEG_INFINITY, f32::max);
        let (mut sum, mut weights) = (0.0, 0.0);
        for (record, value) in present() {
            let weight = rate(log_experts, record.variance[lane]) * exp(power(record) - peak);
            sum += weight * value;
            weights += weight;
        }
        if weights > 0.0 { sum / weights } else { 0.0 }
    }

    /// The share that each of the experts with an answer has in what they say together, on average over
    /// the levels.
    pub(crate) fn shares(&self, answers: &[Option<Lanes>]) -> Vec<Option<f32>> {
        let share = |which: usize| {
            answers.get(which)?.as_ref()?;
            let indicator = (0..).zip(answers).map(|(k, a)| a.map(|_| f32::from(u8::from(k == which))));
            let all: f32 = (0..MEAN).map(|lane| self.weigh(lane, indicator.clone())).sum();
            Some(all / MEAN as f32)
        };
        (0..answers.len()).map(share).collect()
    }

    /// Learns from how the answers and their combination did.
    pub(crate) fn learn(&mut self, answers: &[Option<Lanes>], combined: &Lanes, actual: f32) {
        let mut slope = [0.0_f32; 8];
        for (s, (level, c)) in slope.iter_mut().zip(LEVELS.iter().zip(combined)) {
            *s = f32::from(u8::from(actual < *c)) - *level as f32;
        }
        // The squared error's, of a size like the others'.
        slope[MEAN] = (0.5 * (combined[MEAN] - actual)).clamp(-1.0, 1.0);
        self.welcome(answers);
        let log_experts = self.log_experts();
        vectorised(Credit { records: &mut self.records, log_experts, answers, combined, slope: &slope });
    }

    /// An expert that answers for the first time starts level with the best: what others have earned
    /// before says nothing against it.
    fn welcome(&mut self, answers: &[Option<Lanes>]) {
        let present = (0..).zip(answers).fold(0, |all, (k, a)| all | u32::from(a.is_some()) << k);
        let new = present & !self.known;
        if self.known == 0 {
            // All begin together, each with what it was given.
            self.known = new;
        }
        let new = present & !self.known;
        if new == 0 {
            return;
        }
        let log_experts = self.log_experts();
        let power = |r: &Record, lane: usize| rate(log_experts, r.variance[lane]) * r.regret[lane];
        let mut best = Record::default();
        let known = self.known;
        for (_, record) in (0..).zip(&self.records).filter(|(k, _)| known & (1 << k) != 0) {
            for lane in 0..8 {
                if power(record, lane) > power(&best, lane) {
                    best.regret[lane] = record.regret[lane];
                    best.variance[lane] = record.variance[lane];
                }
            }
        }
        for (_, record) in (0..).zip(&mut self.records).filter(|(k, _)| new & (1 << k) != 0) {
            *record = best;
        }
        self.known |= new;
    }
}

/// See [`Aggregator::combine`].
struct Combine<'a> {
    records: &'a [Record],
    log_experts: f32,
    answers: &'a [Option<Lanes>],
}

impl Work for Combine<'_> {
    type Output = Lanes;

    #[inline(always)]
    fn run(self) -> Lanes {
        let mut peak = [f32::NEG_INFINITY; 8];
        for (record, answer) in self.records.iter().zip(self.answers) {
            if answer.is_none() {
                continue;
            }
            for (peak, (variance, regret)) in peak.iter_mut().zip(record.variance.iter().zip(&record.regret))
            {
                let power = rate(self.log_experts, *variance) * regret;
                *peak = if power > *peak { power } else { *peak };
            }
        }
        let (mut sum, mut weights) = ([0.0_f32; 8], [0.0_f32; 8]);
        for (record, answer) in self.records.iter().zip(self.answers) {
            let Some(answer) = answer else { continue };
            let mut weight = [0.0_f32; 8];
            for lane in 0..8 {
                let rate = rate(self.log_experts, record.variance[lane]);
                weight[lane] = rate * exp(rate * record.regret[lane] - peak[lane]);
            }
            for lane in 0..8 {
                sum[lane] += weight[lane] * answer[lane];
                weights[lane] += weight[lane];
            }
        }
        for lane in 0..8 {
            sum[lane] /= if weights[lane] > 0.0 { weights[lane] } else { 1.0 };
        }
        sum
    }
}

/// The part of [`Aggregator::learn`] that is the same for every expert.
struct Credit<'a> {
    records: &'a mut [Record],
    log_experts: f32,
    answers: &'a [Option<Lanes>],
    combined: &'a Lanes,
    slope: &'a Lanes,
}

impl Work for Credit<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (record, answer) in self.records.iter_mut().zip(self.answers) {
            let Some(answer) = answer else { continue };
            for (lane, answer) in answer.iter().enumerate() {
                // The distance is bounded, not what it earns: a level's gains and losses are uneven.
                let won = self.slope[lane] * (self.combined[lane] - answer).clamp(-BOUND, BOUND);
                let (regret, variance) = (&mut record.regret[lane], &mut record.variance[lane]);
                *variance += won * won - FORGET * *variance;
                let second = rate(self.log_experts, *variance).min(0.5) * won * won;
                *regret += won - second - FORGET * *regret;
            }
        }
    }
}

/// e^x for x at most 0, to a relative error of 6e-6: ample for a weight, and the lanes stay in vector
/// registers, unlike with the library's.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // 2^(x·log2 e): the exponent's bits are the integer part, a polynomial the rest.
    let x = if x > -80.0 { x * std::f32::consts::LOG2_E } else { -115.0 };
    let floor = x.floor();
    let part = x - floor;
    let p = 0.013_683_983_f32;
    let p = p * part + 0.051_836_18;
    let p = p * part + 0.241_444_51;
    let p = p * part + 0.693_035_3;
    let p = p * part + 1.0;
    p * f32::from_bits(((floor as i32 + 127) as u32) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_leads_until_it_is_outdone_and_a_newcomer_begins_level_with_the_best() {
        let mut all = Aggregator::led_by_first(3);
        let mut answers = [Some([0.0; 8]), Some([1.0; 8]), None];
        let median = |all: &Aggregator, answers: &[Option<Lanes>; 3]| all.combine(answers)[3];
        let begin = median(&all, &answers);
        assert!(begin < 0.2, "{begin}");
        all.learn(&answers, &all.combine(&answers), 0.5);
        assert!(median(&all, &answers) < 0.3);
        for _ in 0..200 {
            all.learn(&answers, &all.combine(&answers), 1.1);
        }
        assert!(median(&all, &answers) > 0.95);
        assert_eq!(all.weigh(3, [Some(0.0), Some(1.0), None].into_iter()), median(&all, &answers));
        answers[2] = Some([2.0; 8]);
        all.learn(&answers, &all.combine(&answers), 1.1);
        let (second, third) = (all.weigh(3, [None, Some(1.0), Some(0.0)].into_iter()), 0.5);
        assert!((second - third).abs() < 0.2, "{second}");
        let shares = all.shares(&answers).into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>();
        assert!((shares.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{shares:?}");
        assert!(shares[0] < 0.05 && shares[1] > 0.3 && shares[2] > 0.3, "{shares:?}");
        assert_eq!(all.shares(&[None, Some([1.0; 8]), None]), [None, Some(1.0), None]);
    }
}
