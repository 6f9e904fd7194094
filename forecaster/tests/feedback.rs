//! What users say of anomalies: what is raised of a series afterwards, and that nothing else changes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use forecaster::anomaly::{AnomalySettings, Change};
use forecaster::engine::STATE_VERSION;
use forecaster::{Engine, Reading, SECOND, Step, StreamSpec, Timestamp, Tuned, Verdict};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::StdRng};

const MINUTE: i64 = 60 * SECOND;
/// Readings between two events of a kind: after so many the place where it was is forgotten, and new again.
const APART: i64 = 5000;

/// One series, read every minute: noise, and jumps of a size now and then.
struct Bench {
    engine: Engine,
    rng: StdRng,
    readings: i64,
    steps: Vec<Vec<Step>>,
    scores: Vec<f64>,
    began: Vec<i64>,
}

impl Bench {
    fn new() -> Bench {
        let mut engine = Engine::new([spec()]);
        engine.add_series(0);
        let (steps, scores, began) = Default::default();
        Bench { engine, rng: StdRng::seed_from_u64(5), readings: 0, steps, scores, began }
    }

    fn feed(&mut self, jump: f64) {
        let noise: f64 = (0..12).map(|_| self.rng.random::<f64>()).sum();
        let reading = Reading { time: Timestamp(self.readings * MINUTE), value: noise - 6.0 + jump };
        let verdict = self.engine.observe(0, reading, Timestamp(i64::MAX));
        let Verdict::Accepted(outcome) = verdict else { unreachable!("{verdict:?}") };
        if outcome.change == Some(Change::Began) {
            self.began.push(self.readings);
        }
        self.steps.push(self.engine.steps().to_vec());
        self.scores.push(outcome.score);
        self.readings += 1;
    }

    fn quiet(&mut self, readings: i64) {
        (0..readings).for_each(|_| self.feed(0.0));
    }

    fn say(&mut self, at: Option<i64>, anomaly: bool) -> Option<Tuned> {
        self.engine.teach(0, at.map(|at| Timestamp(at * MINUTE)), anomaly)
    }

    /// Whether a jump of a size, after the time that it takes to be news, is raised.
    fn raises(&mut self, jump: f64) -> bool {
        self.quiet(APART);
        self.feed(jump);
        self.began.last() == Some(&(self.readings - 1))
    }

    /// The state as it is stored.
    fn state(&mut self) -> Vec<u8> {
        let mut states = Vec::new();
        self.engine.checkpoint(1, |_, _, _, state| states.push(state));
        states.pop().unwrap()
    }
}

fn spec() -> StreamSpec {
    StreamSpec {
        interval: Some(MINUTE),
        anomaly: AnomalySettings { alarms_per_week: 6.0, ..AnomalySettings::DEFAULT },
        ..StreamSpec::default()
    }
}

const EVENT: f64 = 10.0;

#[test]
fn what_was_called_harmless_is_not_raised_again_and_what_is_worse_is() {
    let (mut taught, mut other) = (Bench::new(), Bench::new());
    for bench in [&mut taught, &mut other] {
        assert!(bench.raises(EVENT), "{:?}", bench.began);
        bench.quiet(20);
    }
    let tuned = taught.say(None, false).unwrap();
    assert_eq!(tuned.moment.from, Timestamp((taught.readings - 21) * MINUTE));
    let evidence = f64::from(tuned.moment.evidence);
    assert!(tuned.before.unwrap() <= evidence && tuned.after.unwrap() > evidence, "{tuned:?}");
    assert!(other.raises(EVENT), "it would be raised again");
    assert!(!taught.raises(EVENT), "{:?}", taught.began);
    assert!(taught.raises(100.0 * EVENT), "what is worse is raised");
    assert!(taught.scores.last().is_some_and(|score| *score >= 0.5), "the score is of another question");
}

#[test]
fn the_other_word_lets_it_be_raised_again() {
    let mut bench = Bench::new();
    assert!(bench.raises(EVENT));
    bench.quiet(20);
    bench.say(None, false).unwrap();
    let back = bench.say(None, true).unwrap();
    let evidence = f64::from(back.moment.evidence);
    assert!(back.before.unwrap() > evidence && back.after.unwrap() <= evidence, "{back:?}");
    assert!(bench.raises(EVENT));
}

