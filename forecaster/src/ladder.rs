//! Steps beyond the first: what to expect of each, learned from how forecasts so far ahead turned out.
//!
//! A few distances ahead, the rungs, are followed from origin to outcome. On each rung the candidates
//! (see [`Candidates`]) are weighed and their errors tracked as those of the experts one step ahead are;
//! steps between two rungs lie between what both make of them.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::aggregate::{Aggregator, Lanes, MEAN};
use crate::conformal::Calibration;
use crate::reading::{Reading, Timestamp};
use crate::spread::Spread;

/// Number of candidates.
pub(crate) const CANDIDATES: usize = 4;
/// Points for a step, as offsets from the last value in units of the scale: the path that the model's
/// own medians make, the last value, the value at that phase before, the move between the phases.
pub(crate) type Candidates = [Option<f32>; CANDIDATES];

/// Origins followed on a rung at the same time.
const FOLLOWED: usize = 8;

/// All rungs up to a horizon.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ladder {
    rungs: Vec<Rung>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Rung {
    step: u32,
    /// Readings until an origin is followed again.
    rest: u32,
    followed: VecDeque<Followed>,
    weights: Aggregator,
    spreads: [Spread; CANDIDATES],
    calibration: Calibration,
}

/// A forecast under way.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Followed {
    due: Timestamp,
    from: f64,
    scale: f64,
    candidates: Candidates,
    issued: Lanes,
}

impl Rung {
    fn new(step: u32) -> Rung {
        Rung {
            step,
            rest: 0,
            followed: VecDeque::new(),
            weights: Aggregator::new(CANDIDATES),
            // Before anything is learned errors grow as those of a random walk do.
            spreads: std::array::from_fn(|_| Spread::of_size((step as f32).sqrt())),
            calibration: Calibration::default(),
        }
    }

    fn answers(&self, candidates: &Candidates) -> [Option<Lanes>; CANDIDATES] {
        std::array::from_fn(|k| candidates[k].map(|point| self.spreads[k].around(point)))
    }

    fn combined(&self, candidates: &Candidates) -> Lanes {
        let mut combined = self.weights.combine(&self.answers(candidates));
        combined[..MEAN].sort_unstable_by(f32::total_cmp);
        combined
    }

    fn issue(&self, candidates: &Candidates) -> Lanes {
        self.calibration.apply(self.combined(candidates))
    }

    fn learn(&mut self, Followed { candidates, issued, .. }: &Followed, actual: f32) {
        let combined = self.combined(candidates);
        self.calibration.learn(issued, actual);
        self.weights.learn(&self.answers(candidates), &combined, actual);
        for (spread, point) in self.spreads.iter_mut().zip(candidates) {
            if let Some(point) = point {
                spread.learn(actual - point);
            }
        }
    }
}

impl Ladder {
    /// Adds the rungs that a horizon needs: 2, 3, 4, 6, 8, 12, 16, 24 … and the horizon itself; takes
    /// away those beyond it.
    pub(crate) fn fit(&mut self, horizon: usize) {
        let horizon = horizon as u32;
        if self.rungs.last().map_or(1, |r| r.step) == horizon {
            return;
        }
        let steps = (1..32).flat_map(|k| [2_u32.pow(k), 3 * 2_u32.pow(k - 1)]);
        let wanted: Vec<u32> =
            steps.take_while(|s| *s < horizon).chain([horizon]).filter(|s| *s > 1).collect();
        self.rungs.retain(|r| wanted.contains(&r.step));
        for step in wanted {
            if let Err(at) = self.rungs.binary_search_by_key(&step, |r| r.step) {
                self.rungs.insert(at, Rung::new(step));
            }
        }
    }

    /// Learns from the forecasts that were for this reading, give or take half an interval.
    pub(crate) fn learn(&mut self, reading: Reading, interval: i64) {
        for rung in &mut self.rungs {
            while let Some(followed) = rung.followed.front().copied() {
                if followed.due.0 > reading.time.0.saturating_add(interval / 2) {
                    break;
                }
                rung.followed.pop_front();
                if followed.due.0 >= reading.time.0.saturating_sub(interval / 2) {
                    let actual = ((reading.value - followed.from) / followed.scale).clamp(-1e6, 1e6) as f32;
                    rung.learn(&followed, actual);
                }
            }
        }
    }

    /// Follows the forecast made from a reading; `candidates` of step 1 first.
    pub(crate) fn follow(&mut self, origin: Reading, interval: i64, scale: f64, candidates: &[Candidates]) {
        for rung in &mut self.rungs {
            if rung.rest > 0 {
                rung.rest -= 1;
                continue;
            }
            let Some(candidates) = candidates.get(rung.step as usize - 1) else { continue };
            rung.rest = rung.step / FOLLOWED as u32;
            let due = Timestamp(origin.time.0.saturating_add(interval.saturating_mul(i64::from(rung.step))));
            // Where the interval has shrunk, what is due only after this is given up.
            while rung.followed.back().is_some_and(|f| f.due >= due) {
                rung.followed.pop_back();
            }
            let issued = rung.issue(candidates);
            rung.followed.push_back(Followed {
                due,
                from: origin.value,
                scale,
                candidates: *candidates,
                issued,
            });
        }
    }

    /// The distribution of a step beyond the first.
    pub(crate) fn expect(&self, step: usize, candidates: &Candidates) -> Option<Lanes> {
        let above = self.rungs.iter().position(|r| r.step as usize >= step)?;
        let high = self.rungs.get(above)?;
        let high_answer = high.issue(candidates);
        let low = above.checked_sub(1).and_then(|below| self.rungs.get(below));
        let Some(low) = low.filter(|_| high.step as usize != step) else { return Some(high_answer) };
        let part = (step as f32 / low.step as f32).ln() / (high.step as f32 / low.step as f32).ln();
        let low_answer = low.issue(candidates);
        Some(std::array::from_fn(|i| low_answer[i] + part * (high_answer[i] - low_answer[i])))
    }
}
