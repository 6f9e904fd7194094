#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;
use crate::reading::LEVELS;

/// Rows whose target depends on two features together, and on a third by its spread alone.
fn rows(count: usize, seed: u64) -> Vec<([f32; 4], f32)> {
    let mut rng = StdRng::seed_from_u64(seed);
    let row = |_| {
        let x: [f32; 4] = std::array::from_fn(|_| rng.random_range(-1.0..1.0));
        let noise = rng.random_range(-1.0..1.0) * if x[2] > 0.0 { 0.6 } else { 0.1 };
        (x, if (x[0] > 0.2) == (x[1] > -0.3) { 2.0 } else { 0.0 } + noise)
    };
    (0..count).map(row).collect()
}

fn examples(rows: &[([f32; 4], f32)], learned: usize) -> Vec<Example<'_>> {
    let example =
        |row: usize| Example { features: &rows[row].0, target: rows[row].1, held_out: row >= learned };
    (0..rows.len()).map(example).collect()
}

fn loss(made: &[f32; 7], target: f32) -> f64 {
    made.iter()
        .zip(LEVELS)
        .map(|(q, level)| {
            let error = f64::from(target - q);
            (level * error).max((level - 1.0) * error)
        })
        .sum()
}

#[test]
fn interactions_and_spreads_are_learned() {
    let (learned, fresh) = (rows(4000, 1), rows(2000, 2));
    let forest = grow(&examples(&learned, 3000), &ForestConfig::default(), || false).unwrap();
    let constant = Forest { bias: forest.bias, ..Forest::default() };
    let total = |f: &Forest| fresh.iter().map(|(x, y)| loss(&f.predict(x), *y)).sum::<f64>();
    assert!(total(&forest) < 0.3 * total(&constant), "{} {}", total(&forest), total(&constant));
    for (lane, level) in LEVELS.iter().enumerate() {
        let below = fresh.iter().filter(|(x, y)| *y < forest.predict(x)[lane]).count();
        let share = below as f64 / fresh.len() as f64;
        assert!((share - level).abs() < 0.06, "{share} below the quantile {level}");
    }
}

#[test]
fn the_same_seed_gives_the_same_forest_and_it_survives_being_stored() {
    let rows = rows(1000, 3);
    let run = |seed| grow(&examples(&rows, 800), &ForestConfig { seed, ..ForestConfig::default() }, || false);
    let forest = run(1).unwrap();
    assert!(Some(&forest) == run(1).as_ref() && Some(&forest) != run(2).as_ref());
    let tensors = forest.to_tensors();
    assert_eq!(Forest::from_tensors(&tensors, 4), Ok(forest));
    assert!(matches!(Forest::from_tensors(&tensors, 2), Err(ForestError::Feature(_, 2))));
    let mut broken = tensors;
    broken[2].2[5] = f32::NAN;
    assert_eq!(Forest::from_tensors(&broken, 4), Err(ForestError::NotFinite("trees.leaves")));
    broken[2].2.pop();
    assert_eq!(Forest::from_tensors(&broken, 4), Err(ForestError::Shape("trees.leaves")));
}

#[test]
fn the_few_the_equal_and_the_missing_do_no_harm() {
    let config = ForestConfig { trees: 20, ..ForestConfig::default() };
    assert!(grow(&[], &config, || false).is_none());
    assert!(grow(&examples(&rows(100, 4), 80), &config, || true).is_none(), "stopped");
    for count in [1, 2, 30] {
        let mut rows = rows(count, 5);
        rows.iter_mut().for_each(|(x, y)| (x[1], *y) = (f32::NAN, 7.0));
        let forest = grow(&examples(&rows, count), &config, || false).unwrap();
        for features in [[0.0; 4], [f32::NAN; 4], [f32::INFINITY; 4]] {
            assert_eq!(forest.predict(&features), [7.0; 7]);
        }
    }
}
