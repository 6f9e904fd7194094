//! What control asks of the engine's thread. Each answer is short: what concerns many series is asked in parts.

use std::sync::Arc;

use forecaster::{Problem, SeriesHandle, Timestamp, Tuned};
use tokio::sync::oneshot;

use super::Follower;
use crate::catalog::Labels;
use crate::encode::{self, ForecastMessage};
use crate::engine_thread::EngineThread;
use crate::ingest::NAIVE;
use crate::message::LastReading;
use crate::record::FeedbackRow;
use crate::recorder::Record;

/// A series as it is known for good.
#[derive(Debug, Clone)]
pub struct Known {
    /// `<stream>/<captured levels>/<field>`.
    pub key: Arc<str>,
    /// Name of its stream.
    pub stream: Arc<str>,
    /// Captured topic levels by name.
    pub labels: Labels,
}

/// How a series is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// What is the matter with it.
    pub problem: Problem,
    /// Time of its newest reading, microseconds since the Unix epoch.
    pub newest: Option<i64>,
    /// How long ago one arrived, in microseconds; none if none has since the start.
    pub heard_ago: Option<i64>,
}

/// What became of feedback.
#[derive(Debug)]
pub enum Taught {
    /// The series is tuned; told once that is stored, and let go untold if the store refuses it.
    Tuned(Tuned, oneshot::Receiver<()>),
    /// Nothing is remembered of that moment.
    NothingRemembered,
    /// The store takes nothing at present, and nothing was changed.
    StoreAway,
}

/// A series' newest reading, if it has one.
type Last = Option<LastReading>;

/// What the engine's thread is told by control.
#[derive(Debug)]
pub enum ControlMessage {
    /// The forecast message of a series as of now; none if it has no reading.
    Forecast(SeriesHandle, oneshot::Sender<Option<Vec<u8>>>),
    /// Feedback.
    Teach {
        /// The series.
        series: SeriesHandle,
        /// What it is about, microseconds since the Unix epoch; none: its latest anomaly.
        time: Option<i64>,
        /// Whether that was an anomaly.
        anomaly: bool,
        /// When it was given, no two at the same time.
        given_at: i64,
        /// Told what became of it.
        reply: oneshot::Sender<Taught>,
    },
    /// The newest readings of some series.
    Last(Vec<SeriesHandle>, oneshot::Sender<Vec<Last>>),
    /// Series from a handle on, so many at most.
    Known(SeriesHandle, usize, oneshot::Sender<Vec<Known>>),
    /// How series are, from a handle on, so many at most, and how many tidings a follower was told before.
    Conditions(SeriesHandle, usize, oneshot::Sender<(u64, Vec<Condition>)>),
    /// Somebody follows from here on what is the matter with the series.
    Follow(Follower),
}

impl EngineThread {
    /// Does what control asks.
    pub(crate) fn control(&mut self, message: ControlMessage, record: &mut Record) {
        // Whoever asked may have gone away.
        match message {
            ControlMessage::Forecast(series, reply) => drop(reply.send(self.forecast_now(series))),
            ControlMessage::Teach { series, time, anomaly, given_at, reply } => {
                drop(reply.send(self.teach(series, time, anomaly, given_at, record)));
            }
            ControlMessage::Last(series, reply) => {
                drop(reply.send(series.into_iter().map(|handle| self.last(handle)).collect()));
            }
            ControlMessage::Known(from, limit, reply) => {
                let entries = self.ingest.catalog.iter().skip(from as usize).take(limit);
                let known = entries.map(|entry| Known {
                    key: entry.key.clone(),
                    stream: entry.stream_name.clone(),
                    labels: entry.labels.clone(),
                });
                drop(reply.send(known.collect()));
            }
            ControlMessage::Conditions(from, limit, reply) => {
                let end = self.ingest.catalog.len().min(from as usize + limit);
                let conditions = (from..).take(end.saturating_sub(from as usize)).map(|s| self.condition(s));
                drop(reply.send((self.ingest.told(), conditions.collect())));
            }
            ControlMessage::Follow(follower) => self.ingest.follow(follower),
        }
    }

    fn forecast_now(&mut self, handle: SeriesHandle) -> Option<Vec<u8>> {
        let engine = &mut self.ingest.engine;
        let model = engine.model_of(handle).map_or_else(|| NAIVE.into(), |m| m.name.clone());
        let series = engine.series(handle)?;
        let (last, (score, anomaly)) = (series.last()?, series.state_of_last());
        let (origin, value, steps) = (last.time, last.value, engine.forecast(handle));
        let message = ForecastMessage { origin, model: &model, value, score, anomaly, steps };
        Some(encode::forecast(&self.ingest.catalog.get(handle)?.forecast_head, &message))
    }

    fn teach(
        &mut self,
        series: SeriesHandle,
        time: Option<i64>,
        anomaly: bool,
        given_at: i64,
        record: &mut Record,
    ) -> Taught {
        if self.backlog.is_away() {
            return Taught::StoreAway;
        }
        let engine = &mut self.ingest.engine;
        let Some(newest) = engine.series(series).and_then(|s| s.last()) else {
            return Taught::NothingRemembered;
        };
        let Some(tuned) = engine.teach(series, time.map(Timestamp), anomaly) else {
            return Taught::NothingRemembered;
        };
        if tuned.news {
            record.batch.feedback.push(FeedbackRow {
                series,
                given_at,
                time: tuned.moment.from.0,
                newest: newest.time.0,
                anomaly,
                evidence: tuned.moment.evidence.into(),
            });
        }
        // Else once that is stored which said it before.
        let (tell, told) = oneshot::channel();
        record.taught.push((series, tell));
        Taught::Tuned(tuned, told)
    }

    fn last(&self, handle: SeriesHandle) -> Last {
        let series = self.ingest.engine.series(handle)?;
        let (last, (score, anomaly)) = (series.last()?, series.state_of_last());
        Some(LastReading { time: encode::text(last.time), value: last.value, score, anomaly })
    }

    fn condition(&self, handle: SeriesHandle) -> Condition {
        let engine = &self.ingest.engine;
        Condition {
            problem: engine.problem(handle),
            newest: engine.series(handle).and_then(|s| s.last()).map(|last| last.time.0),
            heard_ago: self.ingest.heard_ago(handle),
        }
    }
}
