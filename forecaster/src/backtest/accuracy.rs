//! How good forecasts were: sums of errors, and their ratios to those of the naive reference.

use std::collections::VecDeque;

use crate::reading::{LEVELS, MEDIAN};

/// Differences or residuals from which the reference and the baselines take their spread.
const WINDOW: usize = 500;
/// Nominal miss rate of the interval that the Winkler score judges.
const ALPHA: f64 = 0.10;
/// Ratios below are clamped before a geometric mean: one perfect series must not decide it.
const FLOOR: f64 = 1e-4;

/// Sums of errors of one forecaster.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Errors {
    rows: usize,
    absolute: f64,
    squared: f64,
    pinball: f64,
    winkler: f64,
    inside: usize,
}

impl Errors {
    /// Takes in a reading and what was forecast for it.
    fn add(&mut self, actual: f64, mean: f64, quantiles: &[f64; 7]) {
        let [low, .., high] = *quantiles;
        self.rows += 1;
        self.absolute += (actual - quantiles[MEDIAN]).abs();
        self.squared += (actual - mean).powi(2);
        let pinball = |(q, level): (&f64, f64)| (level * (actual - q)).max((level - 1.0) * (actual - q));
        self.pinball += quantiles.iter().zip(LEVELS).map(pinball).sum::<f64>() / LEVELS.len() as f64;
        let outside = (low - actual).max(0.0) + (actual - high).max(0.0);
        self.winkler += high - low + 2.0 / ALPHA * outside;
        self.inside += usize::from((low..=high).contains(&actual));
    }
}

/// Errors of one forecaster for one series, beside those of the reference over the same rows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Accuracy {
    errors: Errors,
    reference: Errors,
    last_absolute: f64,
    last_squared: f64,
}

impl Accuracy {
    /// Takes in a reading, what was forecast for it, and what the reference and the last value were.
    pub(super) fn add(&mut self, actual: f64, mean: f64, quantiles: &[f64; 7], reference: &Reference) {
        self.errors.add(actual, mean, quantiles);
        self.reference.add(actual, reference.last, &reference.quantiles);
        self.last_absolute += (actual - reference.last).abs();
        self.last_squared += (actual - reference.last).powi(2);
    }

    /// Forecast rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.errors.rows
    }

    /// The ratios.
    #[must_use]
    pub fn ratios(&self) -> Ratios {
        let over = |a: f64, b: f64| (b > 0.0).then(|| a / b).filter(|r| r.is_finite());
        Ratios {
            mae: over(self.errors.absolute, self.last_absolute),
            rmse: over(self.errors.squared.sqrt(), self.last_squared.sqrt()),
            crps: over(self.errors.pinball, self.reference.pinball),
            winkler: over(self.errors.winkler, self.reference.winkler),
            coverage: (self.errors.rows > 0).then(|| self.errors.inside as f64 / self.errors.rows as f64),
        }
    }
}

/// Errors relative to the naive reference's; below 1 is better. None where that is zero.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Ratios {
    /// Mean absolute error of the median over that of the last value.
    pub mae: Option<f64>,
    /// Root mean squared error of the mean over that of the last value.
    pub rmse: Option<f64>,
    /// Mean pinball loss over the seven quantiles, over the reference's.
    pub crps: Option<f64>,
    /// Share of readings inside the 90 % interval.
    pub coverage: Option<f64>,
    /// Mean Winkler score of the 90 % interval over the reference's.
    pub winkler: Option<f64>,
}

/// Several series together: geometric means of the ratios, mean of the coverage.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Overall {
    /// Series with forecast rows.
    pub series: usize,
    /// Their forecast rows.
    pub rows: usize,
    /// The means.
    pub means: Ratios,
    /// Of the ratio that has most of them, series left out because the reference's error is zero.
    pub skipped: usize,
    /// Of the ratio that has most of them, series below 1e-4, counted as that.
    pub clamped: usize,
}

