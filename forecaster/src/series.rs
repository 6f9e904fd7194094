//! One series: what is remembered of it, and how a reading becomes a forecast.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::anomaly::{AnomalySettings, Change, Detector, Episode};
use crate::differences::Differences;
use crate::features::{self, INPUTS};
use crate::interval::Interval;
use crate::kernel::{HiddenState, Scratch};
use crate::model::Model;
use crate::reading::{MEDIAN, Reading, Step, Timestamp, mean_of};
use crate::scale::Scale;

/// Movements a series must have shown before its scale carries a network's forecast.
const MIN_MOVES: u32 = 4;
/// Bound on an error, in units of the scale: a wild value must not stand for a series' quality.
const MAX_ERROR: f64 = 100.0;
/// Readings over which the errors of a series are averaged.
const ERROR_MEMORY: f64 = 500.0;

/// Everything kept of one series between readings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    last: Option<Reading>,
    interval: Interval,
    scale: Scale,
    differences: Differences,
    hidden: HiddenState,
    /// Quantiles of the next difference in units of the scale, from the network.
    outlook: Option<[f32; 7]>,
    /// Quantiles forecast for the next reading.
    expected: Option<[f64; 7]>,
    detector: Detector,
    episode: Episode,
    score: f64,
    errors: Errors,
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
        self.last
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

    /// Whether the network speaks for this series (and not the naive forecast).
    #[must_use]
    pub fn uses_model(&self) -> bool {
        self.outlook.is_some()
    }

    /// Takes in a reading newer than the last.
    pub fn observe(
        &mut self,
        reading: Reading,
        configured: Option<i64>,
        settings: &AnomalySettings,
        model: Option<&Model>,
        scratch: &mut Scratch,
    ) -> (Outcome, [f32; INPUTS]) {
        let verification = self.verify(reading, configured);
        let change = self.assess(reading, verification.as_ref(), self.interval(configured), settings);
        let outcome = Outcome { score: self.score, flagged: self.episode.flagged(), change, verification };
        let inputs = self.advance(reading, configured);
        self.outlook = model
            .and_then(|m| m.step(&inputs, &mut self.hidden, scratch))
            .filter(|_| self.scale.moves() >= MIN_MOVES);
        self.expected = self.first_step();
        (outcome, inputs)
    }

    fn assess(
        &mut self,
        reading: Reading,
        verification: Option<&Verification>,
        interval: Option<i64>,
        settings: &AnomalySettings,
    ) -> Option<Change> {
        let expected = verification.map(|v| &v.expected);
        let assessment = self.detector.observe(reading.value, expected);
        self.score = assessment.score;
        let deviation = expected.map_or(0.0, |q| reading.value - q[MEDIAN]);
        self.episode.observe(reading.time, assessment.strength, deviation, interval, settings)
    }

    fn verify(&mut self, reading: Reading, configured: Option<i64>) -> Option<Verification> {
        let (last, mut expected) = (self.last?, self.expected?);
        let gap = self.gap(reading.time, configured);
        if gap > 1.5 {
            let (median, widening) = (expected[MEDIAN], gap.sqrt());
            expected = expected.map(|q| median + (q - median) * widening);
        }
        let scale = self.scale.scale();
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

    /// Intervals since the last reading; 1 while that cannot be said.
    pub(crate) fn gap(&self, time: Timestamp, configured: Option<i64>) -> f64 {
        match (self.last, configured.or_else(|| self.interval.learned())) {
            (Some(last), Some(interval)) => (time.0 - last.time.0) as f64 / interval as f64,
            _ => 1.0,
        }
    }

    /// The part of a reading's work that no model enters: interval, scale, differences. Training
    /// runs it over history, so what it learns from is what it will see.
    pub fn advance(&mut self, reading: Reading, configured: Option<i64>) -> [f32; INPUTS] {
        let mut difference = 0.0;
        let mut movement = None;
        if let Some(last) = self.last {
            self.interval.observe(reading.time.0 - last.time.0);
            difference = reading.value - last.value;
            movement = Some(difference / self.gap(reading.time, configured).max(1.0).sqrt());
        }
        let gap = self.gap(reading.time, configured);
        if let Some(movement) = movement {
            self.differences.observe(movement);
        }
        self.scale.observe(reading.value, movement.map(|m| (m, &self.differences)));
        self.last = Some(reading);
        let next = Timestamp(reading.time.0 + self.interval(configured).unwrap_or(0));
        features::inputs(reading, difference, gap, next, &self.scale)
    }

    /// Usual size of a movement between readings.
    #[must_use]
    pub fn scale(&self) -> f64 {
        self.scale.scale()
    }

    fn interval(&self, configured: Option<i64>) -> Option<i64> {
        configured.or_else(|| self.interval.learned())
    }

    /// Quantiles of the next difference, in the series' own unit; none before the second reading.
    fn offsets(&self) -> Option<[f64; 7]> {
        let naive = self.differences.quantiles()?;
        Some(self.outlook.map_or(naive, |o| o.map(|q| f64::from(q) * self.scale.scale())))
    }

    fn first_step(&self) -> Option<[f64; 7]> {
        let (last, offsets) = (self.last?, self.offsets()?);
        let quantiles = offsets.map(|o| last.value + o);
        let quantiles = if self.outlook.is_some() { quantiles } else { tidy(quantiles, last.value) };
        quantiles.iter().all(|q| q.is_finite()).then_some(quantiles)
    }

    /// Forecasts `horizon` steps from the newest reading into `out`; none before the second reading.
    ///
    /// Beyond the first step the network is fed its own median, and the naive forecast stays at the
    /// last value; spreads of the steps add up as those of independent differences do.
    pub fn forecast(
        &self,
        horizon: usize,
        configured: Option<i64>,
        model: Option<&Model>,
        scratch: &mut Scratch,
        out: &mut Vec<Step>,
    ) {
        out.clear();
        let (Some(last), Some(interval), Some(first), Some(offsets)) =
            (self.last, self.interval(configured), self.expected, self.offsets())
        else {
            return;
        };
        let at = |step: usize| Timestamp(last.time.0.saturating_add(interval.saturating_mul(step as i64)));
        out.push(Step { time: at(1), mean: mean_of(&first), quantiles: first });
        if horizon == 1 {
            return;
        }
        let mut ahead = model.filter(|_| self.outlook.is_some()).map(|m| (m, self.hidden.clone()));
        let mut median = first[MEDIAN];
        let mut spread = offsets.map(|o| o - offsets[MEDIAN]);
        let mut difference = median - last.value;
        for step in 2..=horizon {
            let mut next = offsets;
            if let Some((model, hidden)) = &mut ahead {
                let reading = Reading { time: at(step - 1), value: median };
                let inputs = features::inputs(reading, difference, 1.0, at(step), &self.scale);
                if let Some(outlook) = model.step(&inputs, hidden, scratch) {
                    next = outlook.map(|q| f64::from(q) * self.scale.scale());
                }
            }
            difference = next[MEDIAN];
            median += difference;
            for (s, n) in spread.iter_mut().zip(next) {
                *s = s.hypot(n - next[MEDIAN]).copysign(*s);
            }
            let quantiles = spread.map(|s| median + s);
            if quantiles.iter().any(|q| !q.is_finite()) {
                return;
            }
            out.push(Step { time: at(step), mean: mean_of(&quantiles), quantiles });
        }
    }

    /// Continues under a model installed anew, from a state rebuilt for it; none starts from zero.
    /// Errors are counted anew.
    pub fn adopt(&mut self, rebuilt: Option<Rebuilt>) {
        self.errors = Errors::default();
        (self.hidden, self.outlook) = rebuilt.map_or_else(Default::default, |r| (r.hidden, r.outlook));
        self.outlook = self.outlook.filter(|_| self.scale.moves() >= MIN_MOVES);
        self.expected = self.first_step();
    }
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

/// What a model makes of a series' past.
#[derive(Debug, Clone, PartialEq)]
pub struct Rebuilt {
    /// Time of the last reading in it.
    pub time: Timestamp,
    /// Hidden state after that reading.
    pub hidden: HiddenState,
    /// Quantiles of the next difference in units of the scale.
    pub outlook: Option<[f32; 7]>,
}

impl Rebuilt {
    /// Before the first reading.
    pub(crate) fn start(model: &Model) -> Rebuilt {
        Rebuilt { time: Timestamp(i64::MIN), hidden: model.network().zero_state(), outlook: None }
    }

    /// Takes in the inputs of a further reading.
    pub(crate) fn step(
        &mut self,
        time: Timestamp,
        inputs: &[f32; INPUTS],
        model: &Model,
        scratch: &mut Scratch,
    ) {
        self.time = time;
        self.outlook = model.step(inputs, &mut self.hidden, scratch);
    }
}

/// What a model makes of a series' readings, in order of time; none if there are none.
pub fn rebuild(
    model: &Model,
    readings: impl IntoIterator<Item = Reading>,
    configured: Option<i64>,
) -> Option<Rebuilt> {
    let mut series = Series::default();
    let mut scratch = Scratch::default();
    let mut rebuilt: Option<Rebuilt> = None;
    for reading in readings {
        let inputs = series.advance(reading, configured);
        rebuilt.get_or_insert_with(|| Rebuilt::start(model)).step(reading.time, &inputs, model, &mut scratch);
    }
    rebuilt
}
