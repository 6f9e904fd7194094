//! What a series was at the same time of day and of week before, in bounded buckets.

use serde::{Deserialize, Serialize};

use crate::reading::{DAY, SECOND, Timestamp};

/// Bucket of a series with many readings an hour: 168 of them a week.
const HOUR: i64 = 3600 * SECOND;
/// A series' week.
const WEEK: i64 = 7 * DAY;
/// Share of the newest visit in the mean of a time of day.
const RATE: f32 = 0.2;
/// Values beyond this many units are taken as a series that has become another: it starts anew.
const REACH: f64 = 1e6;
/// Scales larger than this many units let the buckets start anew.
const DRIFT: f64 = 1e4;

/// The latest week in buckets of an hour, or of the series' interval if that is half an hour or more, and
/// the mean day. Buckets hold means in units fixed when they were laid out; NaN where nothing is known.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Seasonal {
    /// The series' interval as the buckets were laid out for it.
    interval: i64,
    width: i64,
    base: f64,
    unit: f64,
    week: Box<[f32]>,
    day: Box<[f32]>,
    /// The bucket being filled and the one before it: both are written only once they are behind by a
    /// whole bucket, so that last week's are there to interpolate between.
    filling: Filling,
    before: Filling,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Filling {
    /// Buckets since the epoch.
    bucket: i64,
    sum: f64,
    count: u32,
}

/// The past at the phase of a time, relative to a value and in units of a scale.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Phase {
    /// A day before.
    pub(crate) yesterday: Option<f32>,
    /// A week before.
    pub(crate) last_week: Option<f32>,
    /// Mean of the days before.
    pub(crate) mean_day: Option<f32>,
}

impl Seasonal {
    /// Takes in a reading. `interval` is the series' own, `scale` its usual movement.
    pub(crate) fn observe(&mut self, time: Timestamp, value: f64, interval: Option<i64>, scale: f64) {
        let Some(interval) = interval else { return };
        let other = interval < self.interval / 4 * 3 || interval / 4 * 3 > self.interval;
        let beyond = !(((value - self.base) / self.unit).abs() <= REACH && scale / self.unit <= DRIFT);
        if other || beyond {
            let width = width(interval);
            *self = Seasonal { interval, width, base: value, unit: scale, ..Seasonal::default() };
        }
        let width = self.width;
        if width == 0 {
            return;
        }
        let bucket = time.0.div_euclid(width);
        if self.filling.count > 0 && bucket != self.filling.bucket {
            let before = std::mem::replace(&mut self.before, self.filling);
            self.write(before);
            if bucket > self.filling.bucket + 1 {
                let before = std::mem::take(&mut self.before);
                self.write(before);
            }
            self.filling = Filling::default();
        }
        self.filling.bucket = bucket;
        self.filling.sum += (value - self.base) / self.unit;
        self.filling.count += 1;
    }

    fn write(&mut self, filled: Filling) {
        if filled.count == 0 {
            return;
        }
        if self.week.is_empty() {
            let buckets = (WEEK / self.width) as usize;
            self.week = vec![f32::NAN; buckets].into();
            self.day = vec![f32::NAN; buckets / 7].into();
        }
        let mean = (filled.sum / f64::from(filled.count)) as f32;
        let (week, day) = (self.week.len() as i64, self.day.len() as i64);
        if let Some(slot) = self.week.get_mut(filled.bucket.rem_euclid(week) as usize) {
            *slot = mean;
        }
        if let Some(slot) = self.day.get_mut(filled.bucket.rem_euclid(day) as usize) {
            *slot = if slot.is_nan() { mean } else { *slot + RATE * (mean - *slot) };
        }
    }

    /// What is known at the phase of `time`, relative to `value`, in units of `scale`. `time` lies within
    /// an interval of the newest reading.
    pub(crate) fn at(&self, time: Timestamp, value: f64, interval: i64, scale: f64) -> Phase {
        if self.week.is_empty() {
            return Phase::default();
        }
        let (stretch, shift) = (self.unit / scale, (self.base - value) / scale);
        let scaled = |x: f32| {
            let x = f64::from(x) * stretch + shift;
            (!x.is_nan()).then(|| x.clamp(-1e3, 1e3) as f32)
        };
        let exact = interval / 4 * 5 >= self.width;
        let read = |ring: &[f32], time: i64| scaled(lookup(ring, time, self.width, exact));
        Phase {
            yesterday: read(&self.week, time.0 - DAY),
            last_week: read(&self.week, time.0),
            mean_day: read(&self.day, time.0),
        }
    }
}

/// Width of a bucket that divides the day, at least the interval; 0 where there is no season to speak of.
fn width(interval: i64) -> i64 {
    if interval < HOUR / 20 * 9 {
        return HOUR;
    }
    // Longer intervals must divide the day; others would drift through the buckets.
    let buckets = DAY.saturating_add(interval / 2) / interval;
    let fits = buckets >= 2 && (DAY - buckets * interval).abs() < interval / 4;
    if fits { DAY / buckets } else { 0 }
}

/// The bucket of a time, or between the centres of two.
fn lookup(ring: &[f32], time: i64, width: i64, exact: bool) -> f32 {
    let n = ring.len() as i64;
    let get = |bucket: i64| ring.get(bucket.rem_euclid(n) as usize).copied().unwrap_or(f32::NAN);
    if exact {
        return get(time.div_euclid(width));
    }
    let shifted = time - width / 2;
    let (bucket, part) = (shifted.div_euclid(width), shifted.rem_euclid(width) as f32 / width as f32);
    let (low, high) = (get(bucket), get(bucket + 1));
    if high.is_nan() {
        low
    } else if low.is_nan() {
        high
    } else {
        low + part * (high - low)
    }
}
