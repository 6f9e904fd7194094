//! One series: what is remembered of it, and how a reading becomes a forecast.

mod feedback;

use serde::{Deserialize, Serialize};

use crate::aggregate::{Lanes, MEAN};
use crate::anomaly::{Change, Detector, Episode};
use crate::engine::StreamSpec;
use crate::features::FEATURES;
use crate::kernel::Scratch;
use crate::ladder::{Candidates, Ladder};
use crate::local::Local;
use crate::mixer::{Answers, EXPERTS, MODELS, Mixer};
use crate::model::{Model, ModelState};
use crate::reading::{LEVELS, MEDIAN, Reading, Step, Timestamp};
use crate::rebuilt::Rebuilt;

/// Movements a series must have shown before its scale carries a model's forecast.
const MIN_MOVES: u32 = 4;
/// Readings that show well enough how a new model does beside the experts.
const ENOUGH: u32 = 1000;
/// Bound on an error, in units of the scale: a wild value must not stand for a series' quality.
const MAX_ERROR: f64 = 100.0;
/// Bound on what one reading weighs where models are compared, in the unit of the comparison.
const MAX_LOSS: f64 = 8.0;
/// Readings over which the errors of a series are averaged.
const ERROR_MEMORY: f64 = 500.0;
/// What single precision may lose of an offset: quantiles are moved outwards by it, so that a reading
/// that repeats an old one does not fall just outside an interval that ends there.
const PRECISION: f64 = 1e-6;

/// Everything kept of one series between readings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    local: Local,
    state: ModelState,
    /// What the models answered, in units of the scale; none that had no say in what is expected.
    outlook: [Option<Lanes>; MODELS],
    mixer: Mixer,
    /// The quantiles that were given out for the next reading, where a model came in since.
    given: Option<Box<[f64; 7]>>,
    ladder: Ladder,
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

/// How a forecast did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Judged {
    /// Mean pinball loss of the seven quantiles.
    pub(crate) loss: f64,
    /// Absolute error of the median.
    pub(crate) error: f64,
    /// Absolute error of the last value.
    pub(crate) naive_error: f64,
    /// Whether the reading lay within the 90 % interval.
    pub(crate) inside: bool,
}

/// Room that a reading's work is done in, one a thread.
#[derive(Debug, Clone, Default)]
pub struct Room {
    pub(crate) scratch: Scratch,
    state: ModelState,
    candidates: Vec<Candidates>,
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

    /// When the anomaly that the series is in began.
    #[must_use]
    pub fn flagged_since(&self) -> Option<Timestamp> {
        self.episode.since()
    }

    /// The experts by name, each with its share in the forecast of the next reading; none before there is
    /// one.
    #[must_use]
    pub fn experts(&self) -> Vec<(&'static str, f32)> {
        self.answers().map(|answers| self.mixer.shares(&answers)).unwrap_or_default()
    }

    /// The first step of the forecast from the newest reading, as [`Series::forecast`] gives it.
    #[must_use]
    pub fn next(&self, spec: &StreamSpec) -> Option<Step> {
        let (last, interval) = (self.last()?, self.local.interval(spec.interval)?);
        let (mean, quantiles) = self.expected()?;
        Some(Step { time: Timestamp(last.time.0.saturating_add(interval)), mean, quantiles })
    }

    /// Recent mean absolute error of the median over that of the last value; none before it has
    /// settled.
    #[must_use]
    pub fn relative_error(&self) -> Option<f64> {
        (self.errors.seen >= 20 && self.errors.naive > 0.0).then(|| self.errors.median / self.errors.naive)
    }

    /// Whether a trained model has a say for this series (and not the online experts alone).
    #[must_use]
    pub fn uses_model(&self) -> bool {
        self.outlook.iter().any(Option::is_some)
    }

    /// Usual size of a movement between readings.
    #[must_use]
    pub fn scale(&self) -> f64 {
        self.local.scale().scale()
    }

    /// Takes in a reading newer than the last, and forecasts from it into `steps`.
    pub fn observe(
        &mut self,
        reading: Reading,
        spec: &StreamSpec,
        model: Option<&Model>,
        room: &mut Room,
        steps: &mut Vec<Step>,
    ) -> Outcome {
        let verification = self.verify(reading, spec.interval);
        let change = self.assess(reading, verification.as_ref(), spec);
        let outcome = Outcome { score: self.score, flagged: self.episode.flagged(), change, verification };
        self.follow(reading, spec, model, true, room);
        self.steps(spec, room, steps);
        outcome
    }

