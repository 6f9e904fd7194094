//! What anybody could do without Vidente, one step ahead, for comparison: causal, every choice made
//! by what fitted best on the rows before.

use std::collections::VecDeque;

use super::accuracy::{Accuracy, Reference, Window};
use crate::reading::{DAY, Reading, SECOND};

/// Names of the baselines, in the order in which their figures come.
pub const NAMES: [&str; 3] = ["naive", "seasonal naive", "EWMA"];

/// Seasons tried, in microseconds.
const SEASONS: [i64; 2] = [DAY, 7 * DAY];
/// Smoothing factors tried, in twentieths.
const ALPHAS: usize = 20;

/// The three baselines over one series.
#[derive(Debug, Default)]
pub(super) struct Baselines {
    naive: Accuracy,
    seasonal: Seasonal,
    ewma: Ewma,
}

impl Baselines {
    /// Takes in a row: what each baseline had forecast for it, then the row itself.
    pub(super) fn observe(&mut self, reading: Reading, interval: Option<i64>, reference: Option<&Reference>) {
        if let Some(reference) = reference {
            self.naive.add(reading.value, reference.last, &reference.quantiles, reference);
        }
        self.seasonal.observe(reading, interval, reference);
        self.ewma.observe(reading.value, reference);
    }

    /// Counts anew.
    pub(super) fn reset(&mut self) {
        self.naive = Accuracy::default();
        self.seasonal.accuracy = Accuracy::default();
        self.seasonal.used = false;
        self.ewma.accuracy = Accuracy::default();
    }

    /// How each did; none where it does not apply.
    pub(super) fn accuracies(&self) -> [Option<&Accuracy>; NAMES.len()] {
        [
            Some(&self.naive),
            Some(&self.seasonal.accuracy).filter(|_| self.seasonal.used),
            Some(&self.ewma.accuracy),
        ]
    }
}

/// The value one season before, of the season that fitted best so far; the last value where the
/// rows do not go back so far.
#[derive(Debug, Default)]
struct Seasonal {
    /// Readings of the longest season and a little more, oldest first.
    past: VecDeque<Reading>,
    /// Rows at which every season could be compared, and its absolute errors there.
    errors: [(f64, f64); SEASONS.len()],
    residuals: Window,
    accuracy: Accuracy,
    used: bool,
}

impl Seasonal {
    fn observe(&mut self, reading: Reading, interval: Option<i64>, reference: Option<&Reference>) {
        let candidates = SEASONS.map(|season| self.before(reading, season, interval));
        if let Some(reference) = reference {
            let mean = |(rows, error): (f64, f64)| if rows > 0.0 { error / rows } else { f64::INFINITY };
            let best = candidates
                .iter()
                .zip(self.errors)
                .filter_map(|(value, errors)| Some(((*value)?, mean(errors))))
                .min_by(|a, b| a.1.total_cmp(&b.1));
            self.used |= best.is_some();
            let point = best.map_or(reference.last, |(value, _)| value);
            self.accuracy.add(reading.value, point, &self.residuals.around(point), reference);
            self.residuals.push(reading.value - point);
        }
        for (value, (rows, error)) in candidates.iter().zip(&mut self.errors) {
            if let Some(value) = value {
                *rows += 1.0;
                *error += (reading.value - value).abs();
            }
        }
        self.past.push_back(reading);
        let keep = SEASONS.iter().max().copied().unwrap_or_default() + interval.unwrap_or(0);
        while self.past.front().is_some_and(|r| reading.time.0 - r.time.0 > keep) {
            self.past.pop_front();
        }
    }

    /// The value a season before `reading`, within half an interval; none if the season is not long
    /// enough, or nothing was read then.
    fn before(&self, reading: Reading, season: i64, interval: Option<i64>) -> Option<f64> {
        let interval = interval.filter(|i| *i > 0 && 2 * i <= season)?;
        let slack = (interval / 2).max(SECOND / 1000);
        let wanted = reading.time.0 - season;
        let at = self.past.partition_point(|r| r.time.0 < wanted - slack);
        let near = self.past.range(at..).take_while(|r| r.time.0 <= wanted + slack);
        near.min_by_key(|r| (r.time.0 - wanted).abs()).map(|r| r.value)
    }
}

/// Exponentially weighted moving average, with the factor that fitted best so far.
#[derive(Debug, Default)]
struct Ewma {
    /// Level and sum of absolute errors for each factor.
    levels: Option<[(f64, f64); ALPHAS]>,
    residuals: Window,
    accuracy: Accuracy,
}

impl Ewma {
    fn observe(&mut self, value: f64, reference: Option<&Reference>) {
        let Some(levels) = &mut self.levels else {
            self.levels = Some([(value, 0.0); ALPHAS]);
            return;
        };
        // Of equal ones the last, which follows the series most closely.
        let best = levels.iter().rev().min_by(|a, b| a.1.total_cmp(&b.1)).copied();
        if let (Some((level, _)), Some(reference)) = (best, reference) {
            self.accuracy.add(value, level, &self.residuals.around(level), reference);
            self.residuals.push(value - level);
        }
        for (twentieth, (level, error)) in (1..).zip(levels) {
            *error += (value - *level).abs();
            *level += f64::from(twentieth) / ALPHAS as f64 * (value - *level);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Timestamp;

    /// Ratios of mean absolute errors over the last half of a made series, hourly.
    fn run(value: impl Fn(i64) -> f64, interval: i64) -> [Option<f64>; 3] {
        let mut baselines = Baselines::default();
        let (mut differences, mut last) = (Window::default(), None);
        for row in 0..2000 {
            let reading = Reading { time: Timestamp(row * interval), value: value(row) };
            let reference = last.map(|last| Reference { last, quantiles: differences.around(last) });
            if row == 1000 {
                baselines.reset();
            }
            baselines.observe(reading, Some(interval), reference.as_ref());
            if let Some(last) = last {
                differences.push(reading.value - last);
            }
            last = Some(reading.value);
        }
        baselines.accuracies().map(|a| a?.ratios().mae)
    }

    fn noise(row: i64) -> f64 {
        ((row * 7919) % 101) as f64 / 101.0 - 0.5
    }

    #[test]
    fn each_is_best_where_it_should_be() {
        const HOUR: i64 = 3600 * SECOND;
        // The day's shape repeats: only the day before knows it.
        let day = |row: i64| ((row % 24) * 37 % 24) as f64 + 0.01 * noise(row);
        let [naive, seasonal, ewma] = run(day, HOUR);
        assert!(naive.is_some_and(|r| (r - 1.0).abs() < 0.1), "{naive:?}");
        assert!(seasonal.is_some_and(|r| r < 0.01), "{seasonal:?}");
        assert!(ewma.is_some_and(|r| r > 0.3), "{ewma:?}");
        // Weekends differ: the week is the season.
        let week = |row: i64| if row / 24 % 7 > 4 { 5.0 } else { ((row % 24) * 37 % 24) as f64 };
        assert!(run(week, HOUR)[1].is_some_and(|r| r < 0.01));
        // White noise: the long mean is best.
        let [_, seasonal, ewma] = run(|row| noise(row * row % 7919), HOUR);
        assert!(ewma.is_some_and(|r| r < 0.8), "{ewma:?}");
        assert!(seasonal.is_some_and(|r| r > 0.8), "{seasonal:?}");
        // Two readings a day at least.
        assert_eq!(run(noise, 8 * DAY)[1], None);
    }
}
