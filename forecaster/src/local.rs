//! What a series knows by itself: interval, scale, seasons, experts. No model enters here, so training
//! runs it over history and learns from what the stream will see.

use serde::{Deserialize, Serialize};

use crate::differences::Differences;
use crate::experts::{Experts, Inputs, POINTS, WIDE};
use crate::features::{self, FEATURES, Sight};
use crate::interval::Interval;
use crate::reading::{Reading, Timestamp};
use crate::scale::Scale;
use crate::seasonal::Seasonal;

/// Differences kept in order of time.
pub(crate) const LAGS: usize = 24;
/// Readings over which a series' character is averaged.
const CHARACTER: f32 = 500.0;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Local {
    last: Option<Reading>,
    interval: Interval,
    scale: Scale,
    differences: Differences,
    /// Latest differences, newest first.
    lags: [f64; LAGS],
    seasonal: Seasonal,
    experts: Experts,
    character: Character,
    /// Where the last reading went, in units of the scale, and the experts' errors then.
    errors: [f32; 2],
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
    fn observe(&mut self, d0: f32, d1: f32, d2: f32) {
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

    /// How far `value` lies from the last one, in units of the scale.
    pub(crate) fn offset(&self, value: f64) -> Option<f32> {
        let last = self.last?;
        Some((((value - last.value) / self.scale.scale()).clamp(-1e6, 1e6)) as f32)
    }

    /// Takes in a reading, and fills in what the models see of it.
    pub(crate) fn advance(
        &mut self,
        reading: Reading,
        configured: Option<i64>,
        features: &mut [f32; FEATURES],
    ) {
        let before = self.scale.scale();
        if let Some(last) = self.last {
            self.interval.observe(reading.time.0 - last.time.0);
            let gap = self.gap(reading.time, configured);
            let difference = reading.value - last.value;
            let offset = self.offset(reading.value).unwrap_or_default();
            let points = self.experts.points();
            self.errors = [5, 7].map(|p: usize| points[p].map_or(0.0, |p| offset - p));
            self.experts.learn(offset);
            let movement = difference / gap.max(1.0).sqrt();
            self.differences.observe(movement);
            self.scale.observe(reading.value, Some((movement, &self.differences)));
            self.lags.rotate_right(1);
            self.lags[0] = difference;
            let in_units = |d: f64| ((d / self.scale.scale()).clamp(-5.0, 5.0)) as f32;
            self.character.observe(
                in_units(self.lags[0]),
                in_units(self.lags[1]),
                in_units(self.lags[2]),
            );
        } else {
            self.scale.observe(reading.value, None);
        }
        let gap = self.gap(reading.time, configured);
        self.last = Some(reading);
        let scale = self.scale.scale();
        self.experts.rescale((before / scale) as f32);
        let interval = self.interval(configured);
        self.seasonal.observe(reading.time, reading.value, interval, scale);
        let next = Timestamp(reading.time.0.saturating_add(interval.unwrap_or(0)));
        let [now, then] = [reading.time, next]
            .map(|t| self.seasonal.at(t, reading.value, interval.unwrap_or(0), scale));
        let sight = Sight {
            reading,
            gap,
            next,
            scale: &self.scale,
            lags: &self.lags,
            means: *self.experts.means(),
            now,
            then,
            character: self.character,
            errors: self.errors,
        };
        let wide: [f32; WIDE] = features::wide(&sight);
        let seasonal = then.mean_day.zip(now.mean_day).map(|(then, now)| then - now);
        self.experts.forecast(&Inputs { wide, seasonal });
        let points: &[Option<f32>; POINTS] = self.experts.points();
        features::fill(&sight, points, features);
    }
}
