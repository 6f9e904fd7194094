//! What users said of a series' anomalies: feedback, and the moments that it can be about.
//!
//! Both kinds of feedback are bounds on the bar that evidence must reach: "no anomaly" says that evidence as
//! strong as that is harmless, and raises the lower bound over it; "an anomaly" says that it is telling, and
//! lowers the upper bound under it. Between the bounds the bar goes on being tracked; where two words contradict
//! each other the later one counts. Both bounds give way by a factor of e in half a year of readings, so that
//! nobody's word makes a series deaf, or nervous, for ever. Evidence is bounded, and so is the lower bound; the
//! upper one never pulls the bar below the lowest that tracking could take it to.

use serde::{Deserialize, Serialize};

use crate::reading::{DAY, Timestamp};

/// How much stronger than what was called harmless evidence must be: two occurrences of one thing are never quite
/// alike, and the second may stand out more, by half of its evidence in tests.
const HARMLESS: f64 = 1.5;
/// How much weaker than what was called an anomaly it may be. Nearer, since an alarm too many is the smaller evil
/// only if there are few.
const TELLING: f64 = 1.1;
/// Time in which a bound gives way by a factor of e.
const MEMORY: i64 = 182 * DAY;
/// Anomalies remembered, the latest, and as many moments that came near to one.
const MOMENTS: usize = 4;
/// Share of the bar from which on a reading came near to it.
const NEAR: f64 = 0.5;

/// A moment that feedback can be about: an anomaly, or a reading that came near to one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Time of the first abnormal reading.
    pub from: Timestamp,
    /// Time of the last.
    pub to: Timestamp,
    /// The strongest evidence in between.
    pub evidence: f32,
    /// Whether it was raised.
    pub raised: bool,
}

impl Moment {
    /// How far off a time is, in microseconds.
    fn distance(&self, time: Timestamp) -> i64 {
        let before = self.from.0.saturating_sub(time.0);
        let after = time.0.saturating_sub(self.to.0);
        before.max(after).max(0)
    }
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Lessons {
    /// The bar is not below this; 0 if nothing was said.
    harmless: f64,
    /// The bar is not above this, which is not below the other one; none if nothing was said.
    telling: Option<f64>,
    /// Oldest first.
    moments: Vec<Moment>,
}

impl Lessons {
    /// The bar where tracking alone would have it at `tracked`, and at `lowest` at the least.
    pub(super) fn bar(&self, tracked: f64, lowest: f64) -> f64 {
        self.telling.map_or(tracked, |telling| tracked.min(telling.max(lowest))).max(self.harmless)
    }

    /// Lets a part of what was said be forgotten, for the time of a reading.
    pub(super) fn fade(&mut self, interval: i64) {
        let share = (interval as f64 / MEMORY as f64).min(1.0);
        self.harmless -= share * self.harmless;
        self.telling = self.telling.map(|telling| telling + share * telling);
    }

    /// Takes in what was said of evidence of some strength; whether that moves a bound.
    pub(super) fn learn(&mut self, evidence: f64, anomaly: bool) -> bool {
        let before = (self.harmless, self.telling);
        if anomaly {
            let telling = self.telling.unwrap_or(f64::INFINITY).min(evidence / TELLING);
            self.harmless = self.harmless.min(telling);
            self.telling = Some(telling);
        } else {
            self.harmless = self.harmless.max(evidence * HARMLESS);
            self.telling = self.telling.map(|telling| telling.max(self.harmless));
        }
        before != (self.harmless, self.telling)
    }

    /// The moment nearest to a time and at most `reach` microseconds off; without a time, the latest anomaly.
    pub(super) fn moment(&self, time: Option<Timestamp>, reach: i64) -> Option<Moment> {
        let Some(time) = time else { return self.moments.iter().rfind(|m| m.raised).copied() };
        let near = self.moments.iter().filter(|m| m.distance(time) <= reach);
        // Of those that are equally near, the anomaly.
        near.min_by_key(|m| (m.distance(time), !m.raised)).copied()
    }

    fn remember(&mut self, moment: Moment) {
        let alike = |m: &Moment| m.raised == moment.raised;
        if self.moments.iter().filter(|m| alike(m)).count() >= MOMENTS
            && let Some(oldest) = self.moments.iter().position(alike)
        {
            self.moments.remove(oldest);
        }
        self.moments.reserve_exact(1);
        self.moments.push(moment);
    }
}

/// Lessons, where there are any: most series have none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Taught(Option<Box<Lessons>>);

impl Taught {
    pub(super) fn get(&self) -> Option<&Lessons> {
        self.0.as_deref()
    }

    pub(super) fn get_mut(&mut self) -> Option<&mut Lessons> {
        self.0.as_deref_mut()
    }

    pub(super) fn learn(&mut self, evidence: f64, anomaly: bool) -> bool {
        self.0.get_or_insert_default().learn(evidence, anomaly)
    }

