//! Series that stop reporting. Silence is about arrival: readings may be dated back, and a repeated
//! value is a reading like any other.
//!
//! A series is silent once nothing has arrived for more than `silence_after` of its intervals, and
//! for more than twice as long as its longest gap of late: one that drops out now and then raises no
//! alarm each time. It must have shown some gaps first, so that one lonely reading is no promise.

use serde::{Deserialize, Serialize};

use super::{Engine, SeriesHandle};
use crate::interval::Interval;
use crate::reading::{Reading, Timestamp};

/// Gaps a series must have shown before it can fall silent.
const MIN_GAPS: u32 = 10;
/// Readings over which the longest gap is forgotten to a third.
const MEMORY: i64 = 512;
/// Times the longest gap of late that are not yet silence.
const PATIENCE: i64 = 2;
/// Of a series that cannot fall silent now, when to look at it again.
const NEVER: i64 = i64::MAX;
/// At the next tick.
const NOW: i64 = i64::MIN;

/// How regularly a series reports; part of its checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Gaps {
    interval: Interval,
    /// The longest of late, of the readings' times and of their arrivals.
    longest: i64,
    count: u32,
    /// What the newest gap may count at most: a single outage must not make the series deaf to the
    /// next, so what is longer than usual counts in part, and in full once it has come again.
    #[serde(skip)]
    bound: Option<i64>,
}

impl Gaps {
    /// Takes in the time between two readings; whether there are now just enough.
    pub(super) fn observe(&mut self, gap: i64, configured: Option<i64>, after: u32) -> bool {
        self.bound = self.limit(configured, after).map(|limit| limit.saturating_mul(PATIENCE));
        self.interval.observe(gap);
        self.longest -= self.longest / MEMORY;
        self.longest = self.longest.max(self.bound.map_or(gap, |bound| gap.min(bound)));
        self.count = self.count.saturating_add(1);
        self.count == MIN_GAPS
    }

    /// Takes in the time between two arrivals.
    fn arrived(&mut self, gap: i64) {
        if let Some(bound) = self.bound {
            self.longest = self.longest.max(gap.min(bound));
        }
    }

    /// How long a series may be silent, in microseconds; none while nothing is known.
    fn limit(&self, configured: Option<i64>, after: u32) -> Option<i64> {
        let interval = configured.or_else(|| self.interval.learned())?;
        Some(interval.saturating_mul(i64::from(after)).max(self.longest.saturating_mul(PATIENCE)))
    }
}

/// What is known of a series' arrivals since the start.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Arrivals {
    pub(super) heard: Option<Timestamp>,
    pub(super) silent_since: Option<Timestamp>,
    /// When the last silence that ended had begun.
    before: Option<Timestamp>,
}

impl Arrivals {
    /// Takes a moment for an arrival.
    pub(super) fn hear(&mut self, now: Timestamp) {
        self.heard = Some(now);
    }
}

/// Which series to look at, and when: all in one row of numbers, so that a tick over very many
/// series touches little more than that.
#[derive(Debug, Default)]
pub(super) struct Watch {
    due: Vec<i64>,
    cursor: usize,
    /// Before this nothing could be heard.
    listening_since: Option<Timestamp>,
}

impl Watch {
    pub(super) fn add(&mut self) {
        self.due.push(NEVER);
    }

    /// Adds those of another, behind its own.
    pub(super) fn absorb(&mut self, other: Watch) {
        self.due.extend(other.due);
    }

    /// Looks at a series at the next tick.
    pub(super) fn look_soon(&mut self, handle: SeriesHandle) {
        if let Some(due) = self.due.get_mut(handle as usize) {
            *due = NOW;
        }
    }
}

/// A series that has just fallen silent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Silence {
    /// The series.
    pub series: SeriesHandle,
    /// When its next reading was due, by the time of the last.
    pub since: Timestamp,
    /// Its last reading.
    pub last: Reading,
    /// Its usual time between readings, in microseconds.
    pub interval: i64,
    /// For how long nothing has arrived, in microseconds.
    pub unheard: i64,
}

