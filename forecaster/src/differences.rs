//! The naive forecast: the last value, spread as the series' own recent differences were.

use serde::{Deserialize, Serialize};

use crate::reading::{LEVELS, MEDIAN};

/// Differences remembered; a byte numbers them.
const WINDOW: usize = 100;
/// Bound on a difference, so that sums of many stay finite in single precision.
const LARGEST: f64 = 1e36;
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
    /// In single precision: what is asked of them is how large they are.
    ring: Vec<f32>,
    /// Positions in the ring, by size.
    order: Vec<u8>,
    next: u8,
}

/// How many of so many differences may be wild.
fn wild(differences: usize) -> usize {
    (differences / 20).max(2)
}

/// What is stored of [`Differences`]: the order of size follows from the order of time.
#[derive(Serialize, Deserialize)]
struct Ring {
    ring: Vec<f32>,
    next: u8,
}

impl From<Ring> for Differences {
    fn from(Ring { mut ring, next }: Ring) -> Self {
        ring.truncate(WINDOW);
        let mut order: Vec<u8> = (0..ring.len() as u8).collect();
        order.sort_by(|a, b| ring[usize::from(*a)].total_cmp(&ring[usize::from(*b)]));
        Differences { ring, order, next: next % WINDOW as u8 }
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
        let difference = difference.clamp(-LARGEST, LARGEST) as f32;
        let at = if self.ring.len() < WINDOW {
            if self.ring.len() == self.ring.capacity() {
                // Growing by halves would leave more room than the window takes, in every series.
                let room = if self.ring.is_empty() { 4 } else { WINDOW - self.ring.len() };
                self.ring.reserve_exact(room);
                self.order.reserve_exact(room);
            }
            self.ring.push(difference);
            self.ring.len() - 1
        } else {
            let at = usize::from(self.next);
            self.order.retain(|position| usize::from(*position) != at);
            self.ring[at] = difference;
            self.next = (self.next + 1) % WINDOW as u8;
            at
        };
        let rank = self.order.partition_point(|p| self.ring[usize::from(*p)].total_cmp(&difference).is_lt());
        self.order.insert(rank, at as u8);
    }

    /// The differences in order of size.
    fn sorted(&self) -> impl DoubleEndedIterator<Item = f64> + Clone {
        self.order.iter().map(|position| f64::from(self.ring[usize::from(*position)]))
    }

    fn ranked(&self, rank: usize) -> Option<f64> {
        self.order.get(rank).map(|position| f64::from(self.ring[usize::from(*position)]))
    }

    /// Differences seen, as far back as they are remembered.
    pub(crate) fn len(&self) -> usize {
        self.ring.len()
    }

    /// Sizes of the differences in falling order, wild ones first.
    fn largest(&self) -> impl Iterator<Item = f64> {
        let (mut low, mut high) = (self.sorted(), self.sorted());
        let (mut bottom, mut top) = (low.next(), high.next_back());
        (0..self.len()).map(move |_| match (bottom, top) {
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
        self.largest().nth(wild(self.len())).unwrap_or_default()
    }

    /// Mean size without the wildest twentieth (two at least).
    pub(crate) fn trimmed_mean(&self) -> f64 {
        let wild = wild(self.len());
        let kept = self.len() - wild.min(self.len());
        if kept == 0 {
            return self.largest().last().unwrap_or_default();
        }
        self.largest().skip(wild).sum::<f64>() / kept as f64
    }

    /// The step of which nearly all differences are whole multiples, if there is one that is not small
    /// against them: what a coarse sensor or a count shows.
    pub(crate) fn grid(&self) -> Option<f64> {
        if self.len() < WINDOW {
            return None;
        }
        let sizes = || self.ring.iter().map(|d| f64::from(d.abs())).filter(|d| *d > 0.0);
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
        let n = self.len();
        if n == 0 {
            return None;
        }
        if n < EMPIRICAL {
            let mean_size = self.sorted().map(f64::abs).sum::<f64>() / n as f64;
            let sigma = mean_size * 1.2533 * (1.0 + 2.0 / n as f64);
            return Some(NORMAL.map(|z| z * sigma));
        }
        let mut quantiles = LEVELS.map(|level| {
            let position = level * (n - 1) as f64;
            let at = position as usize;
            let low = self.ranked(at).unwrap_or_default();
            let high = self.ranked(at + 1).unwrap_or(low);
            low + (high - low) * (position - at as f64)
        });
        // The last value, unless the series has long moved one way only, as a counter does.
        let one_way = self.ranked(0).is_some_and(|d| d > 0.0) || self.ranked(n - 1).is_some_and(|d| d < 0.0);
        if !one_way || n < COUNTER {
            quantiles[..MEDIAN].iter_mut().for_each(|q| *q = q.min(0.0));
            quantiles[MEDIAN] = 0.0;
            quantiles[MEDIAN + 1..].iter_mut().for_each(|q| *q = q.max(0.0));
        }
        Some(quantiles)
    }
}
