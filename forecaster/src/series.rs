//! One series: what is remembered of it, and how a reading becomes a forecast.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::aggregate::Lanes;
use crate::anomaly::{self, Change, Episode};
use crate::experts::POINTS;
use crate::features::FEATURES;
use crate::kernel::{HiddenState, Scratch};
use crate::local::Local;
use crate::mixer::Mixer;
use crate::model::Model;
use crate::reading::{MEDIAN, Reading, Step, Timestamp};

/// Movements a series must have shown before its scale carries a network's forecast.
const MIN_MOVES: u32 = 4;
/// Bound on an error, in units of the scale: a wild value must not stand for a series' quality.
const MAX_ERROR: f64 = 100.0;
/// Readings over which the errors of a series are averaged.
const ERROR_MEMORY: f64 = 500.0;

/// Experts that are weighed: the naive forecast, the points, the network.
const EXPERTS: usize = 1 + POINTS + 1;

/// Everything kept of one series between readings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    local: Local,
    mixer: Mixer,
    hidden: HiddenState,
    /// What the network answered, in units of the scale; none if it had no say in what is expected.
    outlook: Option<Lanes>,
    /// Quantiles forecast for the next reading, and the mean.
    expected: Option<Expected>,
    episode: Episode,
    score: f64,
    errors: Errors,
}

impl Default for Series {
    fn default() -> Self {
        Series {
            local: Local::default(),
            mixer: Mixer::new(EXPERTS),
            hidden: HiddenState::default(),
            outlook: None,
            expected: None,
            episode: Episode::default(),
            score: 0.0,
            errors: Errors::default(),
        }
    }
}

/// What is forecast for the next reading.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Expected {
    mean: f64,
    quantiles: [f64; 7],
}

/// Recent errors of the median and of the last value, averaged alike.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Errors {
    seen: u32,
    median: f64,
    naive: f64,
}

/// What a reading showed of the forecast made for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// How abnormal the reading was, 0 to 1.
    pub score: f64,
    /// Whether it belongs to an anomaly.
    pub flagged: bool,
    /// Whether an anomaly begins or ends with it.
    pub change: Option<Change>,
    /// How the forecast did; none where there was none.
    pub verification: Option<Verification>,
}

/// A forecast against the reading that came.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verification {
    /// The quantiles that were forecast, widened if the reading came after a gap.
    pub expected: [f64; 7],
    /// Whether the reading lay within the 90 % interval.
    pub inside: bool,
    /// Absolute error of the median, in units of the series' scale.
    pub error: f64,
    /// Absolute error of the last value, in units of the series' scale.
    pub naive_error: f64,
}

impl Series {
    /// The newest reading.
    #[must_use]
    pub fn last(&self) -> Option<Reading> {
        self.local.last()
    }

    /// Score of the newest reading, and whether it belongs to an anomaly.
    #[must_use]
    pub fn state_of_last(&self) -> (f64, bool) {
        (self.score, self.episode.flagged())
    }

    /// Recent mean absolute error of the median over that of the last value; none before it has
    /// settled.
    #[must_use]
    pub fn relative_error(&self) -> Option<f64> {
        (self.errors.seen >= 20 && self.errors.naive > 0.0).then(|| self.errors.median / self.errors.naive)
    }

    /// Whether the network speaks for this series (and not the local experts alone).
    #[must_use]
    pub fn uses_model(&self) -> bool {
        self.outlook.is_some()
    }

    /// Takes in a reading newer than the last.
    pub fn observe(
        &mut self,
        reading: Reading,
        configured: Option<i64>,
        model: Option<&Model>,
        scratch: &mut Scratch,
    ) -> Outcome {
        let verification = self.verify(reading, configured);
        self.score = verification.map_or(0.0, |v| anomaly::score(reading.value, &v.expected));
        let change = self.episode.observe(reading.time, self.score);
        let outcome = Outcome { score: self.score, flagged: self.episode.flagged(), change, verification };
        self.follow(reading, configured, model, true, scratch);
        outcome
    }

    fn verify(&mut self, reading: Reading, configured: Option<i64>) -> Option<Verification> {
        let (last, mut expected) = (self.last()?, self.expected?.quantiles);
        let gap = self.local.gap(reading.time, configured);
        if gap > 1.5 {
            let (median, widening) = (expected[MEDIAN], gap.sqrt());
            expected = expected.map(|q| median + (q - median) * widening);
        }
        let scale = self.local.scale().scale();
        let error = ((reading.value - expected[MEDIAN]).abs() / scale).min(MAX_ERROR);
        let naive_error = ((reading.value - last.value).abs() / scale).min(MAX_ERROR);
        let e = &mut self.errors;
        e.seen = e.seen.saturating_add(1);
        let memory = f64::from(e.seen).min(ERROR_MEMORY);
        e.median += (error - e.median) / memory;
        e.naive += (naive_error - e.naive) / memory;
        let inside = (expected[0]..=expected[6]).contains(&reading.value);
        Some(Verification { expected, inside, error, naive_error })
    }

