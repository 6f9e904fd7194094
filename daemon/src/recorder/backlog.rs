//! How much waits in memory to be made durable, and room for more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use prometheus::IntGauge;

use crate::record::WriteBatch;

/// Between two looks for room: neither store nor spool takes anything, or the store is at its limit.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Bytes of states that may wait: they are large, and can be had again from the engine at any time.
const STATES: usize = 16 << 20;
/// Bytes of a reading, a forecast, an anomaly and a series in memory, without the series' texts.
const READING: usize = 21;
const FORECAST: usize = 102;
const ANOMALY: usize = 72;
const SERIES: usize = 200;

/// The bound on the recorder's queue, in bytes. The channel itself has none: the engine never waits, so
/// whoever feeds it must (the inlet, at QoS 1), or it rejects and counts.
#[derive(Debug)]
pub struct Backlog {
    rows: AtomicUsize,
    states: AtomicUsize,
    away: AtomicBool,
    /// Whether packets wait in the engine for room.
    waiting: AtomicBool,
    capacity: usize,
    readings: IntGauge,
}

impl Backlog {
    /// A backlog of at most about `capacity` bytes of rows, and 16 MiB of states; the readings are shown
    /// in a gauge.
    #[must_use]
    pub fn new(capacity: usize, readings: IntGauge) -> Arc<Backlog> {
        Arc::new(Backlog {
            rows: AtomicUsize::new(0),
            states: AtomicUsize::new(0),
            away: AtomicBool::new(false),
            waiting: AtomicBool::new(false),
            capacity,
            readings,
        })
    }

    /// Whether there is room for more rows.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.rows.load(Ordering::Acquire) < self.capacity
    }

    /// Whether there is room for more states.
    #[must_use]
    pub fn has_room_for_states(&self) -> bool {
        self.states.load(Ordering::Acquire) < STATES
    }

    /// Whether the store takes nothing at present, or is slow.
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.away.load(Ordering::Acquire)
    }

    /// Whether packets that must be stored may be sent to the engine: there is room, and none waits before.
    #[must_use]
    pub fn lets_in(&self) -> bool {
        self.has_room() && !self.waiting.load(Ordering::Acquire)
    }

    /// Says whether packets wait in the engine.
    pub fn set_waiting(&self, waiting: bool) {
        self.waiting.store(waiting, Ordering::Release);
    }

    /// Waits until packets are let in.
    pub async fn room(&self) {
        while !self.lets_in() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Counts a batch in, before it is sent.
    pub fn add(&self, batch: &WriteBatch) {
        let load = Load::of(batch);
        self.rows.fetch_add(load.rows, Ordering::AcqRel);
        self.states.fetch_add(load.states, Ordering::AcqRel);
        self.readings.add(i64::try_from(load.readings).unwrap_or(i64::MAX));
    }

    /// Counts out what has become durable.
    pub(super) fn release(&self, load: Load) {
        self.rows.fetch_sub(load.rows, Ordering::AcqRel);
        self.states.fetch_sub(load.states, Ordering::AcqRel);
        self.readings.sub(i64::try_from(load.readings).unwrap_or(i64::MAX));
    }

    pub(super) fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::Release);
    }
}

impl std::ops::AddAssign for Load {
    fn add_assign(&mut self, other: Load) {
        self.rows += other.rows;
        self.states += other.states;
        self.readings += other.readings;
    }
}

/// What a batch weighs.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    /// Bytes of all but states.
    pub(super) rows: usize,
    /// Bytes of states.
    pub(super) states: usize,
    /// Readings.
    pub(super) readings: usize,
}

impl Load {
    /// The weight of all but states.
    pub(super) fn without_states(self) -> Load {
        Load { states: 0, ..self }
    }

    /// The weight of states alone.
    pub(super) fn of_states(self) -> Load {
        Load { states: self.states, ..Load::default() }
    }

    /// What a batch weighs.
    pub(super) fn of(batch: &WriteBatch) -> Load {
        let readings = batch.readings.series.len();
        let texts = |s: &crate::record::NewSeries| 2 * (s.key.len() + s.stream.len());
        Load {
            rows: READING * readings
                + FORECAST * batch.forecasts.series.len()
                + ANOMALY * batch.anomalies.len()
                + size_of_val(batch.feedback.as_slice())
                + batch.new_series.iter().map(|s| SERIES + texts(s)).sum::<usize>(),
            states: batch.states.iter().map(|s| size_of_val(s) + s.state.len()).sum(),
            readings,
        }
    }
}
