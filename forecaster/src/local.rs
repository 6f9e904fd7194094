//! What a series knows by itself: interval, scale, seasons, experts. No model enters here, so training
//! runs it over history and learns from what the stream will see.

use serde::{Deserialize, Serialize};

use crate::differences::Differences;
use crate::experts::{Experts, POINTS};
use crate::features::{self, Context, FEATURES, Sight};
use crate::interval::Interval;
use crate::ladder::Candidates;
use crate::reading::{Reading, Timestamp};
use crate::scale::Scale;
use crate::seasonal::{Phase, Seasonal};

/// Differences kept in order of time.
pub(crate) const LAGS: usize = 24;
/// Readings over which a series' character is averaged.
const CHARACTER: f32 = 500.0;
/// Readings between two looks for a grid.
const GRID_EVERY: u32 = 50;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Local {
    last: Option<Reading>,
    interval: Interval,
    scale: Scale,
    differences: Differences,
    /// Latest differences, newest first.
    lags: [f32; LAGS],
    seasonal: Seasonal,
    experts: Experts,
    character: Character,
    grid: Option<f64>,
    looked: u32,
}

/// What kind of series it is, so that one network can tell them apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Character {
    seen: f32,
    /// Share of readings that repeat the one before.
    pub(crate) repeats: f32,
    /// Mean product of differences one and two apart, of bounded differences in units of the scale.
    pub(crate) products: [f32; 2],
    /// Mean square of them.
    pub(crate) square: f32,
}

impl Character {
    fn observe(&mut self, [d0, d1, d2]: [f32; 3]) {
        self.seen = (self.seen + 1.0).min(CHARACTER);
        let track = |mean: &mut f32, x: f32| *mean += (x - *mean) / self.seen;
        track(&mut self.repeats, f32::from(u8::from(d0 == 0.0)));
        track(&mut self.products[0], d0 * d1);
        track(&mut self.products[1], d0 * d2);
        track(&mut self.square, d0 * d0);
    }
}

impl Local {
    /// The newest reading.
    pub(crate) fn last(&self) -> Option<Reading> {
        self.last
    }

    /// The scale of movements.
    pub(crate) fn scale(&self) -> &Scale {
        &self.scale
    }

    /// The experts.
    pub(crate) fn experts(&self) -> &Experts {
        &self.experts
    }

    /// The naive forecast's differences.
    pub(crate) fn differences(&self) -> &Differences {
        &self.differences
    }

    /// The step of which the series' values are whole multiples, in units of the scale; none where it
    /// is too fine or too coarse to matter.
    pub(crate) fn grid(&self) -> Option<f32> {
        self.grid.map(|step| (step / self.scale.scale()) as f32).filter(|g| (1e-2..1e3).contains(g))
    }

    /// The interval, configured or learned.
    pub(crate) fn interval(&self, configured: Option<i64>) -> Option<i64> {
        configured.or_else(|| self.interval.learned())
    }

    /// Intervals since the last reading; 1 while that cannot be said.
    pub(crate) fn gap(&self, time: Timestamp, configured: Option<i64>) -> f64 {
        match (self.last, self.interval(configured)) {
            (Some(last), Some(interval)) => (time.0 - last.time.0) as f64 / interval as f64,
            _ => 1.0,
        }
    }

    /// How far a value lies from the last one, in units of the scale.
    pub(crate) fn offset(&self, value: f64) -> Option<f32> {
        let last = self.last?;
        Some(((value - last.value) / self.scale.scale()).clamp(-1e6, 1e6) as f32)
    }

    /// Takes in a reading, and fills in what the models see of it.
    /// Returns by what offsets grow as the scale changes.
    pub(crate) fn advance(
        &mut self,
        reading: Reading,
        configured: Option<i64>,
        features: &mut [f32; FEATURES],
    ) -> f32 {
        let before = self.scale.moved().then(|| self.scale.scale());
        if let (Some(last), Some(offset)) = (self.last, self.offset(reading.value)) {
            self.interval.observe(reading.time.0 - last.time.0);
            if self.scale.moved() {
                self.experts.learn(offset);
            }
            self.moved(reading, last, configured);
        } else {
            self.scale.observe(reading.value, None);
        }
        let gap = self.gap(reading.time, configured);
        self.last = Some(reading);
        let scale = self.scale.scale();
        let factor = before.map_or(1.0, |before| (before / scale).clamp(1e-9, 1e9) as f32);
        self.experts.rescale(factor);
        let interval = self.interval(configured);
        self.seasonal.observe(reading.time, reading.value, interval, scale);
        let sight = self.sight(reading, gap, interval.unwrap_or(0));
        let points = self.experts.forecast(&features::wide(&sight));
        features::fill(&sight, &points, features);
        factor
    }

