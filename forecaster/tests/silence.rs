//! A series that stops reporting is noticed, and no other.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Instant;

use forecaster::{Engine, Reading, SECOND, Silence, StreamSpec, Timestamp};

const FAR: Timestamp = Timestamp(i64::MAX);

fn engine(series: usize) -> Engine {
    let mut engine = Engine::new([StreamSpec { silence_after: 5, ..StreamSpec::default() }]);
    for _ in 0..series {
        engine.add_series(0);
    }
    engine.deaf_until(Timestamp(0));
    engine
}

fn seconds(n: f64) -> Timestamp {
    Timestamp((n * SECOND as f64) as i64)
}

/// A reading of series 0 that says `time`, and when it arrives.
fn reading(engine: &mut Engine, time: f64, arrival: f64) -> Option<forecaster::Heard> {
    engine.observe(0, Reading { time: seconds(time), value: 1.0 }, FAR);
    engine.heard(0, seconds(time), seconds(arrival))
}

fn silences(engine: &mut Engine, now: f64) -> Vec<Silence> {
    let mut found = Vec::new();
    while engine.silences(seconds(now), 100, |s| found.push(s)) {}
    found
}

/// Times at which series 0 falls silent, looked at every half second until `until`.
fn run(engine: &mut Engine, arrivals: &[(f64, f64)], until: f64) -> Vec<f64> {
    let (mut at, mut found, mut next) = (0.0, Vec::new(), 0);
    while at < until {
        while let Some((time, arrival)) = arrivals.get(next).filter(|(_, arrival)| *arrival <= at) {
            reading(engine, *time, *arrival);
            next += 1;
        }
        found.extend(silences(engine, at).iter().map(|_| at));
        at += 0.5;
    }
    found
}

#[test]
fn a_series_that_stops_is_told_once_and_its_return_ends_it() {
    let mut engine = engine(1);
    for n in 0..20 {
        assert_eq!(reading(&mut engine, f64::from(n), f64::from(n)), None);
        assert_eq!(silences(&mut engine, f64::from(n)), []);
    }
    assert_eq!(silences(&mut engine, 23.9), []);
    let told = silences(&mut engine, 24.5);
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].since, told[0].last.time, told[0].interval), (seconds(20.0), seconds(19.0), SECOND));
    assert_eq!(told[0].unheard, 11 * SECOND / 2);
    assert_eq!(silences(&mut engine, 100.0), []);
    let ended = reading(&mut engine, 100.0, 100.1).unwrap();
    assert_eq!((ended.since, ended.at), (seconds(20.0), seconds(100.0)));
    assert_eq!(reading(&mut engine, 101.0, 101.1), None);
    // And it can fall silent again.
    for n in 102..120 {
        assert_eq!(silences(&mut engine, f64::from(n)), []);
        reading(&mut engine, f64::from(n), f64::from(n));
    }
    assert_eq!(silences(&mut engine, 150.0).len(), 1);
}

#[test]
fn a_late_reading_ends_it_too_and_the_next_silence_is_another() {
    let mut engine = engine(1);
    for n in 0..20 {
        reading(&mut engine, f64::from(n), f64::from(n));
    }
    let first = silences(&mut engine, 30.0)[0].since;
    let ended = engine.heard(0, seconds(3.5), seconds(40.0)).unwrap();
    assert_eq!((ended.since, ended.at), (first, first));
    let second = silences(&mut engine, 100.0)[0].since;
    assert_eq!(second.0, first.0 + 1);
}

#[test]
fn what_has_shown_no_interval_cannot_fall_silent() {
    let mut engine = engine(1);
    for n in 0..10 {
        reading(&mut engine, f64::from(n), f64::from(n));
    }
    assert_eq!(silences(&mut engine, 1e6), []);
    let mut never = Engine::new([StreamSpec::default()]);
    never.add_series(0);
    for n in 0..100 {
        reading(&mut never, f64::from(n), f64::from(n));
    }
    assert_eq!(silences(&mut never, 1e6), []);
}

