//! Champion and challenger: two models replay the latest readings as the stream would have served them,
//! online experts and calibration included, and the challenger has to be better by a margin.
//!
//! The readings judged on must have been learned from by neither; [`cutoff`] says where to part them from
//! those that a candidate learns from. What is a sensor's fault (see `faults`) is not judged on: a model
//! that learned faults must not win by them.

use serde::Serialize;

use crate::engine::StreamSpec;
use crate::faults::suspect;
use crate::model::Model;
use crate::reading::{Reading, Timestamp};
use crate::series::{Room, Series};
use crate::train::learned;

/// Readings to be judged on at least.
pub const MIN_JUDGED: u64 = 100;
/// Readings of a series at least for it to count among those that a candidate is better or worse on.
const MIN_OF_SERIES: u64 = 20;
/// Stretches of time that the comparison is made in: how much they differ says what may be chance.
const BLOCKS: usize = 10;
/// Standard errors by which a challenger of a champion must be better.
pub const SURE: f64 = 2.0;
/// Readings between two looks at whether to stop.
const LOOK_EVERY: usize = 4096;

/// How a model did on one series.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Score {
    rows: u64,
    loss: f64,
    error: f64,
    naive_error: f64,
    inside: u64,
    blocks: [f64; BLOCKS],
}

/// How a model did on the stretch that it is judged on, by series.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    series: Vec<Score>,
}

/// A trial in figures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Standing {
    /// Readings judged on.
    pub readings: u64,
    /// Mean pinball loss of the forecasts served, in units of each series' mean movement between readings.
    pub loss: f64,
    /// Mean absolute error of the median over that of the last value.
    pub relative_error: f64,
    /// Share of readings inside the 90 % interval.
    pub coverage: f64,
}

/// What a challenger must show.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// Share by which its loss must lie below the champion's.
    pub margin: f64,
    /// Share of series at most on which it may do worse, by more than the margin.
    pub max_worse: f64,
    /// Standard errors by which it must be better, so that it is not by chance.
    pub sure: f64,
}

impl Rule {
    /// For a first model, that has only the online experts to outdo: that it is better will do.
    pub const FIRST: Rule = Rule { margin: 0.0, max_worse: 0.5, sure: 0.0 };
}

/// What a challenge came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Decision {
    /// Whether the challenger wins.
    pub won: bool,
    /// Why it does not; empty if it does.
    pub reason: String,
    /// By what share its loss lies below the champion's; negative if above.
    pub better_by: f64,
    /// Standard errors that this is away from nothing.
    pub deviations: f64,
    /// Share of series on which it does worse by more than the margin.
    pub worse_share: f64,
}

/// The time after which a share of all readings lie; the earliest of all if there are none.
#[must_use]
pub fn cutoff<'a>(histories: impl Iterator<Item = &'a [Reading]>, share: f64) -> Timestamp {
    let mut times: Vec<Timestamp> = histories.flatten().map(|r| r.time).collect();
    let last = times.len().saturating_sub(1);
    let at = ((times.len() as f64 * (1.0 - share)) as usize).saturating_sub(1).min(last);
    if times.is_empty() {
        return Timestamp(i64::MIN);
    }
    *times.select_nth_unstable(at).1
}

/// Replays histories under a model, or under the online experts alone, and judges its forecasts of the
/// readings later than `from`. None if it was stopped.
#[must_use]
pub fn trial<'a>(
    model: Option<&Model>,
    histories: impl Iterator<Item = &'a [Reading]> + Clone,
    from: Timestamp,
    spec: &StreamSpec,
    stop: impl Fn() -> bool,
) -> Option<Trial> {
    let until = histories.clone().filter_map(|h| h.last()).map(|r| r.time).max().unwrap_or(from);
    let block_of = |time: Timestamp| {
        let share = (time.0 - from.0) as f64 / (until.0 - from.0).max(1) as f64;
        ((share * BLOCKS as f64) as usize).min(BLOCKS - 1)
    };
    let mut room = Room::default();
    let mut trial = Trial { series: Vec::new() };
    for history in histories {
        let known = model.map_or(0, |m| history.partition_point(|r| r.time <= m.trained_until()));
        let (mut series, mut score) = (Series::default(), Score::default());
        let suspect = suspect(history);
        let Some(unit) = unit(history, &suspect) else {
            trial.series.push(score);
            continue;
        };
        for (row, (reading, suspect)) in history.iter().zip(&suspect).enumerate() {
            if row % LOOK_EVERY == 0 && stop() {
                return None;
            }
            if reading.time > from
                && !suspect
                && let Some(judged) = series.judge(*reading, unit)
            {
                score.rows += 1;
                score.loss += judged.loss;
                score.error += judged.error;
                score.naive_error += judged.naive_error;
                score.inside += u64::from(judged.inside);
                score.blocks[block_of(reading.time)] += judged.loss;
            }
            series.pass(*reading, spec, model, row >= learned(known), &mut room);
        }
        trial.series.push(score);
    }
    Some(trial)
}

/// Mean movement between readings that are beyond suspicion; none if nothing moves. Unlike the scale that
/// a series keeps online it is not misled by a storm of faults.
fn unit(history: &[Reading], suspect: &[bool]) -> Option<f64> {
    let (mut sum, mut moves) = (0.0, 0_u32);
    for (pair, suspect) in history.windows(2).zip(suspect.windows(2)) {
        if let ([before, after], [false, false]) = (pair, suspect) {
            sum += (after.value - before.value).abs();
            moves += 1;
        }
    }
    (sum > 0.0 && sum.is_finite()).then(|| sum / f64::from(moves))
}

