//! What is learned from: inputs and targets of every series, made by the code that streams.

use rand::{RngExt, rngs::StdRng};

use super::{LEVELS, MEDIAN, pinball};
use crate::aggregate::Lanes;
use crate::cell::Batch;
use crate::features::{FEATURES, INPUTS};
use crate::kernel::Scratch;
use crate::local::Local;
use crate::model::{Model, ModelState};
use crate::reading::{Reading, Timestamp};
use crate::trees::Example;

/// Share of each series' latest rows kept for validation.
const VALIDATION: f64 = 0.15;
/// First rows of a series, in which its scale is still settling.
const SETTLING: usize = 8;
/// A next reading later than this many intervals is nothing a one-step forecast was made for.
const GAP: f64 = 1.5;
/// Targets are bounded, so that a single fault does not steer an update.
const BOUND: f32 = 30.0;
/// Rows before the validation slice that bring the hidden state up to date.
const LEAD: usize = 256;
/// First steps of a window, in which the hidden state comes from zero: half weight.
const COLD: usize = 8;

/// One series: a row for each reading.
#[derive(Debug)]
struct Sequence {
    inputs: Vec<[f32; FEATURES]>,
    /// Difference to the next reading in units of the scale; NaN where none is to be learned.
    targets: Vec<f32>,
    /// First row of the validation slice.
    split: usize,
}

/// Inputs and targets of all series of a stream.
#[derive(Debug)]
pub struct TrainingSet {
    sequences: Vec<Sequence>,
    /// Rows before each sequence, to draw windows evenly over all rows.
    offsets: Vec<usize>,
    rows: usize,
    /// Time of the newest reading.
    until: Timestamp,
}

/// How a network does on the validation slice.
pub(super) struct Validation {
    pub(super) loss: f32,
    pub(super) relative_error: f32,
    pub(super) coverage: f32,
}

/// How many of a series' readings are learned from; the later ones are held out to validate on.
#[must_use]
pub(crate) fn learned(readings: usize) -> usize {
    readings - (readings as f64 * VALIDATION) as usize
}

impl Default for TrainingSet {
    fn default() -> Self {
        let until = Timestamp(i64::MIN);
        TrainingSet { sequences: Vec::new(), offsets: Vec::new(), rows: 0, until }
    }
}

impl TrainingSet {
    /// Adds a series' readings, in order of time. `interval` as in the stream's configuration.
    pub fn add(&mut self, readings: &[Reading], interval: Option<i64>) {
        self.until = readings.last().map_or(self.until, |r| self.until.max(r.time));
        let mut series = Local::default();
        let mut inputs = Vec::with_capacity(readings.len());
        let mut targets: Vec<f32> = Vec::with_capacity(readings.len());
        let mut scale = 1.0;
        let mut features = [0.0; FEATURES];
        for (row, reading) in readings.iter().enumerate() {
            if let (Some(last), Some(target)) = (series.last(), targets.last_mut()) {
                let settled = row > SETTLING && series.gap(reading.time, interval) <= GAP;
                if settled {
                    *target = (((reading.value - last.value) / scale) as f32).clamp(-BOUND, BOUND);
                }
            }
            series.advance(*reading, interval, &mut features);
            inputs.push(features);
            scale = series.scale().scale();
            targets.push(f32::NAN);
        }
        let split = learned(readings.len());
        if split <= SETTLING {
            return;
        }
        self.offsets.push(self.rows);
        self.rows += split;
        self.sequences.push(Sequence { inputs, targets, split });
    }

    /// Inputs and targets of the series added last, a row for each reading; none if it was too short.
    pub(super) fn rows_of_last(&self) -> Option<(&[[f32; FEATURES]], &[f32])> {
        self.sequences.last().map(|s| (&s.inputs[..], &s.targets[..]))
    }

    /// Time of the newest reading.
    pub(super) fn until(&self) -> Timestamp {
        self.until
    }

    /// Series to learn from.
    #[must_use]
    pub fn series(&self) -> usize {
        self.sequences.len()
    }

    /// Rows that are learned from.
    #[must_use]
    pub fn training_rows(&self) -> usize {
        self.sequences.iter().map(|s| usable(&s.targets[..s.split - 1]).count()).sum()
    }

    /// Rows that are validated on.
    #[must_use]
    pub fn validation_rows(&self) -> usize {
        self.sequences.iter().map(|s| usable(&s.targets[s.split - 1..]).count()).sum()
    }