    /// Learns from a reading and forecasts the next. A model that is not `heard` sees the reading, and
    /// has no say.
    fn follow(
        &mut self,
        reading: Reading,
        configured: Option<i64>,
        model: Option<&Model>,
        heard: bool,
        scratch: &mut Scratch,
    ) {
        if let Some(offset) = self.local.offset(reading.value) {
            self.mixer.learn(offset);
        }
        let mut features = [0.0; FEATURES];
        self.local.advance(reading, configured, &mut features);
        let network = model
            .and_then(|m| m.step(&features, &mut self.hidden, scratch))
            .filter(|_| self.local.scale().moves() >= MIN_MOVES);
        self.outlook = network.filter(|_| heard);
        self.expected = self.expect();
    }

    fn expect(&mut self) -> Option<Expected> {
        let last = self.last()?.value;
        let scale = self.local.scale().scale();
        let naive = self.local.differences().quantiles()?;
        let mut answer: Lanes = [0.0; 8];
        for (a, q) in answer.iter_mut().zip(naive) {
            *a = (q / scale).clamp(-1e6, 1e6) as f32;
        }
        let answers = [Some(answer)].into_iter().chain(self.local.experts().answers()).chain([self.outlook]);
        let issued = self.mixer.combine(answers);
        let at = |offset: f32| last + f64::from(offset) * scale;
        let [quantiles @ .., mean] = issued.map(at);
        quantiles.iter().all(|q| q.is_finite()).then_some(Expected { mean, quantiles })
    }

    pub fn weights(&self) -> String { self.mixer.weights() }
    /// Usual size of a movement between readings.
    #[must_use]
    pub fn scale(&self) -> f64 {
        self.local.scale().scale()
    }

    /// Forecasts `horizon` steps from the newest reading into `out`; none before the second reading.
    pub fn forecast(
        &self,
        horizon: usize,
        configured: Option<i64>,
        out: &mut Vec<Step>,
    ) {
        out.clear();
        let (Some(last), Some(interval), Some(first)) =
            (self.last(), self.local.interval(configured), self.expected)
        else {
            return;
        };
        let at = |step: usize| Timestamp(last.time.0.saturating_add(interval.saturating_mul(step as i64)));
        out.push(Step { time: at(1), mean: first.mean, quantiles: first.quantiles });
        for step in 2..=horizon {
            out.push(Step { time: at(step), mean: first.mean, quantiles: first.quantiles });
        }
    }
}

impl Series {
    /// Continues under a model installed anew, from a state rebuilt for it; none starts from zero.
    /// Errors are counted anew.
    pub fn adopt(&mut self, rebuilt: Option<Rebuilt>) {
        self.errors = Errors::default();
        match rebuilt {
            Some(Rebuilt { series }) => {
                (self.hidden, self.mixer, self.outlook) = (series.hidden, series.mixer, series.outlook);
            }
            None => (self.hidden, self.outlook) = Default::default(),
        }
        self.expected = self.expect();
    }
}

/// What a model makes of a series' past.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rebuilt {
    series: Box<Series>,
}

impl Rebuilt {
    /// Takes in a further reading; one that is not newer is passed over.
    pub(crate) fn step(
        &mut self,
        reading: Reading,
        configured: Option<i64>,
        model: &Model,
        heard: bool,
        scratch: &mut Scratch,
    ) {
        if self.series.last().is_none_or(|last| reading.time > last.time) {
            self.series.follow(reading, configured, Some(model), heard, scratch);
        }
    }
}

/// What a model makes of a series' readings, in order of time; none if there are none. The model is not
/// heard on the first `learned` of them, which it was trained on: its errors there say nothing of
/// those to come.
pub fn rebuild(
    model: &Model,
    readings: impl IntoIterator<Item = Reading>,
    learned: usize,
    configured: Option<i64>,
) -> Option<Rebuilt> {
    let mut scratch = Scratch::default();
    let mut rebuilt: Option<Rebuilt> = None;
    for (row, reading) in readings.into_iter().enumerate() {
        rebuilt.get_or_insert_default().step(reading, configured, model, row >= learned, &mut scratch);
    }
    rebuilt
}

/// Rounds to 14 digits of the largest, outwards from the last value, which stays as it is: what a sum
/// of a value and a difference of values loses at the end would put a reading that repeats an old one
/// just outside an interval that ends there.
fn tidy(quantiles: [f64; 7], last: f64) -> [f64; 7] {
    // Shorter than half a digit: nothing but rounding.
    const SLACK: f64 = 0.01;
    let largest = quantiles.iter().fold(0.0_f64, |a, q| a.max(q.abs()));
    let digits = 13.0 - largest.log10().floor();
    if !(0.0..=200.0).contains(&digits) {
        return quantiles;
    }
    let unit = 10_f64.powi(digits as i32);
    quantiles.map(|q| match q.partial_cmp(&last) {
        Some(Ordering::Less) => (q * unit + SLACK).floor() / unit,
        Some(Ordering::Greater) => (q * unit - SLACK).ceil() / unit,
        _ => q,
    })
}

