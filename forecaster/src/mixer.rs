//! From the experts' answers to one distribution: aggregated, put in order, calibrated.

use serde::{Deserialize, Serialize};

use crate::aggregate::{Aggregator, Lanes, MEAN};
use crate::reading::{LEVELS, MEDIAN};

/// Step of the calibration with each reading.
const STEP: f32 = 0.005;
/// Bound on the calibration of a level, in widths between it and the median.
const CAP: f32 = 0.5;

/// Weighs experts and calibrates what they say together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Mixer {
    aggregator: Aggregator,
    answers: Vec<Option<Lanes>>,
    combined: Lanes,
    /// Moves of the levels, in widths between the quartiles.
    moves: [f32; 7],
    issued: Option<Lanes>,
}

impl Mixer {
    pub(crate) fn new(experts: usize) -> Mixer {
        Mixer {
            aggregator: Aggregator::new(experts),
            answers: Vec::new(),
            combined: [0.0; 8],
            moves: [0.0; 7],
            issued: None,
        }
    }

    /// Learns where the series went.
    pub(crate) fn learn(&mut self, actual: f32) {
        let Some(issued) = self.issued else { return };
        self.aggregator.learn(&self.answers, &self.combined, actual);
        for (lane, level) in LEVELS.iter().enumerate().filter(|(lane, _)| *lane != MEDIAN) {
            // A reading just on a level is on both sides of it.
            let level = *level as f32;
            let below = if actual < issued[lane] { 1.0 } else if actual == issued[lane] { level } else { 0.0 };
            self.moves[lane] = (self.moves[lane] + 2.0 * STEP * (level - below)).clamp(-1.0, 1.0);
        }
    }

    /// Weighs the answers for the next reading.
    pub(crate) fn combine(&mut self, answers: impl Iterator<Item = Option<Lanes>>) -> Lanes {
        self.answers.clear();
        self.answers.extend(answers);
        let mut combined = self.aggregator.combine(&self.answers);
        combined[..MEAN].sort_unstable_by(f32::total_cmp);
        self.combined = combined;
        let mut issued = combined;
        let width = combined[4] - combined[2];
        for lane in 0..7 {
            let reach = CAP * (combined[lane] - combined[MEDIAN]).abs();
            issued[lane] += (self.moves[lane] * width).clamp(-reach, reach);
        }
        issued[..MEAN].sort_unstable_by(f32::total_cmp);
        self.issued = Some(issued);
        issued
    }

    pub(crate) fn weights(&self) -> String { let a: Vec<_> = (0..self.answers.len()).map(|k| { let mut x: Vec<Option<Lanes>> = self.answers.iter().map(|a| a.map(|_| [0.0; 8])).collect(); if let Some(Some(l)) = x.get_mut(k) { *l = [1.0; 8]; } let w = self.aggregator.combine(&x); format!("{:.2}", w[3]) }).collect(); a.join(" ") }
    /// What an expert's share of the median is.
    pub(crate) fn answers(&self) -> &[Option<Lanes>] {
        &self.answers
    }
}
