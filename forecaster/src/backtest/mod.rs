//! A backtest: train on the first part of every series, then feed the rest row by row to the
//! daemon's own engine and compare each forecast with the reading that came.

mod accuracy;
mod baselines;

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

pub use accuracy::{Accuracy, Overall, Ratios, overall};
pub use baselines::NAMES as BASELINES;

use accuracy::{Reference, Window};
use baselines::Baselines;

use crate::engine::{Engine, Installed, SeriesHandle, StreamSpec, Verdict};
use crate::interval::Interval;
use crate::model::Model;
use crate::reading::{Reading, Step, Timestamp};
use crate::rebuilt::rebuild;
use crate::train::{Progress, Report, TrainConfig, TrainError, TrainingSet, train};

/// A forecast with the reading that it was for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// Steps ahead it was made.
    pub step: usize,
    /// The forecast.
    pub forecast: Step,
    /// How abnormal the reading was, 0 to 1.
    pub score: f64,
}

struct Track {
    handle: SeriesHandle,
    /// Forecasts of the latest rows, newest first.
    made: VecDeque<Vec<Step>>,
    /// One for each step.
    accuracy: Vec<Accuracy>,
    reference: References,
    baselines: Baselines,
    interval: Interval,
}

/// The naive reference of a series at every step: the last value and the spread of the latest
/// differences over so many rows, as known when the forecast was made.
struct References {
    /// The latest values, newest first: as many as two forecasts of the longest step need.
    values: VecDeque<f64>,
    differences: Vec<Window>,
}

impl References {
    fn new(horizon: usize) -> References {
        References { values: VecDeque::new(), differences: vec![Window::default(); horizon] }
    }

    /// For a new row, the reference at each step that reaches back to a row.
    fn next(&mut self) -> Vec<Reference> {
        let values = &self.values;
        let at = |(step, window): (usize, &mut Window)| {
            let last = *values.get(step - 1)?;
            if let Some(before) = values.get(2 * step - 1) {
                window.push(last - before);
            }
            Some(Reference { last, quantiles: window.around(last) })
        };
        (1..).zip(&mut self.differences).map_while(at).collect()
    }

    fn observe(&mut self, value: f64) {
        self.values.push_front(value);
        self.values.truncate(2 * self.differences.len());
    }
}

/// A stream under backtest.
pub struct Backtest {
    engine: Engine,
    spec: StreamSpec,
    tracks: Vec<Track>,
}

impl Backtest {
    /// A backtest of `series` series, cold.
    #[must_use]
    pub fn new(spec: StreamSpec, series: usize) -> Backtest {
        let mut engine = Engine::new([spec]);
        let tracks = (0..series)
            .map(|_| Track {
                handle: engine.add_series(0),
                made: VecDeque::new(),
                accuracy: vec![Accuracy::default(); spec.horizon],
                reference: References::new(spec.horizon),
                baselines: Baselines::default(),
                interval: Interval::default(),
            })
            .collect();
        Backtest { engine, spec, tracks }
    }