#[test]
fn silence_is_about_arrival() {
    // An old recording replayed, readings a minute apart, arriving every tenth of a second: silent
    // only once nothing arrives.
    let replay: Vec<_> = (0..600).map(|n| (f64::from(60 * n) - 1e6, f64::from(n) / 10.0)).collect();
    assert_eq!(run(&mut engine(1), &replay, 359.0), [] as [f64; 0]);
    assert_eq!(run(&mut engine(1), &replay, 400.0), [360.0]);
    // Readings an hour late all the time.
    let delayed: Vec<_> = (0..100).map(|n| (f64::from(n) - 3600.0, f64::from(n))).collect();
    assert_eq!(run(&mut engine(1), &delayed, 99.0), [] as [f64; 0]);
}

#[test]
fn gaps_that_are_usual_are_no_silence() {
    // Each second, and now and then nothing for half a minute.
    let mut time = 0.0;
    let dropouts: Vec<_> = (0..2000)
        .map(|n| {
            time += if n % 100 == 99 { 30.0 } else { 1.0 };
            (time, time)
        })
        .collect();
    let told = run(&mut engine(1), &dropouts, time);
    assert!(told.len() <= 2, "{told:?}");
    // Thirty readings at once, each half minute.
    let batches: Vec<_> = (0..3000).map(|n| (f64::from(n), f64::from(n / 30 * 30 + 30))).collect();
    let told = run(&mut engine(1), &batches, 3000.0);
    assert!(told.len() <= 2, "{told:?}");
    // A long outage does not hide the next.
    let mut outages: Vec<_> = (0..200).map(|n| (f64::from(n), f64::from(n))).collect();
    outages.extend((5000..5200).map(|n| (f64::from(n), f64::from(n))));
    assert_eq!(run(&mut engine(1), &outages, 5400.0).len(), 2);
}

#[test]
fn who_cannot_hear_says_nothing() {
    let mut engine = engine(1);
    for n in 0..20 {
        reading(&mut engine, f64::from(n), f64::from(n));
    }
    engine.deaf_until(seconds(1000.0));
    assert_eq!(silences(&mut engine, 1004.0), []);
    assert_eq!(silences(&mut engine, 1006.0).len(), 1);
}

#[test]
fn a_restart_keeps_what_was_learned_and_what_was_open() {
    let mut before = engine(1);
    for n in 0..20 {
        reading(&mut before, f64::from(n), f64::from(n));
    }
    let mut state = Vec::new();
    before.checkpoint(1, |_, _, _, bytes| state = bytes);
    let mut after = engine(1);
    after.restore(0, None, &state).unwrap();
    after.deaf_until(seconds(500.0));
    assert_eq!(silences(&mut after, 505.0), []);
    assert_eq!(silences(&mut after, 506.0).len(), 1);
    let mut open = engine(1);
    open.restore(0, None, &state).unwrap();
    open.restore_silence(0, seconds(20.0));
    assert_eq!(silences(&mut open, 1e6), []);
    assert_eq!(reading(&mut open, 600.0, 1e6).unwrap().since, seconds(20.0));
}

/// A tick over 100,000 series that report takes little; over as many that are all to be looked at it
/// comes in slices.
#[test]
fn a_tick_over_very_many_series_is_short() {
    const SERIES: u32 = 100_000;
    let mut engine = engine(SERIES as usize);
    for n in 0..12 {
        for series in 0..SERIES {
            let time = seconds(f64::from(60 * n));
            engine.observe(series, Reading { time, value: 1.0 }, FAR);
            engine.heard(series, time, time);
        }
    }
    let (mut slices, mut longest) = (0, 0.0_f64);
    loop {
        let begun = Instant::now();
        let more = engine.silences(seconds(661.0), 1024, |s| unreachable!("{s:?}"));
        longest = longest.max(begun.elapsed().as_secs_f64());
        slices += 1;
        if !more {
            break;
        }
    }
    assert_eq!(slices, 98);
    let begun = Instant::now();
    assert!(!engine.silences(seconds(662.0), 1024, |s| unreachable!("{s:?}")));
    let idle = begun.elapsed().as_secs_f64();
    println!("longest slice {:.0} µs, idle tick {:.0} µs", 1e6 * longest, 1e6 * idle);
    assert!(idle < 0.02, "{idle} s");
    let mut told = 0;
    while engine.silences(seconds(1200.0), 1024, |_| told += 1) {}
    assert_eq!(told, SERIES);
}
