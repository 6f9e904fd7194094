//! Streams that come, change and pause while the engine runs leave the others as they are, to the bit.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use forecaster::{Engine, Reading, SECOND, Step, StreamSpec, Timestamp};

const FAR: Timestamp = Timestamp(i64::MAX);

fn spec(horizon: usize) -> StreamSpec {
    StreamSpec { horizon, silence_after: 5, ..StreamSpec::default() }
}

fn reading(position: i64, series: u32) -> Reading {
    let value = ((position * 37 + i64::from(series) * 11) % 17) as f64;
    Reading { time: Timestamp(position * 60 * SECOND), value }
}

/// Feeds readings of a series, whose numbers in the engine and in the world may differ; the last forecast.
fn feed(engine: &mut Engine, handle: u32, series: u32, positions: std::ops::Range<i64>) -> Vec<Step> {
    for position in positions {
        engine.observe(handle, reading(position, series), FAR);
    }
    engine.steps().to_vec()
}

fn state(engine: &mut Engine, series: u32) -> Vec<u8> {
    let mut states = vec![Vec::new(); 8];
    engine.checkpoint(usize::MAX, |handle, _, _, state| states[handle as usize] = state);
    states[series as usize].clone()
}

#[test]
fn streams_of_another_engine_go_on_in_this_one_and_its_own_do_not_notice() {
    let (mut alone, mut other) = (Engine::new([spec(2)]), Engine::new([spec(1), spec(3)]));
    alone.add_series(0);
    other.add_series(1);
    other.add_series(0);
    let mut joined = Engine::new([spec(2)]);
    joined.add_series(0);
    feed(&mut alone, 0, 0, 0..50);
    feed(&mut joined, 0, 0, 0..50);
    let mut apart = Engine::new([spec(1), spec(3)]);
    for engine in [&mut other, &mut apart] {
        if engine.series(0).is_none() {
            engine.add_series(1);
            engine.add_series(0);
        }
        feed(engine, 0, 7, 0..30);
        feed(engine, 1, 8, 0..20);
    }
    joined.absorb(other);
    assert_eq!(joined.unsaved(), 3, "what was not saved there is not saved here");
    assert_eq!(feed(&mut joined, 1, 7, 30..60), feed(&mut apart, 0, 7, 30..60));
    assert_eq!(feed(&mut joined, 2, 8, 20..60), feed(&mut apart, 1, 8, 20..60));
    assert_eq!(joined.steps().len(), 1, "of its own stream");
    let steps = feed(&mut joined, 0, 0, 50..90);
    assert_eq!((steps.len(), &steps), (2, &feed(&mut alone, 0, 0, 50..90)));
    assert_eq!(state(&mut joined, 0), state(&mut alone, 0));
}

#[test]
fn other_rules_count_from_the_next_reading_as_after_a_restart() {
    let mut engine = Engine::new([spec(1), spec(1)]);
    engine.add_series(0);
    engine.add_series(1);
    feed(&mut engine, 0, 0, 0..40);
    feed(&mut engine, 1, 1, 0..40);
    let untouched = feed(&mut engine, 1, 1, 40..41);
    let mut restarted = Engine::new([spec(4)]);
    restarted.add_series(0);
    restarted.restore(0, None, &state(&mut engine, 0)).unwrap();
    assert!(engine.set_spec(0, spec(4)));
    assert!(!engine.set_spec(0, spec(4)), "the same rules");
    assert!(!engine.set_spec(9, spec(4)), "no such stream");
    assert_eq!(engine.forecast(1), untouched);
    for position in 40..60 {
        let steps = feed(&mut engine, 0, 0, position..position + 1);
        assert_eq!(steps.len(), 4);
        assert_eq!(steps, feed(&mut restarted, 0, 0, position..position + 1));
    }
}

#[test]
fn a_stream_that_pauses_is_not_silent_and_one_that_is_back_is_not_at_once() {
    let mut engine = Engine::new([spec(1), spec(1)]);
    let at = |minute: i64| Timestamp(minute * 60 * SECOND);
    for stream in 0..2 {
        engine.add_series(stream);
    }
    engine.deaf_until(at(0));
    for minute in 0..20 {
        for handle in 0..2 {
            engine.observe(handle, reading(minute, handle), FAR);
            engine.heard(handle, reading(minute, handle).time, at(minute));
        }
    }
    let silent = |engine: &mut Engine, minute| {
        let mut found = Vec::new();
        while engine.silences(at(minute), 100, |silence| found.push(silence.series)) {}
        found
    };
    engine.set_spec(0, StreamSpec { silence_after: 0, ..spec(1) });
    assert_eq!(silent(&mut engine, 100), [1], "the one that pauses is not");
    engine.listen(0, at(200));
    engine.set_spec(0, spec(1));
    assert!(silent(&mut engine, 204).is_empty(), "five minutes begin when it is back");
    assert_eq!(silent(&mut engine, 206), [0]);
}