    /// Feeds each series its history, then trains on all of them and installs the model.
    ///
    /// # Errors
    /// If training gave no model; the histories are in all the same, and forecasts stay naive.
    pub fn train(
        &mut self,
        histories: &[Vec<Reading>],
        config: &TrainConfig,
        look: impl FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Report, TrainError> {
        let mut set = TrainingSet::default();
        for (series, history) in histories.iter().enumerate() {
            set.add(history, self.spec.interval);
            for reading in history {
                self.feed(series, *reading);
            }
        }
        for track in &mut self.tracks {
            track.accuracy.fill(Accuracy::default());
            track.baselines.reset();
        }
        let (model, report) = train(&set, config, look)?;
        let model = Arc::new(model);
        let states = histories
            .iter()
            .zip(&self.tracks)
            .filter_map(|(h, track)| Some((track.handle, rebuild(&model, h, &self.spec)?)))
            .collect();
        self.engine.install(
            0,
            Installed { id: 1, name: "backtest-1".into(), version: 1, model },
            states,
            false,
        );
        // Forecasts of rows after the split are the trained model's, also that of the first.
        for track in &mut self.tracks {
            if let Some(made) = track.made.front_mut() {
                *made = self.engine.reissue(track.handle).to_vec();
            }
        }
        Ok(report)
    }

    /// Feeds a row and returns the forecasts that were made for it, nearest first; none for the
    /// first rows of a series.
    ///
    /// # Panics
    /// If there are fewer series.
    pub fn feed(&mut self, series: usize, reading: Reading) -> Vec<Row> {
        let track = &mut self.tracks[series];
        let last = self.engine.series(track.handle).and_then(|s| s.last());
        let Verdict::Accepted(outcome) = self.engine.observe(track.handle, reading, Timestamp(i64::MAX))
        else {
            return Vec::new();
        };
        if let (Some(made), Some(last)) = (track.made.front_mut().filter(|made| made.is_empty()), last) {
            // After one reading neither interval nor spread is known: all there is is the last value.
            made.push(Step { time: reading.time, mean: last.value, quantiles: [last.value; 7] });
        }
        let rows: Vec<Row> = track
            .made
            .iter()
            .enumerate()
            .filter_map(|(back, steps)| {
                Some(Row { step: back + 1, forecast: *steps.get(back)?, score: outcome.score })
            })
            .collect();
        if let Some(last) = last {
            track.interval.observe(reading.time.0 - last.time.0);
        }
        let references = track.reference.next();
        for row in &rows {
            if let (Some(accuracy), Some(reference)) =
                (track.accuracy.get_mut(row.step - 1), references.get(row.step - 1))
            {
                accuracy.add(reading.value, row.forecast.mean, &row.forecast.quantiles, reference);
            }
        }
        let interval = self.spec.interval.or_else(|| track.interval.learned());
        track.baselines.observe(reading, interval, references.first());
        track.reference.observe(reading.value);
        track.made.push_front(self.engine.steps().to_vec());
        track.made.truncate(self.spec.horizon);
        rows
    }

    /// The trained model; none without training.
    #[must_use]
    pub fn model(&self) -> Option<&Model> {
        self.engine.installed(0).map(|m| &*m.model)
    }

    /// How the one-step forecasts of a series did since the split.
    #[must_use]
    pub fn accuracy(&self, series: usize) -> Option<&Accuracy> {
        self.accuracy_at(series, 1)
    }

    /// How the forecasts of a series did since the split, so many steps ahead.
    #[must_use]
    pub fn accuracy_at(&self, series: usize, step: usize) -> Option<&Accuracy> {
        self.tracks.get(series)?.accuracy.get(step.checked_sub(1)?)
    }

    /// How each of [`BASELINES`] did over the same rows, one step ahead; none where it does not apply.
    #[must_use]
    pub fn baselines(&self, series: usize) -> [Option<&Accuracy>; BASELINES.len()] {
        self.tracks.get(series).map_or_else(Default::default, |t| t.baselines.accuracies())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `mae`, `rmse`, `crps`, `coverage`, `winkler` as the reference implementation has them
    /// (`score.py FORECASTS HISTORY TEST --per-series --json`, over the rows below with the last
    /// `series - int(0.7 * series)` of each series as the test file).
    const EXPECTED: [[Option<f64>; 5]; 4] = [
        [
            Some(1.085_993_459_981_314_1),
            Some(1.110_046_798_500_546_2),
            Some(1.559_865_858_309_035_2),
            Some(0.37),
            Some(2.765_125_317_124_491_4),
        ],
        [
            Some(1.062_430_735_131_141_5),
            Some(1.080_441_519_618_167_4),
            Some(1.285_525_186_968_414_3),
            Some(0.575),
            Some(1.721_039_780_122_128_2),
        ],
        [None, None, None, Some(0.733_333_333_333_333_3), None],
        // All three.
        [
            Some(1.074_147_489_889_335_3),
            Some(1.095_144_122_852_883_5),
            Some(1.416_067_388_632_465),
            Some(0.559_444_444_444_444_4),
            Some(2.181_488_177_321_634),
        ],
    ];

    fn value(series: i64, row: i64) -> f64 {
        if series == 2 {
            return 5.0;
        }
        ((row * row * (7 + series)) % 113) as f64 / 8.0 + ((row * (3 + 2 * series)) % 41) as f64 / 4.0
    }

    fn scored(series: i64, rows: i64) -> Accuracy {
        let (mut references, mut accuracy) = (References::new(1), Accuracy::default());
        for row in 0..rows {
            let made = references.next();
            if let (Some(reference), true) = (made.first(), row >= (rows as f64 * 0.7).floor() as i64) {
                let centre = value(series, row - 1) / 2.0 + (row % 16) as f64;
                let quantiles = std::array::from_fn(|j| centre + (j as f64 - 3.0) * (1 + series) as f64);
                accuracy.add(value(series, row), centre + 0.25, &quantiles, reference);
            }
            references.observe(value(series, row));
        }
        accuracy
    }

    #[test]
    fn figures_are_the_reference_implementations() {
        let all = [scored(0, 1000), scored(1, 400), scored(2, 50)];
        let together = overall(&all);
        assert_eq!((together.series, together.rows), (3, 435));
        assert_eq!((together.skipped, together.clamped), (1, 0));
        let found = all.iter().map(Accuracy::ratios).chain([together.means]);
        for (r, expected) in found.zip(EXPECTED) {
            for (found, expected) in [r.mae, r.rmse, r.crps, r.coverage, r.winkler].iter().zip(expected) {
                match (found, expected) {
                    (Some(found), Some(expected)) => assert!((found - expected).abs() < 1e-12, "{r:?}"),
                    (found, expected) => assert_eq!(*found, expected, "{r:?}"),
                }
            }
        }
    }

    /// At step 3 the reference knows the differences over 3 rows that were known 3 rows before.
    #[test]
    fn references_of_later_steps_look_ahead_no_further_than_the_forecast() {
        let mut references = References::new(3);
        for row in 0..40 {
            let made = references.next();
            assert_eq!(made.len(), 3.min(row as usize));
            if let Some(third) = made.get(2) {
                assert_eq!(third.last, value(0, row - 3));
                let known: Vec<f64> = (3..=row - 3).map(|i| value(0, i) - value(0, i - 3)).collect();
                let lowest = known.iter().copied().reduce(f64::min).unwrap_or(0.0);
                let highest = known.iter().copied().reduce(f64::max).unwrap_or(0.0);
                let range = third.last + lowest..=third.last + highest;
                assert!(third.quantiles.iter().all(|q| range.contains(q)), "row {row}");
            }
            references.observe(value(0, row));
        }
    }
}