    /// An anomaly begins.
    pub(super) fn began(&mut self, time: Timestamp, evidence: f64) {
        let moment = Moment { from: time, to: time, evidence: evidence as f32, raised: true };
        self.0.get_or_insert_default().remember(moment);
    }

    /// The anomaly that began last goes on.
    pub(super) fn went_on(&mut self, time: Timestamp, evidence: f64) {
        if let Some(last) = self.get_mut().and_then(|l| l.moments.iter_mut().rfind(|m| m.raised)) {
            last.to = time;
            last.evidence = last.evidence.max(evidence as f32);
        }
    }

    /// A reading was not raised.
    pub(super) fn passed(&mut self, time: Timestamp, evidence: f64, bar: f64) {
        if evidence >= NEAR * bar {
            let moment = Moment { from: time, to: time, evidence: evidence as f32, raised: false };
            self.0.get_or_insert_default().remember(moment);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn moment(at: i64, raised: bool) -> Moment {
        Moment { from: Timestamp(at), to: Timestamp(at + 10), evidence: 1.0, raised }
    }

    proptest! {
        /// Whatever was said before: evidence as strong as what was called harmless does not reach the bar, and
        /// evidence as strong as what was called an anomaly does, however the bar is tracked.
        #[test]
        fn the_last_word_counts(
            words in prop::collection::vec((0.01..20.0_f64, any::<bool>()), 1..12), tracked in 0.1..20.0_f64,
        ) {
            let mut lessons = Lessons::default();
            for &(evidence, anomaly) in &words {
                lessons.learn(evidence, anomaly);
            }
            let (evidence, anomaly) = *words.last().unwrap();
            let bar = lessons.bar(tracked, 0.001);
            prop_assert_eq!(evidence >= bar, anomaly, "{:?} {}", lessons, bar);
            prop_assert!(lessons.telling.is_none_or(|telling| lessons.harmless <= telling), "{:?}", lessons);
            // Bounded: by the lowest, and by what was called harmless or tracked.
            let strongest = words.iter().map(|(e, _)| e * HARMLESS).fold(tracked, f64::max);
            prop_assert!((0.001..=strongest).contains(&bar), "{:?} {}", lessons, bar);
        }

        /// Saying it again, in the same order, changes nothing: a replay may do so.
        #[test]
        fn words_repeated_change_nothing(words in prop::collection::vec((0.01..20.0_f64, any::<bool>()), 1..6)) {
            let mut lessons = Lessons::default();
            for &(evidence, anomaly) in &words {
                lessons.learn(evidence, anomaly);
            }
            let once = lessons.clone();
            for &(evidence, anomaly) in &words {
                lessons.learn(evidence, anomaly);
            }
            prop_assert_eq!(lessons, once);
        }
    }

    #[test]
    fn a_word_fades_by_a_factor_of_e_in_half_a_year() {
        let mut lessons = Lessons::default();
        lessons.learn(4.0, false);
        let harmless = lessons.harmless;
        let mut other = Lessons::default();
        other.learn(4.0, true);
        let telling = other.telling.unwrap();
        for _ in 0..182 * 24 {
            lessons.fade(DAY / 24);
            other.fade(DAY / 24);
        }
        let e = std::f64::consts::E;
        assert!((harmless / lessons.harmless / e - 1.0).abs() < 0.01, "{lessons:?}");
        assert!((other.telling.unwrap() / telling / e - 1.0).abs() < 0.01, "{other:?}");
    }

    #[test]
    fn the_nearest_moment_within_reach_is_meant() {
        let mut lessons = Lessons::default();
        assert_eq!(lessons.moment(None, 100), None);
        lessons.remember(moment(1000, true));
        lessons.remember(moment(2000, false));
        assert_eq!(lessons.moment(None, 100), Some(moment(1000, true)));
        for (time, found) in
            [(1005, Some(1000)), (990, Some(1000)), (1110, Some(1000)), (1500, None), (2000, Some(2000))]
        {
            let moment = lessons.moment(Some(Timestamp(time)), 100);
            assert_eq!(moment.map(|m| m.from.0), found, "{time}");
        }
        // The nearer one, and of two equally near ones the anomaly.
        lessons.remember(moment(1020, false));
        assert_eq!(lessons.moment(Some(Timestamp(1018)), 100), Some(moment(1020, false)));
        assert_eq!(lessons.moment(Some(Timestamp(1015)), 100), Some(moment(1000, true)));
    }

    #[test]
    fn near_misses_do_not_push_anomalies_out() {
        let mut lessons = Lessons::default();
        for n in 0..6 {
            lessons.remember(moment(n, true));
        }
        for n in 100..1000 {
            lessons.remember(moment(n, false));
        }
        assert_eq!(lessons.moments.len(), 2 * MOMENTS);
        let raised = lessons.moments.iter().filter(|m| m.raised).map(|m| m.from.0);
        assert!(raised.eq(2..6), "{lessons:?}");
    }
}
