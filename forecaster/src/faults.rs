//! Readings that are a sensor's fault and say nothing of a model: it is stuck, or gives wild values.

use crate::reading::Reading;

/// A run of equal values longer than this many readings is a stuck sensor …
const STUCK: u32 = 10;
/// … unless the series had so many runs of half that length before.
const USUAL_RUNS: usize = 3;
/// A value is wild if it lies this many times the range from the 0.1 to the 0.9 quantile outside it.
const WILD: f64 = 20.0;
/// Readings after a wild value in which lags still hold it; after many they add up …
const AFTER: usize = 24;
/// … to so many at most, after which scales and averages have forgotten them.
const MOST_AFTER: usize = 400;

/// Whether each of a series' readings is suspect.
pub(crate) fn suspect(readings: &[Reading]) -> Vec<bool> {
    let usual = usual(readings);
    let (mut runs, mut last, mut after) = (Runs::default(), None, 0);
    readings
        .iter()
        .map(|reading| {
            let stuck = runs.stuck(last == Some(reading.value));
            last = Some(reading.value);
            let wild = usual.as_ref().is_some_and(|usual| !usual.contains(&reading.value));
            after = if wild { (after + AFTER + 1).min(MOST_AFTER) } else { after - usize::from(after > 0) };
            stuck || after > 0
        })
        .collect()
}

/// What is not wild; none where a series hardly moves, so that nothing can be said.
fn usual(readings: &[Reading]) -> Option<std::ops::RangeInclusive<f64>> {
    let mut values: Vec<f64> = readings.iter().map(|r| r.value).collect();
    let mut quantile = |share: f64| {
        let at = (values.len().checked_sub(1)? as f64 * share) as usize;
        Some(*values.select_nth_unstable_by(at, f64::total_cmp).1)
    };
    let (low, high) = (quantile(0.1)?, quantile(0.9)?);
    let reach = WILD * (high - low);
    (reach > 0.0).then_some(low - reach..=high + reach)
}

/// Runs of equal values.
#[derive(Debug, Default)]
struct Runs {
    present: u32,
    /// The longest that ended, longest first.
    longest: [u32; USUAL_RUNS],
}

impl Runs {
    /// Whether a series is stuck with this reading.
    fn stuck(&mut self, repeats: bool) -> bool {
        if repeats {
            self.present += 1;
        } else {
            if let Some(at) = self.longest.iter().position(|run| *run < self.present) {
                self.longest[at..].rotate_right(1);
                self.longest[at] = self.present;
            }
            self.present = 0;
        }
        self.present > STUCK.max(2 * self.longest[USUAL_RUNS - 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Timestamp;

    fn readings(values: impl IntoIterator<Item = f64>) -> Vec<Reading> {
        (0..).zip(values).map(|(i, value)| Reading { time: Timestamp(i), value }).collect()
    }

    fn suspects(values: impl IntoIterator<Item = f64>) -> Vec<usize> {
        let suspect = suspect(&readings(values));
        (0..).zip(suspect).filter(|(_, s)| *s).map(|(row, _)| row).collect()
    }

    #[test]
    fn a_stuck_sensor_is_suspect_until_it_moves_and_a_valve_that_rests_is_not() {
        let wave = |i: usize| (i as f64).sin();
        let stuck = (0..200).map(|i| if (100..150).contains(&i) { 0.5 } else { wave(i) });
        assert_eq!(suspects(stuck), (111..150).collect::<Vec<_>>());
        let valve = (0..400).map(|i| if i % 40 < 30 { 0.0 } else { wave(i) });
        assert!(suspects(valve).iter().all(|row| *row < 120));
    }

    #[test]
    fn a_wild_value_and_what_follows_are_suspect() {
        let spiked = (0..200).map(|i| if i == 100 { -9999.0 } else { (i as f64).sin() });
        assert_eq!(suspects(spiked), (100..125).collect::<Vec<_>>());
        let drop = (0..200).map(|i| if i < 100 { 20.0 } else { 50.0 } + (i as f64).sin());
        assert_eq!(suspects(drop), Vec::<usize>::new());
        assert_eq!(suspects((0..100).map(|i| f64::from(u8::from(i == 50)))).first(), Some(&11));
        assert_eq!(suspects([]), Vec::<usize>::new());
    }
}
