//! Where a quantity has been, and how far from there it is now.

use serde::{Deserialize, Serialize};

/// Spans kept; the two nearest are joined when there would be more.
const SPANS: usize = 12;
/// Spans nearer than this share of the whole range are one.
const JOIN: f64 = 0.005;
/// Readings before a distance means anything.
const YOUNG: u32 = 20;
/// Readings after which a span nobody came back to is forgotten.
const FORGET: u32 = 4000;
/// Distance, as a share of the range, that is remarkable in a series that keeps to its places.
const REMARKABLE: f64 = 0.02;
/// How much a series that often goes to new places raises that, in means of its distances.
const HABIT: f64 = 5.0;
/// Readings over which its distances are averaged.
const HABIT_MEMORY: f64 = 1000.0;
/// A distance counts for at most this in their mean: one wild value is no habit.
const HABIT_CAP: f64 = 0.3;

/// A stretch of values visited, and when last.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Span {
    low: f64,
    high: f64,
    visited: u32,
}

/// The values that a quantity took, as a few disjoint spans in rising order.
///
/// A new value's distance to the nearest of them is its one-dimensional nearest-neighbour distance,
/// the classical measure of novelty (Ramaswamy et al. 2000), in constant memory. A place once
/// visited is no longer new, so that a change is novel once, when it happens.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Places {
    spans: Vec<Span>,
    seen: u32,
    habit: f64,
}

impl Places {
    /// Takes in a value; returns its novelty: 0 where the quantity has been, ln 2 at a remarkable
    /// distance from there, growing with its logarithm.
    pub(super) fn observe(&mut self, value: f64) -> f64 {
        let distance = if self.seen < YOUNG { 0.0 } else { self.distance(value) };
        let novelty = (distance / (REMARKABLE + HABIT * self.habit)).ln_1p();
        let memory = (f64::from(self.seen) + 50.0).min(HABIT_MEMORY);
        self.habit += (distance.min(HABIT_CAP) - self.habit) / memory;
        self.visit(value);
        novelty
    }

    fn range(&self) -> f64 {
        match (self.spans.first(), self.spans.last()) {
            (Some(first), Some(last)) => last.high - first.low,
            _ => 0.0,
        }
    }

    /// Distance to the nearest span as a share of the range, 1 at most.
    fn distance(&self, value: f64) -> f64 {
        let nearest = self
            .spans
            .iter()
            .map(|s| (s.low - value).max(value - s.high).max(0.0))
            .fold(f64::INFINITY, f64::min);
        let range = self.range();
        // Beyond rounding, anything is far from a place that was never left.
        if nearest <= 1e-9 * value.abs() {
            0.0
        } else if nearest < range {
            nearest / range
        } else {
            1.0
        }
    }

    fn visit(&mut self, value: f64) {
        self.seen = self.seen.saturating_add(1);
        let at = self.spans.partition_point(|s| s.high < value);
        match self.spans.get_mut(at) {
            Some(span) if span.low <= value => span.visited = self.seen,
            _ => {
                if self.spans.len() == self.spans.capacity() {
                    // Most series have few; doubling would leave more room than is ever used.
                    self.spans.reserve_exact(2);
                }
                self.spans.insert(at, Span { low: value, high: value, visited: self.seen });
            }
        }
        if self.seen.is_multiple_of(64) {
            let now = self.seen;
            self.spans.retain(|s| now - s.visited < FORGET);
        }
        while let Some((at, gap)) = self.narrowest() {
            if gap > JOIN * self.range() && self.spans.len() <= SPANS {
                break;
            }
            let upper = self.spans.remove(at + 1);
            if let Some(lower) = self.spans.get_mut(at) {
                lower.high = upper.high;
                lower.visited = lower.visited.max(upper.visited);
            }
        }
    }

    /// The narrowest gap: the span below it and its width.
    fn narrowest(&self) -> Option<(usize, f64)> {
        let gaps = self.spans.windows(2).map(|pair| pair[1].low - pair[0].high);
        gaps.enumerate().min_by(|a, b| a.1.total_cmp(&b.1))
    }
}
