//! `[training]` and `[models]`: when and on what models are trained, and which of them forecasts.

use std::time::Duration;

use serde::Deserialize;

use super::validate::Problems;
use super::{Config, duration, duration_or_off};

/// `[training]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Training {
    /// Time between runs; none never trains by itself.
    #[serde(deserialize_with = "duration_or_off")]
    pub every: Option<Duration>,
    /// How far back from the stream's newest reading the training data reaches.
    #[serde(deserialize_with = "duration")]
    pub window: Duration,
    /// Readings of the stream, all series together, needed for a run.
    pub min_readings: u64,
    /// Readings that a run takes into memory at most; of very many, the latest of each series.
    pub max_readings: usize,
    /// Seed of the run; the same seed and data give the same weights.
    pub seed: u64,
    /// Whether a run begins when forecasts have become worse.
    pub on_drift: bool,
    /// Time after a run before drift may begin another.
    #[serde(deserialize_with = "duration")]
    pub drift_cooldown: Duration,
}

impl Default for Training {
    fn default() -> Self {
        Training {
            every: Some(Duration::from_secs(6 * 3600)),
            window: Duration::from_secs(14 * 86_400),
            min_readings: 1000,
            max_readings: 2_000_000,
            seed: 1,
            on_drift: true,
            drift_cooldown: Duration::from_secs(3600),
        }
    }
}

/// `[models]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Models {
    /// Newest models of a stream whose weights are kept, whatever became of them.
    pub keep: u32,
    /// Share by which a candidate's loss must lie below the champion's.
    pub margin: f64,
    /// Share of series at most on which a candidate may be worse by more than the margin.
    pub max_worse: f64,
    /// How long, in the time of the readings, a new champion has to prove itself; none at once.
    #[serde(deserialize_with = "duration_or_off")]
    pub probation: Option<Duration>,
}

impl Default for Models {
    fn default() -> Self {
        Models { keep: 10, margin: 0.01, max_worse: 0.25, probation: Some(Duration::from_secs(3 * 3600)) }
    }
}

pub(super) fn check(config: &Config, problems: &mut Problems) {
    let Config { training, models, .. } = config;
    problems.positive("training.every", training.every);
    problems.positive("training.window", Some(training.window));
    problems.unless(
        training.min_readings > 0,
        "training.min_readings",
        "is 0, and nothing can be learned from nothing; write for instance 1000",
    );
    problems.unless(
        training.max_readings as u64 >= training.min_readings,
        "training.max_readings",
        format!("{} is below min_readings, so that no run could begin; raise it", training.max_readings),
    );
    problems.unless(
        models.keep > 0,
        "models.keep",
        "is 0, but the champion is kept at least; write for instance 10",
    );
    problems.unless(
        (0.0..=0.5).contains(&models.margin),
        "models.margin",
        format!("{} is not from 0 to 0.5; 0.01 asks for 1 % less loss", models.margin),
    );
    problems.unless(
        (0.0..=1.0).contains(&models.max_worse),
        "models.max_worse",
        format!("{} is not from 0 to 1; 0.25 lets a quarter of the series be worse", models.max_worse),
    );
    problems.positive("models.probation", models.probation);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn each_problem_is_found_alone() {
        for (text, expected) in [
            ("[training]\nevery = '0s'", "training.every: is zero"),
            ("[training]\nwindow = '0s'", "training.window: is zero"),
            ("[training]\nmin_readings = 0", "training.min_readings: is 0"),
            ("[training]\nmax_readings = 999", "training.max_readings: 999 is below min_readings"),
            ("[models]\nkeep = 0", "models.keep: is 0"),
            ("[models]\nmargin = -0.1", "models.margin: -0.1 is not from 0"),
            ("[models]\nmax_worse = nan", "models.max_worse: NaN is not from 0"),
            ("[models]\nprobation = '0s'", "models.probation: is zero"),
        ] {
            let problems = Config::parse(&format!("{text}\n[[stream]]\nname = 'a'\ntopic = 'b/{{x}}'\n"));
            let problems = problems.unwrap().problems();
            assert_eq!(problems.len(), 1, "{text}: {problems:?}");
            assert!(problems.concat().starts_with(expected), "{text}: {problems:?}");
        }
    }
}