impl Trial {
    fn sum(&self, of: impl Fn(&Score) -> f64) -> f64 {
        self.series.iter().map(of).sum()
    }

    /// In figures; none if there was nothing to judge on.
    #[must_use]
    pub fn standing(&self) -> Option<Standing> {
        let readings: u64 = self.series.iter().map(|s| s.rows).sum();
        let rows = readings as f64;
        (readings > 0).then(|| Standing {
            readings,
            loss: self.sum(|s| s.loss) / rows,
            relative_error: self.sum(|s| s.error) / self.sum(|s| s.naive_error).max(f64::MIN_POSITIVE),
            coverage: self.sum(|s| s.inside as f64) / rows,
        })
    }

    /// Whether this challenger beats a champion that was tried on the same readings.
    #[must_use]
    pub fn against(&self, champion: &Trial, rule: &Rule) -> Decision {
        let readings: u64 = self.series.iter().map(|s| s.rows).sum();
        let (own, other) = (self.sum(|s| s.loss), champion.sum(|s| s.loss));
        let better_by = if other > 0.0 { 1.0 - own / other } else { 0.0 };
        let pairs = || self.series.iter().zip(&champion.series);
        let counted = pairs().filter(|(own, _)| own.rows >= MIN_OF_SERIES).count();
        let worse = pairs()
            .filter(|(own, other)| own.rows >= MIN_OF_SERIES && own.loss > other.loss * (1.0 + rule.margin))
            .count();
        let worse_share = worse as f64 / counted.max(1) as f64;
        let deviations = self.deviations(champion);
        let reason = if readings < MIN_JUDGED {
            format!("{readings} readings to judge on, and {MIN_JUDGED} are needed")
        } else if better_by < rule.margin || better_by <= 0.0 {
            format!(
                "its loss is {} that of the forecasts it was held against, and {} below is asked for",
                below(better_by),
                if rule.margin > 0.0 { percent(rule.margin) } else { "anything".to_owned() }
            )
        } else if deviations < rule.sure {
            format!(
                "its loss is {} that of the forecasts it was held against, {deviations:.1} standard errors, \
                 which may be chance",
                below(better_by)
            )
        } else if worse_share > rule.max_worse {
            format!(
                "worse on {} of the series, and {} at most are allowed",
                percent(worse_share),
                percent(rule.max_worse)
            )
        } else {
            String::new()
        };
        Decision { won: reason.is_empty(), reason, better_by, deviations, worse_share }
    }

    /// Standard errors that the mean difference of the blocks lies above nothing.
    fn deviations(&self, champion: &Trial) -> f64 {
        let mut blocks = [0.0; BLOCKS];
        for (own, other) in self.series.iter().zip(&champion.series) {
            for (block, (own, other)) in blocks.iter_mut().zip(own.blocks.iter().zip(&other.blocks)) {
                *block += other - own;
            }
        }
        let mean = blocks.iter().sum::<f64>() / BLOCKS as f64;
        let variance = blocks.iter().map(|b| (b - mean) * (b - mean)).sum::<f64>() / (BLOCKS - 1) as f64;
        mean / (variance / BLOCKS as f64).sqrt().max(f64::MIN_POSITIVE)
    }
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

fn below(share: f64) -> String {
    if share < 0.0 { format!("{} above", percent(-share)) } else { format!("{} below", percent(share)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two trials of ten series of a hundred readings: losses of the challenger on the first `worse` series
    /// and on the others, and 1 everywhere for the champion.
    fn decide(worse: usize, (high, low): (f64, f64), rule: &Rule) -> Decision {
        let score = |loss: f64| Score { rows: 100, loss, blocks: [loss / 10.0; BLOCKS], ..Score::default() };
        let own = (0..10).map(|s| score(if s < worse { high } else { low })).collect();
        Trial { series: own }.against(&Trial { series: vec![score(1.0); 10] }, rule)
    }

    #[test]
    fn better_on_the_whole_but_worse_on_too_many_series_does_not_win() {
        let rule = Rule { margin: 0.01, max_worse: 0.25, sure: SURE };
        assert!(decide(2, (1.1, 0.8), &rule).won);
        let worse = decide(3, (1.1, 0.8), &rule);
        assert_eq!(worse.reason, "worse on 30.00 % of the series, and 25.00 % at most are allowed");
        // Worse by less than the margin is not worse.
        assert!(decide(5, (1.005, 0.8), &rule).won);
    }

    #[test]
    fn the_margin_is_asked_for() {
        let rule = Rule { margin: 0.05, max_worse: 1.0, sure: SURE };
        assert!(decide(0, (0.0, 0.94), &rule).won);
        assert!(decide(0, (0.0, 0.96), &rule).reason.contains("4.00 % below"));
        assert!(decide(0, (0.0, 1.04), &rule).reason.contains("4.00 % above"));
        assert!(decide(0, (0.0, 0.999), &Rule::FIRST).won);
        assert!(!decide(0, (0.0, 1.0), &Rule::FIRST).won);
    }
}
