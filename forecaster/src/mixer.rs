//! From the experts' answers to one distribution: weighed, put in order, rounded where the series is,
//! calibrated.

use serde::{Deserialize, Serialize};

use crate::aggregate::{Aggregator, Lanes, MEAN};
use crate::conformal::Calibration;
use crate::experts::{MEAN_POINT, POINTS, SLOW_POINT};
use crate::reading::MEDIAN;
use crate::rls::Rls;

/// Trained models of a stream: networks and trees.
pub(crate) const MODELS: usize = 3;
/// Experts that are given: the naive forecast, the points, the models.
pub(crate) const EXPERTS: usize = 1 + POINTS + MODELS;
/// What the experts are called, the regression on what all others say last.
const NAMES: [&str; EXPERTS + 1] = [
    "naive",
    "ewma 0.6",
    "ewma 0.3",
    "ewma 0.1",
    "damped trend",
    "autoregression, slow",
    "autoregression, fast",
    "autoregression, narrow",
    "network 1",
    "network 2",
    "forest",
    "regression on all",
];
/// Answers for the next reading, in units of the scale.
pub(crate) type Answers = [Option<Lanes>; EXPERTS];

/// Inputs of the stack: the models' medians, those of four points, the last error, one.
const STACKED: usize = MODELS + 6;
/// Share of its past that the stack keeps with each reading.
const KEEP: f32 = 0.997;
/// Bound on what the stack answers and learns from.
const BOUND: f32 = 30.0;

/// Weighs experts and calibrates what they say together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Mixer {
    weights: Aggregator,
    stack: Stack,
    /// What the experts say together, before rounding.
    combined: Lanes,
    rounding: Rounding,
    calibration: Calibration,
    issued: Option<Lanes>,
}

impl Default for Mixer {
    fn default() -> Self {
        Mixer {
            weights: Aggregator::led_by_first(EXPERTS + 1),
            stack: Stack::default(),
            combined: [0.0; 8],
            rounding: Rounding::default(),
            calibration: Calibration::default(),
            issued: None,
        }
    }
}

fn ordered(mut quantiles: Lanes) -> Lanes {
    quantiles[..MEAN].sort_unstable_by(f32::total_cmp);
    quantiles
}

impl Mixer {
    /// What the experts say, the stack last.
    fn all(&self, answers: &Answers) -> [Option<Lanes>; EXPERTS + 1] {
        let mut all = [None; EXPERTS + 1];
        all[..EXPERTS].copy_from_slice(answers);
        all[EXPERTS] = self.stack.answer(answers);
        all
    }

    /// Learns where the series went, `answers` being those that were combined for it.
    pub(crate) fn learn(&mut self, answers: &Answers, actual: f32) {
        let Some(issued) = &self.issued else { return };
        self.calibration.learn(issued, actual);
        self.rounding.learn(&self.combined, actual);
        self.weights.learn(&self.all(answers), &self.combined, actual);
        self.stack.learn(answers, actual);
    }

    /// Weighs the answers for the next reading; `grid` is the step of which the series' values are whole
    /// multiples.
    pub(crate) fn combine(&mut self, answers: &Answers, grid: Option<f32>) {
        self.combined = ordered(self.weights.combine(&self.all(answers)));
        let rounded = self.rounding.apply(&self.combined, grid);
        self.issued = Some(self.calibration.apply(ordered(rounded)));
    }

    /// The experts that answer, by name, each with its share in what they say together.
    pub(crate) fn shares(&self, answers: &Answers) -> Vec<(&'static str, f32)> {
        let shares = self.weights.shares(&self.all(answers));
        NAMES.into_iter().zip(shares).filter_map(|(name, share)| Some((name, share?))).collect()
    }

    /// Takes in a new scale: offsets are in units of it.
    pub(crate) fn rescale(&mut self, factor: f32) {
        self.stack.error = (self.stack.error * factor).clamp(-BOUND, BOUND);
        self.stack.size = (self.stack.size * factor).clamp(1e-3, BOUND);
    }

    /// The distribution of the next reading; none before there was anything to say.
    pub(crate) fn issued(&self) -> Option<&Lanes> {
        self.issued.as_ref()
    }

    /// The median that the experts' points make together, for steps further ahead.
    pub(crate) fn median(&self, points: impl Iterator<Item = Option<f32>> + Clone) -> f32 {
        self.weights.weigh(MEDIAN, points)
    }
}

/// An expert made of the others: the network's distribution, moved to where a regression on what all of
/// them say puts it. It adapts a network that was trained long ago, or elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Stack {
    model: Rls<STACKED>,
    /// Where the network was wrong the last time.
    error: f32,
    /// Usual size of an error.
    size: f32,
}

impl Default for Stack {
    fn default() -> Self {
        let mut model = Rls::new(0.03);
        model.set(0, 1.0);
        Stack { model, error: 0.0, size: 1.0 }
    }
}

impl Stack {
    /// The network's distribution and the regression's inputs.
    fn inputs(&self, answers: &Answers) -> Option<(Lanes, [f32; STACKED])> {
        let models = &answers[1 + POINTS..];
        let network = models[0]?;
        let median = network[MEDIAN].clamp(-BOUND, BOUND);
        let point = |at: usize| answers[1 + at].map_or(0.0, |a| a[MEAN].clamp(-BOUND, BOUND));
        let mut x = [0.0; STACKED];
        x[0] = median;
        for (x, model) in x[1..].iter_mut().zip(&models[1..]) {
            *x = model.map_or(0.0, |m| m[MEDIAN].clamp(-BOUND, BOUND) - median);
        }
        let rest = [
            point(SLOW_POINT),
            point(SLOW_POINT + 1),
            point(SLOW_POINT + 2),
            point(MEAN_POINT),
            self.error,
            1.0,
        ];
        x[MODELS..].copy_from_slice(&rest);
        Some((network, x))
    }

    fn answer(&self, answers: &Answers) -> Option<Lanes> {
        let (network, x) = self.inputs(answers)?;
        let moved = self.model.predict(&x).clamp(-BOUND, BOUND) - x[0];
        Some(network.map(|q| q + moved))
    }

    fn learn(&mut self, answers: &Answers, actual: f32) {
        let Some((_, x)) = self.inputs(answers) else { return };
        let target = actual.clamp(-BOUND, BOUND);
        let error = (target - self.model.predict(&x)).clamp(-4.0 * self.size, 4.0 * self.size);
        self.size = (self.size + 0.02 * (error.abs() - self.size)).max(1e-3);
        self.model.learn(&x, error, KEEP);
        self.error = target - x[0];
    }
}

/// Chooses between quantiles as they are and rounded to the values that the series takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Rounding {
    weights: Aggregator,
    grid: Option<f32>,
}

impl Default for Rounding {
    fn default() -> Self {
        Rounding { weights: Aggregator::new(2), grid: None }
    }
}

fn both(quantiles: &Lanes, grid: f32) -> [Option<Lanes>; 2] {
    let mut rounded = quantiles.map(|q| (q / grid).round() * grid);
    rounded[MEAN] = quantiles[MEAN];
    [Some(*quantiles), Some(rounded)]
}

impl Rounding {
    fn learn(&mut self, quantiles: &Lanes, actual: f32) {
        if let Some(grid) = self.grid {
            let both = both(quantiles, grid);
            self.weights.learn(&both, &self.weights.combine(&both), actual);
        }
    }

    fn apply(&mut self, quantiles: &Lanes, grid: Option<f32>) -> Lanes {
        self.grid = grid;
        grid.map_or(*quantiles, |grid| self.weights.combine(&both(quantiles, grid)))
    }
}
