//! A backtest: train on the first part of every series, then feed the rest row by row to the
//! daemon's own engine and compare each forecast with the reading that came.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use serde::Serialize;

use crate::engine::{Engine, Installed, SeriesHandle, StreamSpec, Verdict};
use crate::reading::{MEDIAN, Reading, Step, Timestamp};
use crate::series::rebuild;
use crate::train::{Progress, Report, TrainConfig, TrainError, TrainingSet, learned, train};

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

/// Errors of one series' one-step forecasts.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Accuracy {
    /// Forecast rows.
    pub rows: usize,
    absolute: f64,
    squared: f64,
    naive_absolute: f64,
    naive_squared: f64,
    inside: usize,
}

impl Accuracy {
    fn add(&mut self, actual: f64, last: f64, forecast: &Step) {
        self.rows += 1;
        self.absolute += (actual - forecast.quantiles[MEDIAN]).abs();
        self.squared += (actual - forecast.mean).powi(2);
        self.naive_absolute += (actual - last).abs();
        self.naive_squared += (actual - last).powi(2);
        self.inside += usize::from((forecast.quantiles[0]..=forecast.quantiles[6]).contains(&actual));
    }

    /// Mean absolute error of the median over that of the last value; none where that is zero.
    #[must_use]
    pub fn relative_mae(&self) -> Option<f64> {
        (self.naive_absolute > 0.0).then(|| self.absolute / self.naive_absolute)
    }

    /// Root mean squared error of the mean over that of the last value; none where that is zero.
    #[must_use]
    pub fn relative_rmse(&self) -> Option<f64> {
        (self.naive_squared > 0.0).then(|| (self.squared / self.naive_squared).sqrt())
    }

    /// Share of readings inside the 90 % interval.
    #[must_use]
    pub fn coverage(&self) -> Option<f64> {
        (self.rows > 0).then(|| self.inside as f64 / self.rows as f64)
    }
}

struct Track {
    handle: SeriesHandle,
    /// Forecasts of the latest rows, newest first.
    made: VecDeque<Vec<Step>>,
    accuracy: Accuracy,
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
                accuracy: Accuracy::default(),
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
            track.accuracy = Accuracy::default();
        }
        let (model, report) = train(&set, config, look)?;
        let model = Arc::new(model);
        let states = histories
            .iter()
            .zip(&self.tracks)
            .filter_map(|(h, track)| {
                Some((track.handle, rebuild(&model, h.iter().copied(), learned(h.len()), &self.spec)?))
            })
            .collect();
        self.engine.install(0, Installed { id: 1, name: "backtest-1".into(), version: 1, model }, states);
        // Forecasts of rows after the split are the trained model's, also that of the first.
        for track in &mut self.tracks {
            if let Some(made) = track.made.front_mut() {
                *made = self.engine.forecast(track.handle).to_vec();
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
        if let (Some(row), Some(last)) = (rows.iter().find(|r| r.step == 1), last) {
            track.accuracy.add(reading.value, last.value, &row.forecast);
        }
        track.made.push_front(self.engine.steps().to_vec());
        track.made.truncate(self.spec.horizon);
        rows
    }

    /// How the one-step forecasts of a series did since the split.
    #[must_use]
    pub fn accuracy(&self, series: usize) -> Option<&Accuracy> {
        self.tracks.get(series).map(|t| &t.accuracy)
    }
}
