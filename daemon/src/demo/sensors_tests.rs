#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use super::*;

/// 2026-01-05, a Monday, 00:00 UTC.
const START: i64 = 1_767_571_200_000_000;
const PER_DAY: usize = 86_400 / INTERVAL as usize;

/// Readings of each series by topic and field, with the device's faults.
fn days(seed: u64, days: usize) -> BTreeMap<String, Vec<(i64, f64, Option<Fault>)>> {
    let end = START + days as i64 * 86_400_000_000;
    let mut series: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for sample in Simulation::new(seed, START).take_while(|s| s.time < end) {
        let payload: Map<String, Value> = serde_json::from_str(&sample.payload).unwrap();
        let ts: jiff::Timestamp = payload.get("ts").unwrap().as_str().unwrap().parse().unwrap();
        assert_eq!(ts.as_microsecond(), sample.time);
        for (field, value) in payload.iter().filter(|(name, _)| *name != "ts") {
            let row = (sample.time, value.as_f64().unwrap(), sample.fault);
            series.entry(format!("{}/{field}", sample.topic)).or_default().push(row);
        }
    }
    series
}

#[test]
fn the_same_seed_gives_the_same_readings_and_another_one_others() {
    let take = |seed| Simulation::new(seed, START).take(5000).collect::<Vec<_>>();
    assert_eq!(take(7), take(7));
    assert_ne!(take(7), take(8));
}

#[test]
fn readings_come_in_order_of_time_from_the_start_on() {
    let samples: Vec<_> = Simulation::new(1, START + 17_000_000).take(20_000).collect();
    assert!(samples.is_sorted_by_key(|s| s.time));
    let first = samples.first().unwrap().time;
    assert!((START..START + INTERVAL * 1_000_000).contains(&first));
    // Every device at its own steady five minutes, but for gaps of whole intervals.
    let mut last: BTreeMap<&str, i64> = BTreeMap::new();
    for sample in &samples {
        if let Some(before) = last.insert(sample.topic, sample.time) {
            let gap = sample.time - before;
            assert!(gap > 0 && gap % (INTERVAL * 1_000_000) == 0, "{gap}");
        }
    }
    assert_eq!(last.len(), 13);
}

#[test]
fn every_device_is_in_one_stream_and_every_value_is_a_sane_number() {
    let series = days(3, 20);
    assert_eq!(series.len(), 20);
    for (key, readings) in &series {
        let topic = key.rsplit_once('/').unwrap().0;
        let in_streams = STREAMS.iter().filter(|(_, pattern)| {
            let (p, t): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), topic.split('/').collect());
            p.len() == t.len() && p.iter().zip(&t).all(|(p, t)| p.starts_with('{') || p == t)
        });
        assert_eq!(in_streams.count(), 1, "{topic}");
        let sane = match key.rsplit_once('/').unwrap().1 {
            "temperature" if topic.ends_with("outside/climate") => -25.0..45.0,
            "temperature" | "flow_temperature" => 10.0..75.0,
            "humidity" => 3.0..105.0,
            "co2" => 300.0..4000.0,
            _ => -100.0..9000.0,
        };
        for (_, value, fault) in readings.iter().filter(|r| r.2.is_none()) {
            assert!(sane.contains(value), "{key}: {value} {fault:?}");
        }
        let values: Vec<f64> = readings.iter().map(|r| r.1).collect();
        let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
        assert!(high - low > 1.0, "{key} stands still");
    }
}

#[test]
fn days_repeat_with_the_sun_and_with_people() {
    let series = days(5, 28);
    let by_hour = |key: &str, weekdays: bool, hour: i64| {
        let picked: Vec<f64> = series[key]
            .iter()
            .filter(|(t, _, fault)| {
                let seconds = (t - START) / 1_000_000;
                let weekday = seconds / 86_400 % 7 < 5;
                fault.is_none() && seconds % 86_400 / 3600 == hour && weekday == weekdays
            })
            .map(|r| r.1)
            .collect();
        picked.iter().sum::<f64>() / picked.len() as f64
    };
    assert!(by_hour("plant/solar/state/power", true, 12) > 300.0);
    assert_eq!(by_hour("plant/solar/state/power", true, 0), 0.0);
    let outside = "home/outside/climate/temperature";
    assert!(by_hour(outside, true, 14) > by_hour(outside, true, 4) + 2.0);
    let living = "home/living-room/climate/temperature";
    assert!(by_hour(living, true, 20) > by_hour(living, true, 5) + 0.7, "night setback");
    let office = "home/office/air/co2";
    assert!(by_hour(office, true, 11) > by_hour(office, true, 4) + 150.0);
    assert!(by_hour(office, true, 11) > by_hour(office, false, 11) + 150.0, "nobody works on Sundays");
}