/// A silence that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// As in [`Silence`].
    pub since: Timestamp,
    /// Time of the reading that ended it; not before `since`.
    pub at: Timestamp,
}

impl Engine {
    /// Notes that a reading of a series arrived, by a clock that never steps, and says if that ends a
    /// silence.
    pub fn heard(&mut self, handle: SeriesHandle, reading: Timestamp, arrival: Timestamp) -> Option<Heard> {
        let slot = self.slots.get_mut(handle as usize)?;
        let before =
            slot.arrivals.heard.max(self.watch.listening_since.filter(|_| slot.arrivals.heard.is_some()));
        if let Some(before) = before {
            slot.gaps.arrived(arrival.0 - before.0);
        }
        slot.arrivals.heard = slot.arrivals.heard.max(Some(arrival));
        let since = slot.arrivals.silent_since.take()?;
        slot.arrivals.before = Some(since);
        self.watch.look_soon(handle);
        Some(Heard { since, at: reading.max(since) })
    }

    /// Takes up a silence that had begun before a restart.
    pub fn restore_silence(&mut self, handle: SeriesHandle, since: Timestamp) {
        if let Some(slot) = self.slots.get_mut(handle as usize) {
            slot.arrivals.silent_since = Some(since);
        }
    }

    /// When the silence that a series is in began: when its next reading was due.
    #[must_use]
    pub fn silent_since(&self, handle: SeriesHandle) -> Option<Timestamp> {
        self.slots.get(handle as usize)?.arrivals.silent_since
    }

    /// Nothing could be heard until now: what was not heard before is no silence.
    pub fn deaf_until(&mut self, now: Timestamp) {
        self.watch.listening_since = Some(now);
    }

    /// Gives the series that have fallen silent by `now`, on the clock of [`Engine::heard`]. Looks
    /// closely at `looks` series at most; whether that was too few, and there is more to do now.
    pub fn silences(&mut self, now: Timestamp, mut looks: usize, mut each: impl FnMut(Silence)) -> bool {
        self.watch.listening_since.get_or_insert(now);
        while let Some(&due) = self.watch.due.get(self.watch.cursor) {
            if due <= now.0 {
                if looks == 0 {
                    return true;
                }
                looks -= 1;
                let next = self.look(self.watch.cursor, now, &mut each);
                self.watch.due[self.watch.cursor] = next;
            }
            self.watch.cursor += 1;
        }
        self.watch.cursor = 0;
        false
    }

    /// Looks at one series, and says when to look again.
    fn look(&mut self, at: usize, now: Timestamp, each: &mut impl FnMut(Silence)) -> i64 {
        let Some(slot) = self.slots.get_mut(at) else { return NEVER };
        let spec = &self.streams[slot.stream].spec;
        if spec.silence_after == 0 || slot.gaps.count < MIN_GAPS || slot.arrivals.silent_since.is_some() {
            return NEVER;
        }
        let interval = spec.interval.or_else(|| slot.gaps.interval.learned());
        let (Some(last), Some(interval)) = (slot.series.last(), interval) else { return NEVER };
        let limit = slot.gaps.limit(spec.interval, spec.silence_after).unwrap_or(NEVER);
        let heard = slot.arrivals.heard.max(self.watch.listening_since).unwrap_or(now);
        let deadline = heard.0.saturating_add(limit);
        if now.0 <= deadline {
            return deadline.saturating_add(1);
        }
        let mut since = Timestamp(last.time.0.saturating_add(interval));
        if let Some(before) = slot.arrivals.before.filter(|before| *before >= since) {
            // Only late readings came since: another silence, with a beginning of its own.
            since = Timestamp(before.0.saturating_add(1));
        }
        slot.arrivals.silent_since = Some(since);
        each(Silence { series: at as SeriesHandle, since, last, interval, unheard: now.0 - heard.0 });
        NEVER
    }
}
