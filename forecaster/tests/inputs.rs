//! What a network elsewhere is trained on: the file's shapes and header, and where there is nothing to learn.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use forecaster::features::{INPUT_NAMES, INPUTS};
use forecaster::train::{Named, inputs_file};
use forecaster::{LEVELS, Reading, SECOND, Timestamp};
use safetensors::{Dtype, SafeTensors};

const MINUTE: i64 = 60 * SECOND;

/// A series at these minutes, of the squares of their positions.
fn named(name: &str, minutes: impl Iterator<Item = i64>) -> Named {
    let reading = |(i, minute)| Reading { time: Timestamp(minute * MINUTE), value: f64::from(i * i) };
    Named { name: name.to_owned(), readings: (0..).zip(minutes).map(reading).collect() }
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let tensor = file.tensor(name).unwrap();
    assert_eq!(tensor.dtype(), Dtype::F32);
    tensor.data().as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect()
}

#[test]
fn the_file_holds_inputs_targets_and_times_of_every_series_that_is_long_enough() {
    // Of ten readings nine are learned from, of nine eight: in those the scale still settles.
    let histories = [
        named("hall/\"a\"", (0..20).chain(25..40)),
        named("short", 0..9),
        named("empty", 0..0),
        named("b", (0..30).map(|i| 2 * i)),
    ];
    let (bytes, series) = inputs_file(&histories, None).unwrap();
    assert_eq!(series, 2);
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let header = metadata.metadata().clone().unwrap();
    assert_eq!(header.len(), 4);
    assert_eq!(header["series"], "[\"hall/\\\"a\\\"\",\"b\"]");
    assert_eq!(header["inputs"], INPUT_NAMES.join(","));
    assert_eq!(header["scaling"], "difference/scale");
    let levels: Vec<f64> = header["levels"].split(',').map(|l| l.parse().unwrap()).collect();
    assert_eq!(levels, LEVELS);
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut names = file.names();
    names.sort_unstable();
    let of = |i| ["inputs", "targets", "time"].map(|part| format!("series.{i}.{part}"));
    assert_eq!(names, [of(0), of(1)].concat());
    // The first rows, the one before the gap, the last one.
    for (i, rows, unknown) in [(0, 35, vec![19, 34]), (1, 30, vec![29])] {
        let inputs = file.tensor(&format!("series.{i}.inputs")).unwrap();
        assert_eq!(inputs.shape(), [rows, INPUTS]);
        assert!(floats(&file, &format!("series.{i}.inputs")).iter().all(|x| x.is_finite()));
        let targets = floats(&file, &format!("series.{i}.targets"));
        assert_eq!(targets.len(), rows);
        let nan: Vec<usize> = (0..rows).filter(|row| targets[*row].is_nan()).collect();
        assert_eq!(nan, (0..8).chain(unknown).collect::<Vec<_>>());
        // Differences of squares: positive, and within the bound.
        assert!(targets.iter().filter(|t| !t.is_nan()).all(|t| *t > 0.0 && *t <= 30.0), "{targets:?}");
        let time = file.tensor(&format!("series.{i}.time")).unwrap();
        assert_eq!((time.dtype(), time.shape()), (Dtype::I64, &[rows][..]));
        let times = time.data().as_chunks().0.iter().map(|x| i64::from_le_bytes(*x));
        let readings = &histories.iter().filter(|h| h.readings.len() > 9).nth(i).unwrap().readings;
        assert!(times.eq(readings.iter().map(|r| r.time.0)));
    }
}

#[test]
fn the_interval_says_what_a_gap_is() {
    let every_second_minute = [named("a", (0..40).map(|i| 2 * i))];
    let known = |interval| {
        let (bytes, _) = inputs_file(&every_second_minute, interval).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        floats(&file, "series.0.targets").iter().filter(|t| !t.is_nan()).count()
    };
    assert_eq!(known(None), 31);
    assert_eq!(known(Some(2 * MINUTE)), 31);
    assert_eq!(known(Some(MINUTE)), 0);
}

#[test]
fn of_no_series_long_enough_there_is_an_empty_file() {
    let (bytes, series) = inputs_file(&[named("short", 0..9)], None).unwrap();
    assert_eq!(series, 0);
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.names().len(), 0);
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(metadata.metadata().clone().unwrap()["series"], "[]");
}
