//! The naive forecast: the last value, spread as the series' own recent differences were.

use serde::{Deserialize, Serialize};

use crate::reading::{LEVELS, MEDIAN};

/// Differences remembered.
const WINDOW: usize = 100;
/// Below this many differences their spread is taken as normal instead of empirical.
const EMPIRICAL: usize = 16;
/// Differences of one sign in a row from which a series counts as a counter.
const COUNTER: usize = 64;
/// Quantiles of the standard normal distribution at [`LEVELS`].
const NORMAL: [f64; 7] = [-1.6449, -1.2816, -0.6745, 0.0, 0.6745, 1.2816, 1.6449];

/// The latest one-step differences of a series, in order of time and in order of size.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Ring", into = "Ring")]
pub(crate) struct Differences {
    ring: Vec<f64>,
    sorted: Vec<f64>,
    next: u32,
}

/// How many of so many differences may be wild.
fn wild(differences: usize) -> usize {
    (differences / 20).max(2)
}

/// What is stored of [`Differences`]: the order of size follows from the order of time.
#[derive(Serialize, Deserialize)]
struct Ring {
    ring: Vec<f64>,
    next: u32,
}

impl From<Ring> for Differences {
    fn from(Ring { ring, next }: Ring) -> Self {
        let mut sorted = ring.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        Differences { ring, sorted, next }
    }
}

impl From<Differences> for Ring {
    fn from(Differences { ring, next, .. }: Differences) -> Self {
        Ring { ring, next }
    }
}

impl Differences {
    /// Takes in a difference.
    pub(crate) fn observe(&mut self, difference: f64) {
        if self.ring.len() < WINDOW {
            if self.ring.len() == self.ring.capacity() {
                // Growing by halves would leave more room than the window takes, in every series.
                let room = if self.ring.is_empty() { 4 } else { WINDOW - self.ring.len() };
                self.ring.reserve_exact(room);
                self.sorted.reserve_exact(room);
            }
            self.ring.push(difference);
        } else if let Some(oldest) = self.ring.get_mut(self.next as usize) {
            let at = self.sorted.partition_point(|x| x.total_cmp(oldest).is_lt());
            self.sorted.remove(at);
            *oldest = difference;
            self.next = (self.next + 1) % WINDOW as u32;
        }
        let at = self.sorted.partition_point(|x| x.total_cmp(&difference).is_lt());
        self.sorted.insert(at, difference);
    }

    /// Differences seen, as far back as they are remembered.
    pub(crate) fn len(&self) -> usize {
        self.ring.len()
    }

    /// Sizes of the differences in falling order, wild ones first.
    fn largest(&self) -> impl Iterator<Item = f64> {
        let (mut low, mut high) = (self.sorted.iter(), self.sorted.iter());
        let (mut bottom, mut top) = (low.next(), high.next_back());
        (0..self.sorted.len()).map(move |_| match (bottom, top) {
            (Some(b), Some(t)) if b.abs() > t.abs() => {
                bottom = low.next();
                b.abs()
            }
            (_, Some(t)) => {
                top = high.next_back();
                t.abs()
            }
            _ => 0.0,
        })
    }

    /// The largest size that is not among the wildest twentieth (two at least).
    pub(crate) fn bound(&self) -> f64 {
        self.largest().nth(wild(self.sorted.len())).unwrap_or_default()
    }

    /// Mean size without the wildest twentieth (two at least).
    pub(crate) fn trimmed_mean(&self) -> f64 {
        let wild = wild(self.sorted.len());
        let kept = self.sorted.len() - wild.min(self.sorted.len());
        if kept == 0 {
            return self.largest().last().unwrap_or_default();
        }
        self.largest().skip(wild).sum::<f64>() / kept as f64
    }

    /// The step of which nearly all differences are whole multiples, if there is one that is not small
    /// against them: what a coarse sensor or a count shows.
    pub(crate) fn grid(&self) -> Option<f64> {
        if self.sorted.len() < WINDOW {
            return None;
        }
        let sizes = || self.sorted.iter().map(|d| d.abs()).filter(|d| *d > 0.0);
        let smallest = sizes().fold(f64::INFINITY, f64::min);
        // A step is measured better over several of it.
        let (mut sum, mut count) = (0.0, 0.0);
        for d in sizes() {
            let steps = (d / smallest).round();
            if steps <= 8.0 {
                sum += d;
                count += steps;
            }
        }
        let step = sum / count;
        let (mut fit, mut all, mut few) = (0, 0, 0);
        for d in sizes() {
            let steps = d / step;
            all += 1;
            fit += usize::from((steps - steps.round()).abs() < 0.1 || steps > 50.0);
            few += usize::from(steps < 8.5);
        }
        (all > 10 && fit * 20 >= all * 19 && few * 2 > all).then_some(step)
    }

    /// Quantiles of the next difference at [`LEVELS`]; none before the first.
    ///
    /// From few differences a normal spread around zero, widened as its scale is uncertain; then
    /// the empirical quantiles, with linear interpolation, around the last value.
    #[must_use]
    pub(crate) fn quantiles(&self) -> Option<[f64; 7]> {
        let n = self.sorted.len();
        if n == 0 {
            return None;
        }
        if n < EMPIRICAL {
            let mean_size = self.sorted.iter().map(|d| d.abs()).sum::<f64>() / n as f64;
            let sigma = mean_size * 1.2533 * (1.0 + 2.0 / n as f64);
            return Some(NORMAL.map(|z| z * sigma));
        }
        let mut quantiles = LEVELS.map(|level| {
            let position = level * (n - 1) as f64;
            let at = position as usize;
            let low = self.sorted.get(at).copied().unwrap_or_default();
            let high = self.sorted.get(at + 1).copied().unwrap_or(low);
            low + (high - low) * (position - at as f64)
        });
        // The last value, unless the series has long moved one way only, as a counter does.
        let one_way =
            self.sorted.first().is_some_and(|d| *d > 0.0) || self.sorted.last().is_some_and(|d| *d < 0.0);
        if !one_way || n < COUNTER {
            quantiles[..MEDIAN].iter_mut().for_each(|q| *q = q.min(0.0));
            quantiles[MEDIAN] = 0.0;
            quantiles[MEDIAN + 1..].iter_mut().for_each(|q| *q = q.max(0.0));
        }
        Some(quantiles)
    }
}