/// A reading that came near to the bar, and was not raised, is raised once such a one was called an anomaly.
#[test]
fn what_was_missed_is_raised_the_next_time() {
    let missed = |tenths: i64, times: i64| {
        let jump = tenths as f64 / 10.0;
        let (mut taught, mut other) = (Bench::new(), Bench::new());
        for bench in [&mut taught, &mut other] {
            (1..times).for_each(|_| _ = bench.raises(jump));
            if bench.raises(jump) {
                return false;
            }
            bench.quiet(20);
        }
        let at = taught.readings - 21;
        assert_eq!(taught.say(Some(at - 500), true), None, "of other moments nothing is known");
        let Some(tuned) = taught.say(Some(at), true) else { return false };
        let evidence = f64::from(tuned.moment.evidence);
        assert!(!tuned.moment.raised && tuned.before.unwrap() > evidence, "{tuned:?}");
        assert!(tuned.after.unwrap() <= evidence, "{tuned:?}");
        taught.raises(jump) && !other.raises(jump)
    };
    assert!((30..90).any(|tenths| (1..6).any(|times| missed(tenths, times))));
}

#[test]
fn of_a_series_that_raised_nothing_nothing_can_be_said() {
    let mut bench = Bench::new();
    bench.quiet(50);
    assert_eq!(bench.say(None, false), None);
    assert_eq!(bench.say(Some(10), true), None);
    assert_eq!(bench.engine.teach(7, None, false), None, "no such series");
}

#[test]
fn what_was_said_is_in_the_checkpoint_and_checkpoints_of_before_are_read() {
    let mut bench = Bench::new();
    assert!(bench.raises(EVENT));
    bench.quiet(20);
    bench.say(None, false).unwrap();
    let state = bench.state();
    bench.engine = Engine::new([spec()]);
    bench.engine.add_series(0);
    assert!(!bench.engine.restore(0, None, &state).unwrap());
    assert!(!bench.raises(EVENT));

    // Without feedback the state of today is that of version 3 and a mark that there is none.
    let mut bench = Bench::new();
    bench.quiet(30);
    let mut state = bench.state();
    assert_eq!((state[0], state.pop()), (STATE_VERSION, Some(0)));
    state[0] = 3;
    let mut engine = Engine::new([spec()]);
    engine.add_series(0);
    assert!(!engine.restore(0, None, &state).unwrap());
    bench.engine = engine;
    bench.feed(1.0);
    state[0] = 2;
    let mut engine = Engine::new([spec()]);
    engine.add_series(0);
    assert!(engine.restore(0, None, &state).is_err());
}

/// What was said before a crash is said again from the store: after the readings of before, and twice does no harm.
#[test]
fn said_again_it_tunes_as_it_did() {
    let (mut first, mut again) = (Bench::new(), Bench::new());
    assert!(first.raises(EVENT) && again.raises(EVENT));
    let tuned = first.say(None, false).unwrap();
    assert!(tuned.news && !first.say(None, false).unwrap().news, "what is known need not be kept again");
    for _ in 0..2 {
        again.engine.teach_again(0, f64::from(tuned.moment.evidence), false);
    }
    assert!(first.state() == again.state());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Whatever is said, and whenever: forecasts and scores are those of a series of which nothing was said.
    #[test]
    fn forecasts_and_scores_do_not_change(
        jumps in prop::collection::vec((1_i64..200, -50.0..50.0_f64, any::<bool>(), any::<bool>()), 1..12)
    ) {
        let (mut taught, mut other) = (Bench::new(), Bench::new());
        for (quiet, jump, latest, anomaly) in jumps {
            for bench in [&mut taught, &mut other] {
                bench.quiet(quiet);
                bench.feed(jump);
            }
            let at = taught.readings - 1;
            taught.say((!latest).then_some(at), anomaly);
        }
        prop_assert_eq!(taught.steps, other.steps);
        prop_assert_eq!(taught.scores, other.scores);
    }
}
