//! Anomalies as rows and messages: abnormal values, and series that fall silent.

use std::time::Instant;

use forecaster::anomaly::Change;
use forecaster::series::Outcome;
use forecaster::{Heard, Reading, SeriesHandle, Silence, Timestamp};

use super::{Effects, Ingest, Origin};
use crate::catalog::Entry;
use crate::clock;
use crate::control::Follower;
use crate::encode::{self, AnomalyMessage, SilenceMessage};
use crate::outqueue::{Kind, Outgoing};
use crate::record::{AnomalyChange, AnomalyKind, Broken};

/// A clock that never steps, in microseconds from a start of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Steady(Instant);

impl Steady {
    pub(super) fn start() -> Steady {
        Steady(clock::steady())
    }

    pub(super) fn at(self, moment: Instant) -> Timestamp {
        let micros = |d: std::time::Duration| i64::try_from(d.as_micros()).unwrap_or(i64::MAX);
        match moment.checked_duration_since(self.0) {
            Some(after) => Timestamp(micros(after)),
            None => Timestamp(-micros(self.0.saturating_duration_since(moment))),
        }
    }
}

impl Ingest {
    /// Series that have fallen silent by `now`; a few at a time, and whether there is more to do. With
    /// `listening` false nothing could be heard until now.
    pub fn silences(&mut self, now: Instant, listening: bool, looks: usize, effects: &mut Effects) -> bool {
        let now = self.steady.at(now);
        if !listening {
            self.engine.deaf_until(now);
            return false;
        }
        let mut found = Vec::new();
        let more = self.engine.silences(now, looks, |silence| found.push(silence));
        for silence in found {
            self.silent(&silence, effects);
        }
        more
    }

    /// From here on tells somebody what is the matter with the series.
    pub(crate) fn follow(&mut self, follower: Follower) {
        self.follower = Some(follower);
    }

    /// Problems told so far to whoever follows them.
    pub(crate) fn told(&self) -> u64 {
        self.follower.as_ref().map_or(0, Follower::told)
    }

    /// How long ago a reading of a series arrived, in microseconds; none if none has since the start.
    pub(crate) fn heard_ago(&self, handle: SeriesHandle) -> Option<i64> {
        Some(self.steady.at(clock::steady()).0 - self.engine.heard_at(handle)?.0)
    }

    fn tell(&self, handle: SeriesHandle) {
        if let Some(follower) = &self.follower {
            follower.tell(handle, self.engine.problem(handle));
        }
    }

    fn silent(&self, silence: &Silence, effects: &mut Effects) {
        let Some(entry) = self.catalog.get(silence.series) else { return };
        self.tell(silence.series);
        self.metrics.stream(entry.stream).anomalies.inc();
        effects.batch.anomalies.push(AnomalyChange::Began {
            series: silence.series,
            time: silence.since.0,
            kind: AnomalyKind::Silence,
            value: silence.last.value,
            broken: None,
        });
        let message = SilenceMessage {
            key: &entry.key,
            since: silence.since,
            ended_at: None,
            reading: silence.last,
            lasted: silence.unheard,
            interval: Some(silence.interval),
        };
        effects.outgoing.push(self.outgoing(silence.series, entry, encode::silence(&message)));
    }

    /// A reading has arrived; it may end a silence.
    pub(super) fn heard(
        &mut self,
        handle: SeriesHandle,
        reading: Reading,
        origin: Origin,
        effects: &mut Effects,
    ) {
        let arrival = self.steady.at(origin.arrived);
        let Some(Heard { since, at }) = self.engine.heard(handle, reading.time, arrival) else { return };
        self.tell(handle);
        effects.batch.anomalies.push(AnomalyChange::Ended {
            series: handle,
            time: since.0,
            kind: AnomalyKind::Silence,
            ended_at: at.0,
        });
        let Some(entry) = self.catalog.get(handle) else { return };
        let message = SilenceMessage {
            key: &entry.key,
            since,
            ended_at: Some(at),
            reading,
            lasted: at.0 - since.0,
            interval: None,
        };
        effects.outgoing.push(self.outgoing(handle, entry, encode::silence(&message)));
    }

    /// An anomaly of values begins or ends.
    pub(super) fn anomaly(
        &self,
        handle: SeriesHandle,
        reading: Reading,
        outcome: &Outcome,
        change: Change,
        origin: Origin,
        effects: &mut Effects,
    ) {
        let (Some(entry), Some(verification)) = (self.catalog.get(handle), outcome.verification) else {
            return;
        };
        self.tell(handle);
        let [q05, _, _, median, _, _, q95] = verification.expected;
        let (since, ended_at) = match change {
            Change::Began => (reading.time, None),
            Change::Ended { since, at } => (since, Some(at)),
        };
        if ended_at.is_none() {
            self.metrics.stream(entry.stream).anomalies.inc();
        }
        // The end of one that was stored must be, too.
        if origin.store || ended_at.is_some() {
            effects.batch.anomalies.push(match ended_at {
                None => AnomalyChange::Began {
                    series: handle,
                    time: since.0,
                    kind: AnomalyKind::Value,
                    value: reading.value,
                    broken: Some(Broken { score: outcome.score, q05, q95 }),
                },
                Some(ended_at) => AnomalyChange::Ended {
                    series: handle,
                    time: since.0,
                    kind: AnomalyKind::Value,
                    ended_at: ended_at.0,
                },
            });
        }
        let message = AnomalyMessage {
            key: &entry.key,
            since,
            ended_at,
            reading,
            score: outcome.score,
            interval: [q05, q95],
            expected: median,
        };
        effects.outgoing.push(self.outgoing(handle, entry, encode::anomaly(&message)));
    }

    fn outgoing(&self, handle: SeriesHandle, entry: &Entry, payload: Vec<u8>) -> Outgoing {
        Outgoing {
            topic: self.outputs.anomaly(&entry.key),
            payload,
            retain: false,
            stream: entry.stream,
            series: Some(handle),
            kind: Kind::Anomaly,
            arrived: None,
        }
    }
}