    /// Every row with a target, for trees; those of the validation slice marked.
    pub(super) fn examples(&self) -> Vec<Example<'_>> {
        let mut examples = Vec::new();
        for s in &self.sequences {
            for (row, (features, target)) in s.inputs.iter().zip(&s.targets).enumerate() {
                if !target.is_nan() {
                    examples.push(Example { features, target: *target, held_out: row >= s.split - 1 });
                }
            }
        }
        examples
    }

    /// Quantiles of all training targets together.
    pub(super) fn target_quantiles(&self) -> [f32; 7] {
        let mut all: Vec<f32> =
            self.sequences.iter().flat_map(|s| usable(&s.targets[..s.split - 1])).collect();
        all.sort_unstable_by(f32::total_cmp);
        LEVELS.map(|l| all.get((l * all.len() as f64) as usize).copied().unwrap_or_default())
    }

    /// Pinball loss on the validation slice of the training targets' quantiles, with the last value
    /// as median.
    pub(super) fn naive_loss(&self) -> f32 {
        let mut quantiles = self.target_quantiles();
        quantiles[MEDIAN] = 0.0;
        quantiles.sort_unstable_by(f32::total_cmp);
        let (mut sum, mut rows) = (0.0_f64, 0);
        for s in &self.sequences {
            for target in usable(&s.targets[s.split - 1..]) {
                sum += f64::from(pinball(target, &quantiles));
                rows += 1;
            }
        }
        (sum / f64::from(rows.max(1))) as f32
    }

    /// Draws windows, evenly over all rows that are learned from, or over the whole.
    pub(super) fn sample(&self, (steps, batch): (usize, usize), whole: bool, rng: &mut StdRng) -> Batch {
        let rows = steps * batch;
        let mut out = Batch {
            steps,
            batch,
            inputs: vec![0.0; rows * INPUTS],
            targets: vec![0.0; rows],
            mask: vec![0.0; rows],
        };
        for lane in 0..batch {
            let row = rng.random_range(0..self.rows);
            let at = self.offsets.partition_point(|o| *o <= row) - 1;
            let sequence = &self.sequences[at];
            // A row near the end gives a window that ends there, so that late rows count alike.
            let end = if whole { sequence.inputs.len() } else { sequence.split };
            let last_start = (end - 1).saturating_sub(steps);
            let spread = (row - self.offsets[at]) as f64 * end as f64 / sequence.split as f64;
            let start = (spread as usize).min(last_start);
            for step in 0..steps.min(end - 1 - start) {
                let to = step * batch + lane;
                out.inputs[to * INPUTS..(to + 1) * INPUTS]
                    .copy_from_slice(&sequence.inputs[start + step][..INPUTS]);
                let target = sequence.targets[start + step];
                if !target.is_nan() {
                    out.targets[to] = target;
                    out.mask[to] = if step < COLD && start > 0 { 0.5 } else { 1.0 };
                }
            }
        }
        out
    }

    /// Streams the validation slice through the fused kernels, as the daemon would; of several networks
    /// the mean answer counts.
    pub(super) fn validate(&self, model: &Model) -> Validation {
        let mut scratch = Scratch::default();
        let (mut loss, mut error, mut naive, mut inside, mut rows) =
            (0.0_f64, 0.0_f64, 0.0_f64, 0_u32, 0_u32);
        for sequence in &self.sequences {
            let mut state = ModelState::default();
            let from = sequence.split - 1;
            for row in from.saturating_sub(LEAD)..sequence.inputs.len() {
                let answers = model.answer(&sequence.inputs[row], &mut state, &mut scratch);
                let target = sequence.targets[row];
                if row >= from && !target.is_nan() {
                    let out = mean_of_all(&answers);
                    loss += f64::from(pinball(target, &out));
                    error += f64::from((target - out[MEDIAN]).abs());
                    naive += f64::from(target.abs());
                    inside += u32::from((out[0]..=out[6]).contains(&target));
                    rows += 1;
                }
            }
        }
        let rows = f64::from(rows.max(1));
        Validation {
            loss: (loss / rows) as f32,
            relative_error: (error / naive.max(f64::MIN_POSITIVE)) as f32,
            coverage: (f64::from(inside) / rows) as f32,
        }
    }
}

/// Quantiles that the answers have in the mean; NaN if there is none.
fn mean_of_all(answers: &[Option<Lanes>]) -> [f32; 7] {
    let (mut sum, mut count) = ([0.0; 7], 0.0);
    for answer in answers.iter().flatten() {
        sum.iter_mut().zip(answer).for_each(|(s, a)| *s += a);
        count += 1.0;
    }
    sum.map(|s: f32| s / count)
}

fn usable(targets: &[f32]) -> impl Iterator<Item = f32> {
    targets.iter().copied().filter(|t| !t.is_nan())
}