    fn sight(&self, reading: Reading, gap: f64, interval: i64) -> Sight {
        let scale = self.scale.scale();
        let next = Timestamp(reading.time.0.saturating_add(interval));
        let [now, then] = [reading.time, next].map(|t| self.seasonal.at(t, reading.value, interval, scale));
        let spread = self.experts.slow_spread();
        let naive = self.differences.quantiles().unwrap_or_default();
        let context = Context {
            scale,
            level: self.scale.level(),
            deviation: self.scale.deviation(),
            liveliness: self.scale.liveliness() as f32,
            character: self.character,
            grid: self.grid().unwrap_or_default(),
            errors: self.experts.errors(),
            spread: [spread.size(), spread.liveliness()],
            naive: [0, 2, 4, 6].map(|i: usize| (naive[i] / scale).clamp(-1e6, 1e6) as f32),
        };
        Sight { reading, gap, next, now, then, lags: self.lags, levels: self.experts.levels(), context }
    }

    fn moved(&mut self, reading: Reading, last: Reading, configured: Option<i64>) {
        let difference = reading.value - last.value;
        let movement = difference / self.gap(reading.time, configured).max(1.0).sqrt();
        self.differences.observe(movement);
        self.scale.observe(reading.value, Some((movement, &self.differences)));
        self.lags.rotate_right(1);
        self.lags[0] = difference.clamp(-1e36, 1e36) as f32;
        let scale = self.scale.scale();
        self.character
            .observe([0, 1, 2].map(|i: usize| (f64::from(self.lags[i]) / scale).clamp(-5.0, 5.0) as f32));
        self.looked += 1;
        if self.looked == GRID_EVERY {
            self.looked = 0;
            self.grid = self.differences.grid();
        }
    }
}

/// A series' way ahead, a step at a time, as a model imagines it.
pub(crate) struct Ahead<'a> {
    local: &'a Local,
    interval: i64,
    origin: Reading,
    start: Phase,
    sight: Sight,
}

impl Local {
    /// Begins at the newest reading; none before the interval is known.
    pub(crate) fn ahead(&self, configured: Option<i64>) -> Option<Ahead<'_>> {
        let (origin, interval) = (self.last?, self.interval(configured)?);
        let sight = self.sight(origin, 1.0, interval);
        Some(Ahead { local: self, interval, origin, start: sight.now, sight })
    }
}

impl Ahead<'_> {
    /// Where the next step may go, `path` being the median that was made of [`Ahead::look`].
    pub(crate) fn candidates(&self, path: f32) -> Candidates {
        let here = ((self.sight.reading.value - self.origin.value) / self.sight.context.scale) as f32;
        let then = &self.sight.then;
        // What was read of the phases is relative to the imagined value.
        let from_origin = |x: f32| x + here;
        let season = then.last_week.or(then.yesterday).or(then.mean_day).map(from_origin);
        let moved = then.mean_day.map(from_origin).zip(self.start.mean_day).map(|(t, s)| t - s);
        [Some(path + here), Some(0.0), season, moved]
    }

    /// What models and points say of the next step.
    pub(crate) fn look(&self, features: &mut [f32; FEATURES]) -> [f32; POINTS] {
        let points = self.local.experts.points_for(&self.sight.levels, &features::wide(&self.sight));
        features::fill(&self.sight, &points, features);
        points
    }

    /// Goes to where the next step is imagined, an offset from the value before it.
    pub(crate) fn go(&mut self, offset: f32) {
        let s = &mut self.sight;
        let difference = f64::from(offset) * s.context.scale;
        s.lags.rotate_right(1);
        s.lags[0] = difference.clamp(-1e36, 1e36) as f32;
        s.levels.moved(offset);
        s.gap = 1.0;
        s.context.errors = [0.0; 2];
        let reading = Reading { time: s.next, value: s.reading.value + difference };
        s.reading = reading;
        s.next = Timestamp(reading.time.0.saturating_add(self.interval));
        let at = |time| self.local.seasonal.at(time, reading.value, self.interval, s.context.scale);
        (s.now, s.then) = (at(reading.time), at(s.next));
    }
}