#[test]
fn dropouts_and_faults_happen_now_and_then() {
    const DAYS: usize = 120;
    let series = days(11, DAYS);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (key, readings) in &series {
        let lost = 1.0 - readings.len() as f64 / (DAYS * PER_DAY) as f64;
        assert!((0.001..0.03).contains(&lost), "{key} lost {lost}");
        let faulty = readings.iter().filter(|r| r.2.is_some()).count() as f64 / readings.len() as f64;
        assert!((0.0003..0.03).contains(&faulty), "{key} is faulty {faulty}");
        assert!(readings.iter().take(280).all(|r| r.2.is_none()), "{key} starts with a fault");
        for (_, _, fault) in readings {
            let name = match fault {
                Some(Fault::Spike) => "spike",
                Some(Fault::Stuck) => "stuck",
                Some(Fault::Drift) => "drift",
                None => continue,
            };
            *counts.entry(name).or_default() += 1;
        }
    }
    assert_eq!(counts.len(), 3, "{counts:?}");
    assert!(counts["spike"] >= 20, "{counts:?}");
    // An outage somewhere: a gap of at least 8 readings.
    let outage = 8 * INTERVAL * 1_000_000;
    assert!(series.values().any(|r| r.windows(2).any(|w| w[1].0 - w[0].0 > outage)));
}

/// A linear autoregression (8 differences, the level, the hour), fitted on the first half, must
/// clearly beat the last value on the second: otherwise a demo of forecasting shows nothing.
#[test]
fn the_readings_can_be_learned() {
    const LAGS: usize = 8;
    const WIDTH: usize = LAGS + 4;
    let mut ratios = BTreeMap::new();
    for (key, readings) in days(2, 20) {
        let times: Vec<i64> = readings.iter().map(|r| r.0).collect();
        let values: Vec<f64> = readings.iter().map(|r| r.1).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let row = |t: usize| -> [f64; WIDTH] {
            let hour = (times[t] - START) as f64 / 86_400e6 * std::f64::consts::TAU;
            std::array::from_fn(|i| match i {
                i if i < LAGS => values[t - i] - values[t - i - 1],
                LAGS => values[t] - mean,
                9 => hour.sin(),
                10 => hour.cos(),
                _ => 1.0,
            })
        };
        let usable: Vec<usize> = (LAGS..values.len() - 1)
            .filter(|&t| readings[t - LAGS..=t + 1].iter().all(|r| r.2.is_none()))
            .collect();
        let (train, test) = usable.split_at(usable.len() / 2);
        let mut system = [[0.0; WIDTH + 1]; WIDTH];
        for &t in train {
            let x = row(t);
            for (i, line) in system.iter_mut().enumerate() {
                for (j, cell) in line.iter_mut().enumerate() {
                    *cell += x[i] * if j < WIDTH { x[j] } else { values[t + 1] - values[t] };
                }
                line[i] += 1e-6;
            }
        }
        let weights = solve(system);
        let (mut error, mut naive) = (0.0, 0.0);
        for &t in test {
            let change = values[t + 1] - values[t];
            let forecast: f64 = row(t).iter().zip(weights).map(|(x, w)| x * w).sum();
            error += (change - forecast).abs();
            naive += change.abs();
        }
        ratios.insert(key, error / naive);
    }
    let mean = ratios.values().sum::<f64>() / ratios.len() as f64;
    assert!(mean < 0.8, "{mean} {ratios:?}");
    let beaten = ratios.values().filter(|r| **r < 0.95).count();
    assert!(beaten * 10 >= ratios.len() * 8, "{ratios:?}");
}

fn solve<const N: usize, const M: usize>(mut a: [[f64; M]; N]) -> [f64; N] {
    for pivot in 0..N {
        for row in 0..N {
            if row != pivot {
                let factor = a[row][pivot] / a[pivot][pivot];
                let pivoted = a[pivot];
                for (cell, above) in a[row].iter_mut().zip(pivoted) {
                    *cell -= factor * above;
                }
            }
        }
    }
    std::array::from_fn(|i| a[i][N] / a[i][i])
}