    fn assess(
        &mut self,
        reading: Reading,
        verification: Option<&Verification>,
        spec: &StreamSpec,
    ) -> Option<Change> {
        let expected = verification.map(|v| &v.expected);
        let assessment = self.detector.observe(reading.value, expected);
        self.score = assessment.score;
        let deviation = expected.map_or(0.0, |q| reading.value - q[MEDIAN]);
        let interval = self.local.interval(spec.interval);
        self.episode.observe(reading.time, assessment.strength, deviation, interval, &spec.anomaly)
    }

    fn verify(&mut self, reading: Reading, configured: Option<i64>) -> Option<Verification> {
        let given = self.given.take().map(|given| *given);
        let (last, mut expected) = (self.last()?, given.or_else(|| Some(self.expected()?.1))?);
        let gap = self.local.gap(reading.time, configured);
        if gap > 1.5 {
            let (median, widening) = (expected[MEDIAN], gap.sqrt());
            expected = expected.map(|q| median + (q - median) * widening);
        }
        let scale = self.scale();
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
    pub(crate) fn follow(
        &mut self,
        reading: Reading,
        spec: &StreamSpec,
        model: Option<&Model>,
        heard: bool,
        room: &mut Room,
    ) {
        if self.local.scale().moved()
            && let (Some(offset), Some(answers)) = (self.local.offset(reading.value), self.answers())
        {
            self.mixer.learn(&answers, offset);
        }
        let mut features = [0.0; FEATURES];
        let factor = self.local.advance(reading, spec.interval, &mut features);
        self.mixer.rescale(factor);
        let answers = model.map(|m| m.answer(&features, &mut self.state, &mut room.scratch));
        self.outlook = answers.filter(|_| heard && self.settled()).unwrap_or_default();
        self.combine();
        if spec.horizon > 1
            && let Some(interval) = self.local.interval(spec.interval)
        {
            self.ladder.fit(spec.horizon);
            self.ladder.learn(reading, interval);
            self.look_ahead(spec, model, room);
            self.ladder.follow(reading, interval, self.scale(), &room.candidates);
        }
    }

    fn settled(&self) -> bool {
        self.local.scale().moves() >= MIN_MOVES
    }

    /// What the experts say of the next reading; none before the second.
    fn answers(&self) -> Option<Answers> {
        let (scale, naive) = (self.scale(), self.local.differences().quantiles()?);
        let mut lanes: Lanes = [0.0; 8];
        for (lane, q) in lanes.iter_mut().zip(naive) {
            *lane = (q / scale).clamp(-1e6, 1e6) as f32;
        }
        let mut answers: Answers = [None; EXPERTS];
        let all = [Some(lanes)].into_iter().chain(self.local.experts().answers()).chain(self.outlook);
        answers.iter_mut().zip(all).for_each(|(answer, given)| *answer = given);
        Some(answers)
    }

    fn combine(&mut self) {
        if let Some(answers) = self.answers() {
            self.mixer.combine(&answers, self.local.grid());
        }
    }

    /// Mean and quantiles forecast for the next reading.
    fn expected(&self) -> Option<(f64, [f64; 7])> {
        self.in_own_unit(self.mixer.issued()?)
    }

    /// Mean and quantiles of offsets from the last value; none if one is beyond all bounds.
    fn in_own_unit(&self, offsets: &Lanes) -> Option<(f64, [f64; 7])> {
        let (last, scale) = (self.last()?.value, self.scale());
        let at = |lane: usize| {
            let offset = f64::from(offsets[lane]) * scale;
            let outwards = PRECISION * offset.abs();
            last + match lane.cmp(&MEDIAN) {
                std::cmp::Ordering::Less => offset - outwards,
                std::cmp::Ordering::Equal => offset,
                std::cmp::Ordering::Greater => offset + outwards,
            }
        };
        let quantiles: [f64; 7] = std::array::from_fn(at);
        let mean = last + f64::from(offsets[MEAN]) * scale;
        (mean.is_finite() && quantiles.iter().all(|q| q.is_finite())).then_some((mean, quantiles))
    }

    /// Lays out where the steps up to the horizon may go: the models and experts are fed the median that
    /// they make together.
    fn look_ahead(&self, spec: &StreamSpec, model: Option<&Model>, room: &mut Room) {
        room.candidates.clear();
        let (Some(issued), Some(mut ahead)) = (self.mixer.issued(), self.local.ahead(spec.interval)) else {
            return;
        };
        let model = model.filter(|_| self.uses_model());
        room.state.clone_from(&self.state);
        let mut features = [0.0; FEATURES];
        let mut path = issued[MEDIAN];
        room.candidates.push(ahead.candidates(path));
        for _ in 1..spec.horizon {
            ahead.go(path);
            let points = ahead.look(&mut features);
            let models = model.map(|m| m.answer(&features, &mut room.state, &mut room.scratch));
            let medians = models.unwrap_or_default().map(|m| m.map(|m| m[MEDIAN]));
            path = self.mixer.median([Some(0.0)].into_iter().chain(points.map(Some)).chain(medians));
            room.candidates.push(ahead.candidates(path));
        }
    }

    /// Forecasts from the newest reading into `steps`; none before the second reading.
    pub fn forecast(&self, spec: &StreamSpec, model: Option<&Model>, room: &mut Room, steps: &mut Vec<Step>) {
        if spec.horizon > 1 {
            self.look_ahead(spec, model, room);
        }
        self.steps(spec, room, steps);
    }

    fn steps(&self, spec: &StreamSpec, room: &Room, steps: &mut Vec<Step>) {
        steps.clear();
        let (Some(last), Some(interval), Some(first)) =
            (self.last(), self.local.interval(spec.interval), self.next(spec))
        else {
            return;
        };
        let at = |step: usize| Timestamp(last.time.0.saturating_add(interval.saturating_mul(step as i64)));
        steps.push(first);
        for step in 2..=spec.horizon {
            let offsets = room.candidates.get(step - 1).and_then(|c| self.ladder.expect(step, c));
            let Some((mean, quantiles)) = offsets.and_then(|o| self.in_own_unit(&o)) else { return };
            steps.push(Step { time: at(step), mean, quantiles });
        }
    }

    /// Continues under another model as [`Series::adopt`] does; the next reading is judged by the forecast
    /// that was given out.
    pub(crate) fn change_model(&mut self, rebuilt: Option<Rebuilt>) {
        let given = self.given.take().or_else(|| Some(Box::new(self.expected()?.1)));
        self.adopt(rebuilt);
        self.given = given;
    }

    /// The forecast made under the present model is given out: the next reading is judged by it.
    pub(crate) fn give_out(&mut self) {
        self.given = None;
    }

    /// How what is expected does, now that a reading comes; in the unit given, and bounded. None before there
    /// is a forecast.
    pub(crate) fn judge(&self, reading: Reading, unit: f64) -> Option<Judged> {
        let (last, quantiles) = (self.last()?, self.expected()?.1);
        let units = |x: f64| (x / unit).clamp(-MAX_LOSS, MAX_LOSS);
        let offsets = quantiles.map(|q| units(reading.value - q));
        let losses = offsets.iter().zip(LEVELS).map(|(e, level)| (level * e).max((level - 1.0) * e));
        Some(Judged {
            loss: losses.sum::<f64>() / LEVELS.len() as f64,
            error: offsets[MEDIAN].abs(),
            naive_error: units(reading.value - last.value).abs(),
            inside: (quantiles[0]..=quantiles[6]).contains(&reading.value),
        })
    }

    /// Learns from a reading and expects the next, without a score and without steps.
    pub(crate) fn pass(
        &mut self,
        reading: Reading,
        spec: &StreamSpec,
        model: Option<&Model>,
        heard: bool,
        room: &mut Room,
    ) {
        self.given = None;
        self.follow(reading, &StreamSpec { horizon: 1, ..*spec }, model, heard, room);
    }

    /// Continues under a model from a state rebuilt for it; none starts from zero. Errors are counted anew.
    pub fn adopt(&mut self, rebuilt: Option<Rebuilt>) {
        self.errors = Errors::default();
        (self.state, self.outlook) = Default::default();
        if let Some(series) = rebuilt.map(Rebuilt::into_series) {
            if series.last() == self.last() {
                let stretch = (series.scale() / self.scale()).clamp(1e-6, 1e6) as f32;
                self.outlook = series.outlook.map(|answer| answer.map(|lanes| lanes.map(|q| q * stretch)));
            }
            // What was learned of all experts together from a long past is worth more than what a short
            // one shows of the new model.
            let (own, shown) = (self.local.scale().values(), series.local.scale().values());
            if shown >= ENOUGH || shown >= own / 2 {
                (self.mixer, self.ladder) = (series.mixer, series.ladder);
            }
            self.state = series.state;
        }
        self.combine();
    }
}
