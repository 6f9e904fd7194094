//! The time between a series' readings: configured, or learned as the median of recent gaps.

use serde::{Deserialize, Serialize};

/// Gaps remembered. Odd, so that the median is one of them.
const RECENT: usize = 9;

/// Learns the usual gap between readings, in microseconds. The median ignores single dropouts and
/// bursts, and follows a lasting change within five readings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Interval {
    recent: [i64; RECENT],
    seen: u32,
}

impl Interval {
    /// Takes in a gap.
    pub(crate) fn observe(&mut self, gap: i64) {
        if let Some(slot) = self.recent.get_mut(self.seen as usize % RECENT) {
            *slot = gap;
        }
        self.seen = self.seen.wrapping_add(1).max(1);
        // Past the first round only the position in the ring matters.
        if self.seen as usize >= 2 * RECENT {
            self.seen -= RECENT as u32;
        }
    }

    /// The learned interval; none before the first gap.
    #[must_use]
    pub(crate) fn learned(&self) -> Option<i64> {
        let mut gaps = self.recent;
        let known = gaps.get_mut(..RECENT.min(self.seen as usize))?;
        let middle = known.len().checked_sub(1)? / 2;
        Some(*known.select_nth_unstable(middle).1)
    }
}