/// Puts the series that have forecast rows together.
pub fn overall<'a>(all: impl IntoIterator<Item = &'a Accuracy>) -> Overall {
    let all: Vec<&Accuracy> = all.into_iter().filter(|a| a.rows() > 0).collect();
    let ratios: Vec<Ratios> = all.iter().map(|a| a.ratios()).collect();
    let (mut skipped, mut clamped) = (0, 0);
    let mut geometric = |of: fn(&Ratios) -> Option<f64>| {
        let known: Vec<f64> = ratios.iter().filter_map(of).collect();
        skipped = skipped.max(ratios.len() - known.len());
        clamped = clamped.max(known.iter().filter(|r| **r < FLOOR).count());
        let sum: f64 = known.iter().map(|r| r.max(FLOOR).ln()).sum();
        (!known.is_empty()).then(|| (sum / known.len() as f64).exp())
    };
    let (mae, rmse) = (geometric(|r| r.mae), geometric(|r| r.rmse));
    let (crps, winkler) = (geometric(|r| r.crps), geometric(|r| r.winkler));
    let covered: f64 = ratios.iter().filter_map(|r| r.coverage).sum();
    let coverage = (!ratios.is_empty()).then(|| covered / ratios.len() as f64);
    Overall {
        series: all.len(),
        rows: all.iter().map(|a| a.rows()).sum(),
        means: Ratios { mae, rmse, crps, coverage, winkler },
        skipped,
        clamped,
    }
}

/// The naive reference for one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Reference {
    pub(super) last: f64,
    pub(super) quantiles: [f64; 7],
}

/// The latest residuals, in order of time and in order of size.
#[derive(Debug, Clone, Default)]
pub(super) struct Window {
    ring: VecDeque<f64>,
    sorted: Vec<f64>,
}

impl Window {
    pub(super) fn push(&mut self, residual: f64) {
        if self.ring.len() == WINDOW
            && let Some(oldest) = self.ring.pop_front()
            && let Ok(at) = self.sorted.binary_search_by(|x| x.total_cmp(&oldest))
        {
            self.sorted.remove(at);
        }
        self.ring.push_back(residual);
        let at = self.sorted.partition_point(|x| x.total_cmp(&residual).is_lt());
        self.sorted.insert(at, residual);
    }

    /// `point` plus the empirical quantiles, by linear interpolation; `point` alone before there is
    /// a residual.
    pub(super) fn around(&self, point: f64) -> [f64; 7] {
        let Some(last) = self.sorted.len().checked_sub(1) else { return [point; 7] };
        LEVELS.map(|level| {
            let place = level * last as f64;
            let low = self.sorted.get(place as usize).copied().unwrap_or_default();
            let high = self.sorted.get((place as usize + 1).min(last)).copied().unwrap_or_default();
            point + low + (high - low) * place.fract()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_keeps_the_latest_in_order() {
        let mut window = Window::default();
        assert_eq!(window.around(3.0), [3.0; 7]);
        for i in 0..1000 {
            window.push(f64::from((i * 7919) % 1000));
        }
        assert_eq!((window.ring.len(), window.sorted.len()), (WINDOW, WINDOW));
        let mut expected: Vec<f64> = (500..1000).map(|i| f64::from((i * 7919) % 1000)).collect();
        expected.sort_unstable_by(f64::total_cmp);
        assert_eq!(window.sorted, expected);
    }

    #[test]
    fn zero_references_are_skipped_and_counted() {
        let constant = Reference { last: 1.0, quantiles: [1.0; 7] };
        let mut perfect = Accuracy::default();
        perfect.add(1.0, 1.0, &[1.0; 7], &constant);
        let mut exact = Accuracy::default();
        exact.add(2.0, 2.0, &[2.0; 7], &constant);
        let all = overall([&perfect, &exact, &Accuracy::default()]);
        assert_eq!((all.series, all.rows, all.skipped, all.clamped), (2, 2, 1, 1));
        assert!(all.means.mae.is_some_and(|r| (r - FLOOR).abs() < 1e-12));
        assert_eq!(all.means.coverage, Some(1.0));
        assert_eq!(overall([]).means, Ratios::default());
    }
}
